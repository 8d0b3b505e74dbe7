// @ts-check
/** Copy buttons: a message's own Markdown, or one block of code. */

import { t } from "./catalogue.js";
import { announce, toast } from "./dialogs.js";

/** @param {string} text @param {HTMLElement} button */
export async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
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
