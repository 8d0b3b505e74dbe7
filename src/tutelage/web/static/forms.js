// @ts-check
/**
 * Forms that are sent as JSON.
 *
 *   <form method="dialog" data-method="POST" data-path="/api/sign-in" data-then="/">
 *
 * `data-then` is where to go afterwards; empty means this page again; `show` puts the answer's `secret` into the
 * form's <output> (as a whole address with `data-link`); `say` says that it is saved. A checkbox is a boolean. Fields with `data-list` make a list.
 * `data-confirm` asks before sending. Outside of a <dialog>, that method does nothing: nothing is sent, and nothing
 * lost, before this module is there.
 */

import { t } from "./catalogue.js";
import { copy } from "./copy.js";
import { confirmed, onActions, toast } from "./dialogs.js";
import { Problem, call } from "./http.js";

/** @param {HTMLFormElement} form @returns {Record<string, unknown>} */
function values(form) {
  /** @type {Record<string, any>} */
  const body = {};
  for (const field of /** @type {Iterable<any>} */ (form.elements)) {
    if (!field.name || field.disabled || (field.type === "radio" && !field.checked)) continue;
    const box = field.type === "checkbox";
    if (!("list" in field.dataset)) body[field.name] = box ? field.checked : field.value;
    else body[field.name] = [...(body[field.name] ?? []), ...(box && !field.checked ? [] : [field.value])];
  }
  return body;
}

/** @param {HTMLFormElement} form */
async function submit(form) {
  const { method = "POST", path = "", then, confirm } = form.dataset;
  const danger = form.querySelector("button.danger") !== null;
  if (confirm && !(await confirmed({ title: confirm, text: form.dataset.confirmText ?? "", ok: form.dataset.confirmOk ?? t("Yes"), danger }))) return;
  const buttons = form.querySelectorAll("button");
  const problem = form.querySelector("[data-error]");
  buttons.forEach((button) => (button.disabled = true));
  if (problem) problem.textContent = "";
  try {
    const answer = await call(method, path, values(form));
    if (then === "show") show(form, answer.secret);
    else if (then === "say") toast(t("Saved."));
    else if (then) location.assign(then);
    else location.reload();
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    if (problem) problem.textContent = error.message;
    else toast(error.message);
  } finally {
    buttons.forEach((button) => (button.disabled = false));
  }
}

/** @param {HTMLFormElement} form @param {string} secret */
function show(form, secret) {
  const place = /** @type {HTMLElement} */ (form.querySelector("[data-secret]"));
  const output = /** @type {HTMLOutputElement} */ (place.querySelector("output"));
  output.value = "link" in form.dataset ? new URL(secret, location.href).href : secret;
  place.hidden = false;
  output.focus();
}

onActions({ "copy-secret": (button) => copy(button.closest("[data-secret]").querySelector("output").value, button) });

document.addEventListener("submit", (event) => {
  const form = /** @type {HTMLFormElement} */ (event.target);
  if (!form.dataset.path) return;
  event.preventDefault();
  submit(form);
});

document.addEventListener("change", (event) => {
  const form = /** @type {any} */ (event.target).form;
  if (form && "sendOnChange" in form.dataset) form.requestSubmit();
});
