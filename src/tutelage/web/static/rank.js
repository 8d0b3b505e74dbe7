// @ts-check
/** The ranking page: fetches a task, lets its candidates be ordered by keys, buttons or dragging, sends the order. */

import { t } from "./catalogue.js";
import { dressCode } from "./copy.js";
import { announce, attempt, byId, confirmed, onActions, toast } from "./dialogs.js";
import { Problem, call, fragment, lines } from "./http.js";
import { Ranking } from "./ranking.js";

const RENEWAL = 5 * 60 * 1000;
const GONE = ["conflict", "not_found"];
const place = byId("task");
/** @type {Ranking | null} */
let ranking = null;
let taskId = "";
let busy = false;

/** @param {string} id @returns {any} */
const card = (id) => place.querySelector(`[data-candidate="${id}"]`);
/** @returns {HTMLElement | null} */
const selected = () => place.querySelector("[data-candidate][aria-current='true']");

/** @param {string} name one of the states of the page: wait, none, problem, work */
function show(name) {
  for (const state of ["wait", "none", "problem"]) byId(state).hidden = state !== name;
  place.hidden = name !== "work";
  byId("actions").hidden = name !== "work";
}

async function next() {
  show("wait");
  const started = Date.now();
  const clock = setInterval(() => {
    byId("seconds").textContent = t("{seconds} s", { seconds: Math.round((Date.now() - started) / 1000) });
  }, 1000);
  try {
    taskId = await prepared();
    if (taskId) await open();
    else show("none");
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    byId("problem-text").textContent = error.message;
    show("problem");
  } finally {
    clearInterval(clock);
    byId("seconds").textContent = "";
    byId("progress").textContent = "";
  }
}

/** Have a task made ready, and show how far the model is. @returns {Promise<string>} its id, empty when there is none */
async function prepared() {
  for await (const event of lines("POST", "/rank/next")) {
    if (event.error) throw new Problem(event.error.message);
    if ("task" in event) return event.task ?? "";
    byId("progress").textContent = t("{done} of {all} answers are written", { done: event.sampled, all: event.of });
  }
  throw new Problem(t("The server cannot be reached."), t("Check the connection and try again."));
}

async function open() {
  place.replaceChildren(await fragment(`/rank/tasks/${taskId}`));
  dressCode(place);
  ranking = new Ranking([...place.querySelectorAll("[data-candidate]")].map((each) => each.dataset.candidate ?? ""));
  byId("all-bad").checked = false;
  byId("note").value = "";
  show("work");
  paint();
  select(ranking.groups[0][0]);
  announce(t("A new task is here."));
}

/** @param {string} id */
function select(id) {
  for (const each of place.querySelectorAll("[data-candidate]")) {
    each.setAttribute("aria-current", String(each.dataset.candidate === id));
    each.tabIndex = each.dataset.candidate === id ? 0 : -1;
  }
  card(id)?.focus({ preventScroll: true });
  card(id)?.scrollIntoView({ block: "nearest" });
}

/** Bring the cards into the order of the ranking. */
function paint() {
  if (!ranking) return;
  const tops = new Map([...place.querySelectorAll("[data-candidate]")].map((each) => [each, each.getBoundingClientRect().top]));
  const focused = document.activeElement;
  ranking.groups.forEach((group, rank) => {
    group.forEach((id, index) => {
      card(id).querySelector("[data-rank]").textContent = String(rank + 1);
      card(id).classList.toggle("tied", index > 0);
      byId("ranked").append(card(id));
    });
  });
  for (const id of ranking.state.out) {
    card(id).querySelector("[data-rank]").textContent = "–";
    card(id).classList.remove("tied");
    byId("out").append(card(id));
  }
  for (const button of place.querySelectorAll("[data-action='drop']")) {
    button.textContent = button.closest("#out") ? button.dataset.out : button.dataset.ranked;
  }
  byId("out-heading").hidden = ranking.state.out.length === 0;
  byId("undo").disabled = ranking.history.length === 0;
  if (focused instanceof HTMLElement && focused.isConnected) focused.focus({ preventScroll: true });
  glide(tops);
}

/** Let cards that have moved glide to their place. @param {Map<any, number>} tops where they were */
function glide(tops) {
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  for (const [each, top] of tops) {
    const moved = top - each.getBoundingClientRect().top;
    if (moved && !each.classList.contains("dragged")) {
      each.animate([{ transform: `translateY(${moved}px)` }, { transform: "none" }], { duration: 160, easing: "ease-out" });
    }
  }
}

/** @param {(ranking: Ranking, id: string) => void} edit @param {string | undefined} id */
function change(edit, id) {
  if (!ranking || !id) return;
  edit(ranking, id);
  paint();
  select(id);
  const rank = ranking.groups.findIndex((group) => group.includes(id)) + 1;
  announce(rank ? t("Rank {rank}", { rank }) : t("Not rankable"));
}

async function submit() {
  if (!ranking || busy) return;
  const allBad = byId("all-bad").checked;
  const sure = !ranking.untouched || allBad || (await confirmed({
    title: t("Send the order as it came?"),
    text: t("You have not moved anything. The order at the start is random."),
    ok: t("Yes, send it"),
  }));
  if (!sure) return;
  const body = { groups: ranking.groups, unrankable: ranking.state.out, all_bad: allBad, note: byId("note").value.trim(), fixes: fixes() };
  await leave(() => call("POST", `/rank/tasks/${taskId}`, body), t("Saved. Here is the next one."));
}

