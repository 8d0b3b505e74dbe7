// @ts-check
/** The training page: what is under way, and whether there is a worker, is fetched again every few seconds. */

import { byId } from "./dialogs.js";
import { Problem, fragment } from "./http.js";

const EVERY = 4000;
const place = byId("live");

/** Which runs are under way. */
const names = () => [...place.querySelectorAll("[data-run]")].map((each) => /** @type {HTMLElement} */ (each).dataset.run).join();

async function refresh() {
  if (document.hidden) return;
  try {
    const fresh = await fragment("/operate/training/live");
    const before = names();
    place.replaceChildren(fresh);
    if (names() !== before) location.reload();
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
  }
}

setInterval(refresh, EVERY);
