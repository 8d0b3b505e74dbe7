// @ts-check
/** Better, worse or as good: what a reader thinks of a new answer beside the one before. */

import { t } from "./catalogue.js";
import { announce, attempt } from "./dialogs.js";
import { call } from "./http.js";

/** After another answer to the same question, ask which is better. @param {HTMLElement | null} message */
export function offerPick(message) {
  const bar = /** @type {HTMLElement | null} */ (message?.querySelector(".pick"));
  if (bar && message?.dataset.status === "complete") bar.hidden = false;
}

/** Choose; the same choice again takes it back. @param {HTMLElement} button */
export async function pick(button) {
  const bar = /** @type {HTMLElement} */ (button.closest(".pick"));
  const message = /** @type {HTMLElement} */ (button.closest(".message"));
  const path = `/api/picks/${bar.dataset.first}/${message.dataset.message}`;
  const again = button.ariaPressed === "true";
  const done = await attempt(() => (again ? call("DELETE", path) : call("PUT", path, { verdict: button.dataset.verdict })));
  if (done === undefined) return;
  for (const each of bar.querySelectorAll("button")) each.ariaPressed = String(each === button && !again);
  announce(again ? t("Taken back.") : t("Thank you. Your feedback is saved."));
}
