// @ts-check
/** What went wrong, said in the thread, with a way out. */

import { t } from "./catalogue.js";
import { Problem } from "./http.js";
import { make, thread } from "./thread.js";

/** When the server is at capacity, it is asked again without a click. @param {Problem} problem @param {() => void} retry */
export function showProblem(problem, retry) {
  const element = make("problem");
  const { text, hint } = told(problem);
  element.querySelector("[data-text]").textContent = text;
  element.querySelector("[data-hint]").textContent = hint;
  element.querySelector("[data-sign-in]")?.toggleAttribute("hidden", !["daily_limit", "storage_full"].includes(problem.code));
  const again = () => {
    if (!element.isConnected) return;
    element.remove();
    retry();
  };
  element.querySelector("[data-action='retry']").addEventListener("click", again);
  if (problem.code === "at_capacity") setTimeout(again, problem.wait * 1000);
  thread.append(element);
}

/** In the reader's language where it is an everyday one. @param {Problem} problem */
function told({ code, message, hint, wait }) {
  if (code === "at_capacity") {
    return { text: t("This server is at capacity right now."), hint: t("Your question is kept, and sent again every {count} s.", { count: wait }) };
  }
  if (code === "daily_limit") {
    return { text: t("You have had all your answers of today."), hint: t("More come after midnight (UTC).") };
  }
  return { text: message, hint };
}
