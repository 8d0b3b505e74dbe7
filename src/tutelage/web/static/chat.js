// @ts-check
/** The chat page: asking, streaming, stopping, answering again, editing. */

import { StreamedText, follow } from "./answer.js";
import { t } from "./catalogue.js";
import { draft, grow, sends } from "./composer.js";
import { copy, dressCode } from "./copy.js";
import { announce, attempt, byId, onActions } from "./dialogs.js";
import { rate, report } from "./feedback.js";
import { Problem, call, newKey } from "./http.js";
import { listen } from "./keys.js";
import { refreshDialogues, showTitle } from "./library.js";
import { choose, offerPick, pick, showPair } from "./pick.js";
import { showProblem } from "./problem.js";
import { stick } from "./stick.js";
import { catchUp, lastMessage, make, messageOf, removeFrom, settle, settleAfter, showEarlier, switchBranch, thread, watchEarlier } from "./thread.js";

const main = byId("main");
const text = byId("text");
const two = byId("two");
const scroller = byId("scroller");
const { toEnd, leave } = stick(scroller, thread, byId("to-end"));
/** What is being answered: the ids once the server has named them. @type {string[] | null} */
let running = null;
/** A question that did not reach the server. */
let unsent = "";

function update() {
  byId("send").hidden = running !== null;
  byId("stop").hidden = running === null;
  byId("send").disabled = text.value.trim() === "";
}

/** Go to the words to send, where no keyboard comes up on the screen: what had the focus is gone from the page. */
function toText() {
  if (matchMedia("(hover: hover)").matches) text.focus({ preventScroll: true });
}

/** Run `work` and show what goes wrong in the thread. @param {() => Promise<void>} work @param {() => void} retry */
async function guarded(work, retry) {
  try {
    await work();
  } catch (error) {
    const unknown = thread.querySelector("[data-status='running']:not([data-message])");
    if (unknown) removeFrom(unknown);
    showProblem(error instanceof Problem ? error : new Problem(t("Something went wrong on this page.")), retry);
  } finally {
    running = null;
    update();
  }
}

/** Follow an answer to its end, then show it as the server renders it. @param {HTMLElement} element @param {string} id @param {StreamedText} [text] */
async function finish(element, id, text) {
  running = [id];
  element.dataset.message = id;
  update();
  try {
    await follow(element, id, text);
  } finally {
    const answer = await settle(element, id);
    announce(answer.querySelector(".body, .verdict")?.textContent ?? "");
  }
}

/** Follow two answers side by side to their ends. @param {HTMLElement} pair @param {string} question @param {string[]} ids */
async function finishBoth(pair, question, ids) {
  running = ids;
  update();
  try {
    const answers = [...pair.querySelectorAll(".message")].map((element) => /** @type {HTMLElement} */ (element));
    const open = answers.map((element, index) => {
      element.dataset.message = ids[index];
      return element.dataset.status === "running" ? follow(element, ids[index]) : null;
    });
    const failed = (await Promise.allSettled(open)).find((end) => end.status === "rejected");
    if (failed) throw failed.reason;
  } finally {
    await settleAfter(pair, question);
    announce(t("Both answers are there. Which one is better?"));
  }
}

/** Show an answer (or two) that the server has not begun yet. @param {number} answers @returns {HTMLElement} */
function waitForAnswer(answers = 1) {
  const answer = make(answers === 2 ? "pending-pair" : "pending-answer");
  thread.append(answer);
  running = [];
  update();
  return answer;
}

/** Show two answers where one was waited for. @param {HTMLElement} answer @returns {HTMLElement} */
function offerBoth(answer) {
  const pair = make("pending-pair");
  pair.querySelector("[data-offered]").hidden = false;
  answer.replaceWith(pair);
  announce(t("Two versions of the model answer. Your choice says which of them is better, and goes on."));
  return pair;
}

/**
 * @param {string} content @param {string | null} parent @param {number} answers one (or two, as the server sees fit), or two side by side
 * @param {string} key the same for every try of one message
 */
