// @ts-check
/** The chat page: asking, streaming, stopping, answering again, editing. */

import { follow } from "./answer.js";
import { t } from "./catalogue.js";
import { grow, sends } from "./composer.js";
import { copy, dressCode } from "./copy.js";
import { announce, attempt, byId, onActions } from "./dialogs.js";
import { rate, report } from "./feedback.js";
import { refreshDialogues } from "./frame.js";
import { Problem, call, fragment } from "./http.js";
import { stick } from "./stick.js";

const main = byId("main");
const thread = byId("thread");
const text = byId("text");
const toEnd = stick(byId("scroller"), thread, byId("to-end"));
/** The answer under way: its id once the server has named it. @type {{id: string} | null} */
let running = null;

/** @param {string} template @returns {any} */
const make = (template) => byId(template).content.firstElementChild.cloneNode(true);

function update() {
  byId("send").hidden = running !== null;
  byId("stop").hidden = running === null;
  byId("send").disabled = text.value.trim() === "";
}

/** Fetch a message as the server renders it, in place of what stands there. @param {Element} element @param {string} id */
async function settle(element, id) {
  const fresh = (await fragment(`/fragments/messages/${id}`)).firstElementChild;
  if (!fresh) return element;
  dressCode(fresh);
  element.replaceWith(fresh);
  return fresh;
}

/** @param {Problem} problem @param {() => void} retry */
function showProblem(problem, retry) {
  const element = make("problem");
  element.querySelector("[data-text]").textContent = problem.message;
  element.querySelector("[data-hint]").textContent = problem.hint;
  element.querySelector("[data-action='retry']").addEventListener("click", () => {
    element.remove();
    retry();
  });
  thread.append(element);
}

/** Run `work` and show what goes wrong in the thread. @param {() => Promise<void>} work @param {() => void} retry */
async function guarded(work, retry) {
  try {
    await work();
  } catch (error) {
    thread.querySelector("[data-status='running']:not([data-message])")?.remove();
    showProblem(error instanceof Problem ? error : new Problem(t("Something went wrong on this page.")), retry);
  } finally {
    running = null;
    update();
  }
}

/** Follow an answer to its end, then show it as the server renders it. @param {HTMLElement} element @param {string} id */
async function finish(element, id) {
  running = { id };
  element.dataset.message = id;
  update();
  try {
    await follow(element, id);
  } finally {
    const answer = await settle(element, id);
    announce(answer.querySelector(".body, .verdict")?.textContent ?? "");
  }
}

/** @param {string} content @param {string | null} parent @param {string} key the same for every try of one message */
async function ask(content, parent, key = crypto.randomUUID()) {
  byId("welcome")?.remove();
  const question = make("pending-question");
  question.querySelector(".body").textContent = content;
  const answer = make("pending-answer");
  thread.append(question, answer);
  toEnd();
  running = { id: "" };
  update();
  let started = /** @type {any} */ (null);
  const retry = () => {
    if (started) return regenerate(byId(`m-${started.answer_id}`));
    question.remove();
    return ask(content, parent, key);
  };
  await guarded(async () => {
    const dialogue = main.dataset.dialogue;
    const path = dialogue ? `/api/dialogues/${dialogue}/messages` : "/api/dialogues";
    const place = dialogue ? { parent_id: parent } : {};
    started = await call("POST", path, { text: content, idempotency_key: key, ...place });
    enter(started.dialogue_id);
    await settle(question, started.user_message_id);
    await finish(answer, started.answer_id);
  }, retry);
  refreshTitle();
}

/** A new dialogue has got its address. @param {string} id */
function enter(id) {
  if (main.dataset.dialogue === id) return;
  main.dataset.dialogue = id;
  history.replaceState(null, "", `/c/${id}`);
  refreshTitle();
}

/** Show the list of chats as it is now, and the title of this one. */
async function refreshTitle() {
  await attempt(refreshDialogues);
  const title = document.querySelector("#dialogues [aria-current]")?.textContent?.trim() ?? "";
  byId("title").textContent = title;
  byId("title").hidden = !title;
  if (title) document.title = `${title} · tutelage`;
}

/** @param {Element} message */
function removeFrom(message) {
  while (message.nextElementSibling) message.nextElementSibling.remove();
  message.remove();
}

/** @param {HTMLElement} message */
async function regenerate(message) {
  if (running) return;
  const id = message.dataset.message;
  removeFrom(message);
  const answer = make("pending-answer");
  thread.append(answer);
  running = { id: "" };
  update();
  await guarded(async () => {
    const started = await call("POST", `/api/messages/${id}/regenerate`);
    await finish(answer, started.answer_id);
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
  show(false);
  message.append(form);
  area.focus();
  const submit = () => {
    if (!area.value.trim() || running) return;
    const parent = message.dataset.parent || null;
    removeFrom(message);
    ask(area.value.trim(), parent);
  };
  form.addEventListener("submit", (/** @type {Event} */ event) => {
    event.preventDefault();
    submit();
  });
  area.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    if (sends(event)) {
      event.preventDefault();
      submit();
    }
  });
  form.querySelector("[data-action='cancel-edit']").addEventListener("click", () => {
    form.remove();
    show(true);
  });
}

function submit() {
  const content = text.value.trim();
  if (!content || running) return;
  text.value = "";
  grow(text);
  const last = [...thread.querySelectorAll("[data-message]")].at(-1);
  ask(content, last?.dataset.message ?? null);
}

async function stop() {
  if (running?.id) await attempt(() => call("POST", `/api/answers/${running?.id}/stop`));
}

/** @param {Element} target @returns {any} */
const messageOf = (target) => target.closest(".message");

text.addEventListener("input", () => {
  grow(text);
  update();
});
text.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
  if (!sends(event)) return;
  event.preventDefault();
  submit();
});
byId("composer").addEventListener("submit", (/** @type {Event} */ event) => {
  event.preventDefault();
  submit();
});
byId("stop").addEventListener("click", stop);

onActions({
  example: (button) => {
    text.value = button.textContent;
    update();
    text.focus();
  },
  copy: (button) => copy(messageOf(button).querySelector("template.source").content.textContent, button),
  "copy-code": (button) => copy(button.closest(".code").querySelector("code").textContent, button),
  regenerate: (button) => regenerate(messageOf(button)),
  edit: (button) => edit(messageOf(button)),
  rate: (button) => rate(messageOf(button), button.dataset.verdict),
  report: (button) => report(messageOf(button), button.dataset.kind),
});

dressCode(thread);
if (thread.firstElementChild) toEnd();
update();
if (matchMedia("(hover: hover)").matches) text.focus();
const open = thread.querySelector(".message[data-status='running']");
if (open) guarded(() => finish(open, open.dataset.message), () => location.reload());
