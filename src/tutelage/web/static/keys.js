// @ts-check
/** The chat by keyboard. */

import { sends } from "./composer.js";

/**
 * @param {any} text the words to send @param {HTMLElement} scroller around the thread
 * @param {{send: () => void, stop: () => void, editLast: () => boolean}} acts `editLast` says whether there is a question to edit
 */
export function listen(text, scroller, { send, stop, editLast }) {
  text.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    const turned = { PageUp: -0.9, PageDown: 0.9 }[event.key];
    if (turned && text.scrollHeight <= text.clientHeight) {
      event.preventDefault();
      scroller.scrollBy({ top: turned * scroller.clientHeight });
    }
    if (event.key === "ArrowUp" && !text.value && !event.isComposing && editLast()) event.preventDefault();
    if (!sends(event)) return;
    event.preventDefault();
    send();
  });
  document.addEventListener("keydown", (event) => {
    const held = event.ctrlKey || event.metaKey;
    if (event.key === "/" && held) {
      event.preventDefault();
      text.focus();
    }
    const letter = event.key.length === 1 && event.key !== " " && !held && !event.altKey;
    const other = /** @type {Element} */ (event.target).closest("input, textarea, select, dialog, [popover]");
    if (letter && !other && !event.defaultPrevented) text.focus();
    const elsewhere = event.defaultPrevented || event.isComposing || document.querySelector("dialog[open], :popover-open, body.drawer");
    if (event.key === "Escape" && !elsewhere) stop();
  });
}