async function ask(content, parent, answers = 1, key = newKey()) {
  unsent = "";
  byId("welcome")?.remove();
  byId("temporary")?.remove();
  byId("title").hidden = false;
  const question = make("pending-question");
  question.querySelector(".body").textContent = content;
  thread.append(question);
  let answer = waitForAnswer(answers);
  toEnd();
  let started = /** @type {any} */ (null);
  const retry = () => {
    if (started) return regenerate(byId(`m-${started.answer_id}`) ?? lastMessage());
    question.remove();
    return ask(content, parent, answers, key);
  };
  await guarded(async () => {
    const dialogue = main.dataset.dialogue;
    const path = dialogue ? `/api/dialogues/${dialogue}/messages` : "/api/dialogues";
    const place = dialogue ? { parent_id: parent } : { temporary: "temporary" in main.dataset };
    unsent = content;
    const wanted = answers === 2 ? { answers } : {};
    started = await call("POST", path, { text: content, idempotency_key: key, ...wanted, ...place });
    unsent = "";
    enter(started.dialogue_id);
    count(started.remaining);
    await settle(question, started.user_message_id);
    const { answer_id: first, second_answer_id: second } = started;
    if (second && answers !== 2) answer = offerBoth(answer);
    await (second ? finishBoth(answer, started.user_message_id, [first, second]) : finish(answer, first));
  }, retry);
  refreshTitle();
}

/** A new dialogue has got its address. @param {string} id */
function enter(id) {
  history.replaceState(null, "", `/c/${id}`);
  if (main.dataset.dialogue === id) return;
  main.dataset.dialogue = id;
  byId("share-this")?.removeAttribute("hidden");
  refreshTitle();
}

/** @param {number | null} remaining answers left for today */
function count(remaining) {
  if (remaining !== null) byId("remaining").textContent = t("Answers left today: {count}.", { count: remaining });
}

/** Show the list of chats as it is now, and the title of this one; what fails here, the thread has told already. */
async function refreshTitle() {
  await refreshDialogues().catch(() => {});
  const title = document.querySelector("#dialogues [aria-current] span")?.textContent?.trim() ?? "";
  if (title) showTitle(title);
}

/** @param {HTMLElement} message */
async function regenerate(message) {
  if (running) return;
  const id = message.dataset.message;
  removeFrom(message);
  toText();
  const answer = waitForAnswer();
  await guarded(async () => {
    const started = await call("POST", `/api/messages/${id}/regenerate`);
    enter(started.dialogue_id);
    count(started.remaining);
    await finish(answer, started.answer_id);
    offerPick(byId(`m-${started.answer_id}`));
  }, () => location.reload());
}

/** Go on with an answer that was cut off, in its place. @param {HTMLElement} message */
async function goOn(message) {
  if (running) return;
  const id = message.dataset.message ?? "";
  const source = /** @type {HTMLTemplateElement} */ (message.querySelector("template.source"));
  const begun = (source.content.textContent ?? "").replace(/\ufffd+$/, "");
  running = [];
  update();
  toText();
  await guarded(async () => {
    const answer = make("pending-answer");
    const text = new StreamedText(answer);
    await text.goOn(begun);
    const started = await call("POST", `/api/messages/${id}/continue`);
    count(started.remaining);
    message.replaceWith(answer);
    await finish(answer, id, text);
  }, () => location.reload());
}

