// @ts-check
/** What people say about a message: a rating with reasons and an ideal answer, or a report about the filter. */

import { t } from "./catalogue.js";
import { ask, attempt, byId, toast } from "./dialogs.js";
import { call } from "./http.js";

/** @typedef {{verdict: string, reasons: string[], note: string, ideal: string}} Judgement */
/** @typedef {Judgement & {entered?: string[]}} Rating `entered` are the campaigns that it was entered into */

/** @param {HTMLElement} message @param {Rating | null} rating */
function show(message, rating) {
  if (rating) message.dataset.rating = JSON.stringify(rating);
  else delete message.dataset.rating;
  for (const button of message.querySelectorAll("[data-action='rate']")) {
    button.setAttribute("aria-pressed", String(/** @type {HTMLElement} */ (button).dataset.verdict === rating?.verdict));
  }
}

/**
 * A thumb counts at once; the dialog adds the reasons.
 * @param {HTMLElement} message @param {string} verdict
 */
export async function rate(message, verdict) {
  const path = `/api/messages/${message.dataset.message}/rating`;
  /** @type {Rating | null} */
  const before = message.dataset.rating ? JSON.parse(message.dataset.rating) : null;
  const source = message.querySelector("template")?.content.textContent ?? "";
  const judgement = { verdict, reasons: before?.reasons ?? [], note: before?.note ?? "", ideal: before?.ideal ?? "" };
  const rating = { ...judgement, entered: before?.entered ?? [] };
  if (before?.verdict !== verdict) {
    const saved = await attempt(() => call("PUT", path, judgement));
    if (saved === undefined) return;
    show(message, rating);
  }
  const { choice, data } = await ask(fill(rating, source));
  if (choice === "withdraw") {
    if ((await attempt(() => call("DELETE", path))) !== undefined) show(message, null);
  } else if (choice === "save") {
    const ideal = String(data.get("ideal") ?? "").trim();
    const changed = {
      verdict,
      reasons: data.getAll("reasons").map(String),
      note: String(data.get("note") ?? "").trim(),
      ideal: ideal === source.trim() ? "" : ideal,
    };
    if ((await attempt(() => call("PUT", path, changed))) === undefined) return;
    show(message, { ...changed, entered: rating.entered });
    const entered = await enter(message, rating.entered, data.get("enter") !== null);
    if (entered === undefined) return;
    show(message, { ...changed, entered });
    toast(t("Thank you. Your feedback is saved."));
  }
}

/**
 * Put the feedback into the open campaign, or take it back.
 * @param {HTMLElement} message @param {string[]} entered @param {boolean} wanted
 * @returns {Promise<string[] | undefined>} the campaigns that it is in; undefined when that failed
 */
async function enter(message, entered, wanted) {
  const campaign = byId("feedback-enter")?.value;
  if (!campaign || entered.includes(campaign) === wanted) return entered;
  const path = `/api/messages/${message.dataset.message}/entries/${campaign}`;
  if ((await attempt(() => call(wanted ? "PUT" : "DELETE", path))) === undefined) return undefined;
  return wanted ? [...entered, campaign] : entered.filter((each) => each !== campaign);
}

/** @param {Rating} rating @param {string} source @returns {HTMLDialogElement} */
function fill(rating, source) {
  const title = byId("feedback-title");
  title.textContent = rating.verdict === "up" ? title.dataset.up : title.dataset.down;
  for (const box of byId("feedback").querySelectorAll("[name='reasons']")) box.checked = rating.reasons.includes(box.value);
  byId("feedback").querySelector(".choices").hidden = rating.verdict === "up";
  byId("feedback-note").value = rating.note;
  byId("feedback-ideal").value = rating.ideal || source;
  const box = byId("feedback-enter");
  if (box) box.checked = Boolean(rating.entered?.includes(box.value));
  byId("feedback-withdraw").hidden = false;
  return byId("feedback");
}

/** @param {HTMLElement} message @param {string} kind "mistake" or "missed" */
export async function report(message, kind) {
  const title = byId("report-title");
  title.textContent = title.dataset[kind];
  byId("report-category-field").hidden = kind === "mistake";
  byId("report-note").value = "";
  const { choice, data } = await ask(byId("report"));
  if (choice !== "send") return;
  const body = { kind, category: kind === "missed" ? data.get("category") : null, note: data.get("note") };
  const sent = await attempt(() => call("POST", `/api/messages/${message.dataset.message}/report`, body));
  if (sent !== undefined) toast(t("Thank you. A reviewer will look at it."));
}
