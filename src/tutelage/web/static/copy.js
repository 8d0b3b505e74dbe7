// @ts-check
/** Copy buttons: a message's own Markdown, one block of code, a link, a secret. */

import { t } from "./catalogue.js";
import { announce, toast } from "./dialogs.js";

/** @param {string} text @param {HTMLElement} button */
export async function copy(text, button) {
  const written = navigator.clipboard?.writeText(text).then(() => true, () => false);
  if (!(await (written ?? selected(text, button)))) {
    toast(t("The browser did not allow copying."));
    return;
  }
  announce(t("Copied"));
  if (button.classList.contains("copied")) return;
  const words = button.querySelector("svg") ? null : button.textContent;
  button.classList.add("copied");
  if (words) button.textContent = t("Copied");
  setTimeout(() => {
    button.classList.remove("copied");
    if (words) button.textContent = words;
  }, 1500);
}

/** Without HTTPS, there is no clipboard, but what is selected can be copied. @param {string} text @param {HTMLElement} button */
function selected(text, button) {
  const area = document.createElement("textarea");
  area.className = "visually-hidden";
  area.value = text;
  button.after(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  button.focus();
  return done;
}

/** Give each block of code a head with its language and a copy button. @param {ParentNode} root */
export function dressCode(root) {
  for (const block of root.querySelectorAll(".code:not(:has(.code-head))")) {
    const head = document.createElement("div");
    head.className = "code-head";
    const language = document.createElement("span");
    language.textContent = /** @type {HTMLElement} */ (block).dataset.language || t("text");
    const button = document.createElement("button");
    button.className = "icon-button code-copy";
    button.type = "button";
    button.dataset.action = "copy-code";
    button.textContent = t("Copy code");
    head.append(language, button);
    block.prepend(head);
  }
}
