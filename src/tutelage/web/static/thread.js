// @ts-check
/** The messages of a dialogue on the page: fetching them, putting them in place, moving between branches. */

import { dressCode } from "./copy.js";
import { attempt, byId } from "./dialogs.js";
import { fragment } from "./http.js";

export const thread = byId("thread");
const main = byId("main");

/** @param {string} template @returns {any} */
export const make = (template) => byId(template).content.firstElementChild.cloneNode(true);

/** @param {Element} target @returns {any} the message that something stands in */
export const messageOf = (target) => target.closest(".message");

/** @returns {any} the last message that the server knows; of two side by side the one that goes on */
export function lastMessage() {
  const last = /** @type {HTMLElement | undefined} */ ([...thread.querySelectorAll(":scope > :is([data-message], .pair)")].at(-1));
  return last?.matches(".pair") ? last.querySelector(`[data-message="${last.dataset.goesOn}"]`) : last;
}

/** Fetch a message as the server renders it, in place of what stands there. @param {Element} element @param {string} id */
export async function settle(element, id) {
  const fresh = (await fragment(`/fragments/messages/${id}`)).firstElementChild;
  if (!fresh) return element;
  dressCode(fresh);
  element.replaceWith(fresh);
  return fresh;
}

/** Take a message (with the one beside it) away, and all that follow it. @param {Element} message */
export function removeFrom(message) {
  const row = message.closest(".pair") ?? message;
  while (row.nextElementSibling) row.nextElementSibling.remove();
  row.remove();
}

/** Show what follows a question as it stands now. @param {Element} element what stands there @param {string} question */
export async function settleAfter(element, question) {
  const html = await part({ message: question, after: question });
  removeFrom(element);
  thread.append(html);
}

/** Show the branch through a message in place of what stands there. @param {Element} element @param {string} id */
export async function showBranch(element, id) {
  const html = await part({ message: id, since: id });
  removeFrom(element);
  thread.append(html);
  history.replaceState(null, "", `/c/${main.dataset.dialogue}?message=${id}`);
  return byId(`m-${id}`);
}

/** @param {Record<string, string>} query which part of which branch */
async function part(query) {
  const html = await fragment(`/fragments/threads/${main.dataset.dialogue}?${new URLSearchParams(query)}`);
  dressCode(html);
  return html;
}

/** Show another branch from here on, and keep the focus on its arrows. @param {HTMLElement} link */
export function switchBranch(link) {
  const { branch = "", direction = "" } = link.dataset;
  return attempt(async () => {
    const arrows = (await showBranch(messageOf(link), branch)).querySelectorAll("[data-direction]");
    const same = [...arrows].find((arrow) => arrow.dataset.direction === direction);
    (same ?? arrows[0])?.focus({ preventScroll: true });
  });
}

/** Show the messages before those on the page; what is being read stays in its place. @param {HTMLElement} button @param {HTMLElement} scroller */
export function showEarlier(button, scroller) {
  if (button.ariaBusy) return;
  button.ariaBusy = "true";
  return attempt(async () => {
    const html = await part({ message: lastMessage().dataset.message, before: button.dataset.before ?? "" });
    const below = scroller.scrollHeight - scroller.scrollTop;
    button.closest(".earlier")?.replaceWith(html);
    scroller.scrollTop = scroller.scrollHeight - below;
    watchEarlier(scroller);
  });
}

/** Fetch earlier messages when somebody scrolls up to them. @param {HTMLElement} scroller */
export function watchEarlier(scroller) {
  const button = /** @type {HTMLElement | null} */ (thread.querySelector("[data-action='earlier']"));
  if (!button) return;
  const watcher = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    watcher.disconnect();
    showEarlier(button, scroller);
  }, { root: scroller, rootMargin: "300px" });
  watcher.observe(button);
}

/** Show what was said since in another tab. @returns {Promise<boolean>} whether there was anything */
export async function catchUp() {
  const last = lastMessage()?.dataset.message;
  if (!main.dataset.dialogue || !last) return false;
  const open = /** @type {HTMLElement | null} */ (thread.querySelector(":scope > .pair[data-undecided]:last-child"));
  const from = open?.dataset.question ?? last;
  const html = await part({ message: from, after: from }).catch(() => null);
  if (!html?.firstElementChild || lastMessage()?.dataset.message !== last) return false;
  if (open && html.firstElementChild.matches(".pair")) return false;
  open?.remove();
  thread.append(html);
  return true;
}
