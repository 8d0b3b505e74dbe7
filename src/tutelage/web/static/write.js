// @ts-check
/** Writing a dialogue from both sides. At the assistant's turn the model suggests; the text stays the writer's. */

import { t } from "./catalogue.js";
import { grow } from "./composer.js";
import { announce, attempt, byId, confirmed, onActions, toast } from "./dialogs.js";
import { Problem, call, pieces } from "./http.js";

/** @typedef {{role: string, content: string, suggestions: string[], taken: string | null, version: string | null, seconds: number}} Turn */

const SAVE_AFTER = 800;
const SUGGESTIONS = 3;
const LONGEST_PAUSE = 30_000;
const list = byId("turns");
/** @type {Turn[]} */
const turns = JSON.parse(list.dataset.turns);
let draft = list.dataset.draft || null;
const start = byId("start");
let saving = Promise.resolve();
let timer = 0;
let touched = 0;
let handingIn = false;
/** @type {AbortController | null} */
let suggesting = null;

/** @param {number} index @returns {any} */
const item = (index) => list.children[index];
/** @param {Element} target @returns {number} */
const indexOf = (target) => [...list.children].indexOf(/** @type {Element} */ (target.closest(".turn")));
const nextRole = () => (turns.at(-1)?.role === "user" ? "assistant" : "user");

/** @param {Turn} turn */
function kind(turn) {
  if (turn.taken === null) return "human";
  return turn.taken.trim() === turn.content.trim() ? "suggested" : "edited";
}

/** @param {number} index */
function paint(index) {
  const tag = item(index).querySelector("[data-provenance]");
  tag.textContent = tag.dataset[kind(turns[index])];
  tag.hidden = turns[index].role === "user" || !turns[index].content.trim();
  const whole = turns.every((turn) => turn.content.trim());
  byId("add").disabled = !whole;
  byId("submit").disabled = !whole || turns.length === 0 || turns.at(-1)?.role !== "assistant";
  const label = byId("add-text");
  label.textContent = nextRole() === "user" ? label.dataset.user : label.dataset.assistant;
}

/** @param {Turn} turn @param {number} index */
function append(turn, index) {
  const element = byId("turn").content.firstElementChild.cloneNode(true);
  const area = element.querySelector("textarea");
  const label = element.querySelector("label");
  element.dataset.role = turn.role;
  area.id = `turn-${index}`;
  label.htmlFor = area.id;
  label.textContent = area.dataset[turn.role];
  area.value = turn.content;
  area.addEventListener("input", () => edit(indexOf(area), area.value));
  list.append(element);
  grow(area);
  paint(index);
  return area;
}

/** What is sent to the server. */
const written = () => ({ id: draft, messages: turns, topic: byId("topic").value, prompt: promptUsed(), flag: byId("flag").value.trim() });
/** The id of the first message the writer began from, while it is still the first. */
const promptUsed = () => (start.dataset.prompt && turns[0]?.content === byId("start-prompt").textContent ? start.dataset.prompt : null);

/** Show another topic or first message. @param {string} [topic] */
async function another(topic = "") {
  const found = await attempt(() => call("GET", topic ? `/write/start?topic=${topic}` : "/write/start"));
  if (!found) return;
  byId("topic").value = found.topic;
  byId("start-task").textContent = byId("topic").selectedOptions[0].dataset.task;
  byId("start-prompt").textContent = found.content;
  start.dataset.prompt = found.prompt ?? "";
  byId("start-prompt").hidden = byId("begin").hidden = !found.content;
}

/** Begin with the first message that is shown. */
function begin() {
  const area = item(0).querySelector("textarea");
  area.value = byId("start-prompt").textContent;
  edit(0, area.value);
  area.focus();
}

/** @param {number} index @param {string} content */
function edit(index, content) {
  const turn = turns[index];
  turn.seconds += Math.min(Date.now() - touched, LONGEST_PAUSE) / 1000;
  touched = Date.now();
  turn.content = content;
  if (!content.trim()) turn.taken = null;
  grow(item(index).querySelector("textarea"));
  paint(index);
  save();
}

function add() {
  if (byId("add").disabled) return;
  const turn = { role: nextRole(), content: "", suggestions: [], taken: null, version: null, seconds: 0 };
  turns.push(turn);
  touched = Date.now();
  append(turn, turns.length - 1).focus();
  item(turns.length - 1).scrollIntoView({ block: "nearest" });
  if (turn.role === "assistant") suggest(turns.length - 1);
}