/** What was written better. @returns {{candidate: string, content: string}[]} */
function fixes() {
  return [...place.querySelectorAll("[data-candidate]")].flatMap((each) => {
    const area = each.querySelector("textarea");
    const text = area.value.trim();
    const changed = !area.closest(".fix").hidden && text && text !== area.dataset.before.trim();
    return changed ? [{ candidate: each.dataset.candidate, content: text }] : [];
  });
}

/** Open or close the place where a candidate is written better. @param {HTMLElement} button */
function fix(button) {
  const panel = byId(/** @type {string} */ (button.getAttribute("aria-controls")));
  panel.hidden = !panel.hidden;
  button.setAttribute("aria-expanded", String(!panel.hidden));
  if (!panel.hidden) panel.querySelector("textarea").focus();
}

/** Leave the task to others. @param {boolean} flagged whether an operator shall look at it */
async function skip(flagged) {
  const reason = byId("note").value.trim();
  if (flagged && !reason) {
    toast(t("Say in the note what is wrong with it."));
    byId("note").focus();
  } else if (!busy) await leave(() => call("POST", `/rank/tasks/${taskId}/skip`, { reason, flagged }), "");
}

/** End this task by an action and go on to the next; so too when the task is not the trainer's any more. @param {() => Promise<any>} action @param {string} word */
async function leave(action, word) {
  busy = true;
  try {
    await action();
    if (word) toast(word);
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    toast(error.message);
    if (!GONE.includes(error.code)) return;
  } finally {
    busy = false;
  }
  taskId = "";
  ranking = null;
  await next();
}

function undo() {
  ranking?.undo();
  paint();
}

/** @type {Record<string, (id: string | undefined) => void>} */
const keys = {
  ArrowUp: (id) => change((order, each) => order.move(each, -1), id),
  ArrowDown: (id) => change((order, each) => order.move(each, 1), id),
  "=": (id) => change((order, each) => order.tie(each), id),
  0: (id) => change((order, each) => order.drop(each), id),
};

document.addEventListener("keydown", (event) => {
  if (!ranking || event.isComposing || document.querySelector("dialog[open]")) return;
  const command = event.ctrlKey || event.metaKey;
  if (command && event.key === "Enter") return void (event.preventDefault(), submit());
  if (/** @type {Element} */ (event.target).closest("textarea, input, select")) return;
  if (command && event.key.toLowerCase() === "z") return void (event.preventDefault(), undo());
  if (command || event.altKey) return;
  if (/^[1-9]$/.test(event.key)) {
    const wanted = place.querySelector(`[data-key="${event.key}"]`);
    if (wanted) select(wanted.dataset.candidate);
  } else if (keys[event.key]) {
    event.preventDefault();
    keys[event.key](selected()?.dataset.candidate);
  }
});

/** @param {Element} target */
const idOf = (target) => /** @type {any} */ (target.closest("[data-candidate]"))?.dataset.candidate;

place.addEventListener("focusin", (/** @type {any} */ event) => {
  const id = idOf(event.target);
  for (const each of place.querySelectorAll("[data-candidate]")) each.setAttribute("aria-current", String(each.dataset.candidate === id));
});

/** Drag by the handle, with mouse, pen or finger. */
place.addEventListener("pointerdown", (/** @type {PointerEvent} */ event) => {
  const handle = /** @type {Element} */ (event.target).closest("[data-handle]");
  const id = handle && idOf(handle);
  if (!handle || !id || !ranking) return;
  event.preventDefault();
  select(id);
  card(id).classList.add("dragged");
  const drag = (/** @type {any} */ move) => {
    const others = [...byId("ranked").children].filter((each) => each !== card(id));
    const position = others.filter((each) => {
      const box = each.getBoundingClientRect();
      return move.clientY > box.top + box.height / 2;
    }).length;
    if (ranking && position !== ranking.state.ranked.findIndex((each) => each.id === id)) change((order) => order.place(id, position), id);
  };
  // On the document: a pointer captured by the handle is lost whenever its card is put into another place.
  const drop = () => {
    document.removeEventListener("pointermove", drag);
    card(id)?.classList.remove("dragged");
  };
  document.addEventListener("pointermove", drag);
  for (const end of ["pointerup", "pointercancel"]) document.addEventListener(end, drop, { once: true });
});

onActions({
  up: (button) => keys.ArrowUp(idOf(button)),
  down: (button) => keys.ArrowDown(idOf(button)),
  tie: (button) => keys["="](idOf(button)),
  drop: (button) => keys["0"](idOf(button)),
  undo,
  submit,
  fix,
  skip: () => skip(false),
  flag: () => skip(true),
  next,
});

/** Hold the task for another while; a page that nobody looks at lets others have it. */
function renew() {
  if (taskId && !document.hidden) attempt(() => call("POST", `/rank/tasks/${taskId}/renew`));
}

setInterval(renew, RENEWAL);
document.addEventListener("visibilitychange", renew);

next();
