// @ts-check
/** Which of two answers is better: one after the other, or side by side. */

import { t } from "./catalogue.js";
import { announce, attempt } from "./dialogs.js";
import { call, fragment } from "./http.js";
import { dressCode } from "./copy.js";
import { messageOf, showBranch } from "./thread.js";

/** After another answer to the same question, ask which is better. @param {HTMLElement | null} message */
export function offerPick(message) {
  const bar = /** @type {HTMLElement | null} */ (message?.querySelector(".pick"));
  if (bar && message?.dataset.status === "complete") bar.hidden = false;
}

/** Choose; the same choice again takes it back. @param {HTMLElement} button */
export async function pick(button) {
  const bar = /** @type {HTMLElement} */ (button.closest(".pick"));
  await send(button, bar, bar.dataset.first ?? "", messageOf(button).dataset.message);
}

/** Choose between two answers side by side: the better one goes on. @param {HTMLElement} button without a verdict, nothing is said */
export async function choose(button) {
  const pair = /** @type {HTMLElement} */ (button.closest(".pair"));
  const { first = "", second = "", goesOn = "" } = pair.dataset;
  const { verdict } = button.dataset;
  if (verdict && !(await send(button, pair, first, second))) return;
  await attempt(async () => {
    const message = await showBranch(pair, verdict === "first" ? first : verdict === "second" ? second : goesOn);
    message?.scrollIntoView({ block: "nearest" });
    message?.querySelector("[data-action='show-pair']")?.focus({ preventScroll: true });
  });
}

/** Show an answer with the one beside it, to choose again. @param {HTMLElement} button */
export function showPair(button) {
  const message = messageOf(button);
  return attempt(async () => {
    const html = await fragment(`/fragments/pairs/${message.dataset.message}`);
    dressCode(html);
    const heading = html.querySelector("h2");
    message.replaceWith(html);
    heading?.focus();
  });
}

/**
 * @param {HTMLElement} button @param {HTMLElement} group the buttons that exclude each other
 * @param {string} first @param {string} second
 * @returns {Promise<boolean>} whether there is a choice now
 */
async function send(button, group, first, second) {
  const path = `/api/picks/${first}/${second}`;
  const again = button.ariaPressed === "true";
  const done = await attempt(() => (again ? call("DELETE", path) : call("PUT", path, { verdict: button.dataset.verdict })));
  if (done === undefined) return false;
  for (const each of group.querySelectorAll("[aria-pressed]")) each.ariaPressed = String(each === button && !again);
  announce(again ? t("Taken back.") : t("Thank you. Your feedback is saved."));
  return !again;
}