/** @param {HTMLElement} message */
function edit(message) {
  const form = make("edit-form");
  const area = form.querySelector("textarea");
  const source = /** @type {HTMLTemplateElement | null} */ (message.querySelector("template.source"));
  area.value = source?.content.textContent ?? "";
  const parts = [...message.querySelectorAll(":scope > :is(.body, .actions)")];
  const show = (/** @type {boolean} */ on) => parts.forEach((part) => (/** @type {HTMLElement} */ (part).hidden = !on));
  const opener = document.activeElement;
  show(false);
  leave();
  message.append(form);
  area.focus();
  const submit = () => {
    if (!area.value.trim() || running) return;
    const parent = message.dataset.parent || null;
    removeFrom(message);
    toText();
    ask(area.value.trim(), parent);
  };
  const cancel = () => {
    form.remove();
    show(true);
    if (opener === text) toText();
    else /** @type {HTMLElement | null} */ (message.querySelector("[data-action='edit']"))?.focus();
  };
  form.addEventListener("submit", (/** @type {Event} */ event) => {
    event.preventDefault();
    submit();
  });
  area.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    if (event.key === "Escape" && !event.isComposing) {
      event.preventDefault();
      cancel();
    }
    if (!sends(event)) return;
    event.preventDefault();
    submit();
  });
  form.querySelector("[data-action='cancel-edit']").addEventListener("click", cancel);
}

/** Edit the question that was asked last. @returns {boolean} whether there is one that can be */
function editLast() {
  const last = [...thread.querySelectorAll(".message.user:has([data-action='edit'])")].at(-1);
  if (!last || running) return false;
  if (!last.querySelector(".edit")) edit(/** @type {HTMLElement} */ (last));
  return true;
}

function submit() {
  const content = text.value.trim();
  if (!content || running) return;
  text.value = "";
  grow(text);
  const answers = two.ariaPressed === "true" ? 2 : 1;
  two.ariaPressed = "false";
  ask(content, lastMessage()?.dataset.message ?? null, answers);
}

async function stop() {
  await attempt(() => Promise.all((running ?? []).map((id) => call("POST", `/api/answers/${id}/stop`))));
}

/** Go on with an answer that is being written. */
function attach() {
  const open = thread.querySelector(".message[data-status='running'][data-message]");
  if (!open) return;
  const pair = open.closest(".pair");
  const { question, first, second } = pair?.dataset ?? {};
  guarded(() => (pair ? finishBoth(pair, question, [first, second]) : finish(open, open.dataset.message)), () => location.reload());
}

/** This tab is looked at again: another one may have gone on with the chat. */
async function awake() {
  if (document.hidden || running) return;
  if (await catchUp()) {
    attach();
    refreshTitle();
  }
}

text.addEventListener("input", () => {
  grow(text);
  update();
});
byId("composer").addEventListener("submit", (/** @type {Event} */ event) => {
  event.preventDefault();
  submit();
});
two.addEventListener("click", () => (two.ariaPressed = String(two.ariaPressed !== "true")));
byId("stop").addEventListener("click", () => {
  toText();
  stop();
});
document.addEventListener("visibilitychange", awake);
addEventListener("focus", awake);

onActions({
  example: (button) => {
    text.value = button.textContent;
    update();
    text.focus();
  },
  copy: (button) => copy(messageOf(button).querySelector("template.source").content.textContent, button),
  "copy-code": (button) => copy(button.closest(".code").querySelector("code").textContent, button),
  regenerate: (button) => regenerate(messageOf(button)),
  continue: (button) => goOn(messageOf(button)),
  edit: (button) => edit(messageOf(button)),
  branch: (link, event) => {
    event.preventDefault();
    if (!running) switchBranch(link);
  },
  earlier: (button) => showEarlier(button, scroller),
  pick: (button) => pick(button),
  choose: (button) => !running && choose(button),
  "show-pair": (button) => showPair(button),
  rate: (button) => rate(messageOf(button), button.dataset.verdict),
  report: (button) => report(messageOf(button), button.dataset.kind),
});

dressCode(thread);
listen(text, scroller, { send: submit, stop, editLast });
draft(text, () => main.dataset.dialogue ?? "", () => unsent);
const wanted = location.hash && byId(location.hash.slice(1));
if (wanted) {
  leave();
  wanted.scrollIntoView({ block: "center" });
  requestAnimationFrame(() => wanted.scrollIntoView({ block: "center" }));
} else if (thread.firstElementChild) toEnd();
watchEarlier(scroller);
update();
toText();
attach();
