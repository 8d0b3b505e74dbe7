// @ts-check
/** Uses up an operator's link, then gives the new operator a name and a password. */

import { byId } from "./dialogs.js";
import { Problem, call } from "./http.js";

const form = byId("claim");
let claimed = false;

form.addEventListener("submit", async (/** @type {Event} */ event) => {
  event.preventDefault();
  const problem = form.querySelector("[data-error]");
  try {
    if (!claimed) await call("POST", "/api/operator-link", { token: form.dataset.token });
    claimed = true;
    if (byId("name")) await call("PUT", "/api/account", { name: byId("name").value, password: byId("password").value });
    location.assign("/");
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    problem.textContent = error.message;
  }
});
