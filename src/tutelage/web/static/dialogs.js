// @ts-check
/** Dialogs, toasts and the quiet voice for screen readers. */

import { Problem } from "./http.js";

/** @param {string} id @returns {any} the element; it must be there */
export const byId = (id) => document.getElementById(id);

/**
 * Open a <dialog> and wait for its end.
 * @param {HTMLDialogElement} dialog
 * @returns {Promise<{choice: string, data: FormData}>} the button's value (empty after Escape) and the form
 */
export function ask(dialog) {
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener(
      "close",
      () => resolve({ choice: dialog.returnValue, data: new FormData(/** @type {any} */ (dialog.querySelector("form"))) }),
      { once: true },
    );
  });
}

/** @param {{title: string, text: string, ok: string, danger?: boolean}} texts `danger` where something is lost for good @returns {Promise<boolean>} */
export async function confirmed({ title, text, ok, danger = false }) {
  byId("confirm-title").textContent = title;
  byId("confirm-text").textContent = text;
  byId("confirm-ok").textContent = ok;
  byId("confirm-ok").classList.toggle("danger", danger);
  return (await ask(byId("confirm"))).choice === "ok";
}

/** Say something to screen readers without showing it. @param {string} text */
export function announce(text) {
  byId("announcer").textContent = text;
}

/** Show a short line for a few seconds; longer when something can be done about it, and while somebody is at it. @param {string} text @param {{label: string, act: () => void} | null} [action] */
export function toast(text, action = null) {
  document.querySelector(".toast")?.remove();
  const element = document.createElement("div");
  element.className = "toast";
  element.setAttribute("role", "status");
  element.append(text);
  if (action) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "link";
    button.textContent = action.label;
    button.addEventListener("click", () => {
      element.remove();
      action.act();
    });
    element.append(button);
  }
  (document.querySelector("dialog[open]") ?? document.body).append(element);
  if (document.activeElement === document.body && matchMedia("(hover: hover)").matches) element.querySelector("button")?.focus();
  const leave = () => (element.matches(":hover, :has(:focus-visible)") ? setTimeout(leave, 1000) : element.remove());
  setTimeout(leave, action ? 12000 : 4000);
}

/** Run an action; a problem becomes a toast. @template T @param {() => Promise<T>} action @returns {Promise<T | undefined>} */
export async function attempt(action) {
  try {
    return await action();
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    toast([error.message, error.hint].filter(Boolean).join(" "));
    return undefined;
  }
}

document.addEventListener("click", (event) => {
  const button = /** @type {Element} */ (event.target).closest("[data-action='close-dialog']");
  button?.closest("dialog")?.close("");
});

/** One listener for all [data-action] buttons of a page. @param {Record<string, (target: any, event: MouseEvent) => void>} actions */
export function onActions(actions) {
  document.addEventListener("click", (event) => {
    const target = /** @type {Element} */ (event.target).closest("[data-action]");
    const action = target instanceof HTMLElement && actions[target.dataset.action ?? ""];
    if (action) action(target, event);
  });
}