/** Have the model suggest some answers at once, each in a place of its own. @param {number} index */
async function suggest(index) {
  suggesting?.abort();
  suggesting = new AbortController();
  const { signal } = suggesting;
  const panel = item(index).querySelector(".suggestions");
  const dots = panel.querySelector(".dots");
  panel.hidden = false;
  dots.hidden = false;
  const places = Array.from({ length: SUGGESTIONS }, () => byId("suggestion").content.firstElementChild.cloneNode(true));
  panel.querySelector("ol").replaceChildren(...places);
  await Promise.all(places.map((place) => suggestOne(index, place, signal)));
  if (signal.aborted) return;
  dots.hidden = true;
  announce(t("{count} suggestions are here.", { count: panel.querySelectorAll("li").length }));
}

/** @param {number} index @param {any} place @param {AbortSignal} signal */
async function suggestOne(index, place, signal) {
  const text = place.querySelector(".text");
  try {
    const noteVersion = (/** @type {Headers} */ head) => (place.dataset.version = head.get("x-model-version") ?? "");
    const coming = pieces("POST", "/write/suggest", { messages: turns.slice(0, index) }, signal, noteVersion);
    for await (const piece of coming) text.append(piece);
  } catch (error) {
    if (signal.aborted) return;
    text.textContent = error instanceof Problem ? error.message : t("The suggestion broke off.");
    return;
  }
  const twice = turns[index].suggestions.includes(text.textContent);
  const shown = [...place.parentElement.querySelectorAll(".text")].filter((each) => each.textContent === text.textContent);
  if (!text.textContent.trim() || (twice && shown.length > 1)) return void place.remove();
  if (!twice) turns[index].suggestions.push(text.textContent);
  if (turns[index].taken === null) turns[index].version = place.dataset.version || null;
  place.querySelector("[data-action='take']").disabled = false;
}

/** @param {HTMLElement} button */
function take(button) {
  const index = indexOf(button);
  const area = item(index).querySelector("textarea");
  suggesting?.abort();
  const chosen = /** @type {any} */ (button.closest(".suggestion"));
  turns[index].taken = chosen.querySelector(".text").textContent;
  turns[index].version = chosen.dataset.version || null;
  area.value = turns[index].taken;
  item(index).querySelector(".suggestions").hidden = true;
  edit(index, area.value);
  area.focus();
}

/** @param {number} index */
function ignore(index) {
  suggesting?.abort();
  item(index).querySelector(".suggestions").hidden = true;
  item(index).querySelector("textarea").focus();
}

/** @param {number} index */
async function remove(index) {
  const written = turns.slice(index).some((turn) => turn.content.trim());
  const texts = { title: t("Remove this turn?"), text: t("The turns after it go with it."), ok: t("Remove"), danger: true };
  if (written && !(await confirmed(texts))) return;
  suggesting?.abort();
  turns.length = index;
  while (list.children.length > index) list.lastElementChild.remove();
  if (turns.length === 0) add();
  else paint(turns.length - 1);
  save();
}

/** Save a moment after the last change, one request at a time. */
function save() {
  clearTimeout(timer);
  byId("saved").textContent = "";
  timer = setTimeout(() => {
    saving = saving.then(store);
  }, SAVE_AFTER);
}

async function store() {
  if (!turns.some((turn) => turn.content.trim())) return;
  const saved = await attempt(() => call("PUT", "/write/draft", written()));
  if (!saved) return;
  if (draft !== saved.id) history.replaceState(null, "", `/write?draft=${saved.id}`);
  draft = saved.id;
  byId("saved").textContent = t("Draft saved");
}

async function submit() {
  if (handingIn) return;
  handingIn = true;
  clearTimeout(timer);
  await saving;
  if (!draft) await store(); // handed in twice, it is still one dialogue
  const done = draft ? await attempt(() => call("POST", "/write/submit", written())) : undefined;
  handingIn = false;
  if (done === undefined) return;
  toast(t("Thank you. The dialogue is handed in."));
  draft = null;
  turns.length = 0;
  list.replaceChildren();
  history.replaceState(null, "", "/write");
  byId("saved").textContent = "";
  byId("flag").value = "";
  start.hidden = false;
  add();
  await another();
}

async function discard() {
  const texts = { title: t("Discard this dialogue?"), text: t("The draft will be deleted."), ok: t("Discard"), danger: true };
  if (!(await confirmed(texts))) return;
  clearTimeout(timer);
  await saving;
  if (draft) await attempt(() => call("DELETE", `/write/draft/${draft}`));
  location.assign("/write");
}

list.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !event.isComposing) {
    event.preventDefault();
    add();
  }
});

onActions({
  add,
  submit,
  discard,
  begin,
  another: () => another(),
  take,
  again: (button) => suggest(indexOf(button)),
  ignore: (button) => ignore(indexOf(button)),
  remove: (button) => remove(indexOf(button)),
});

byId("topic").addEventListener("change", () => another(byId("topic").value));
byId("flag").addEventListener("input", save);

turns.forEach(append);
if (turns.length === 0) add();
