// @ts-check
/** The training page: while something is under way, its figures are fetched again every few seconds. */

import { byId } from "./dialogs.js";
import { Problem, fragment } from "./http.js";

const EVERY = 4000;
const place = byId("live");

async function refresh() {
  if (document.hidden) return;
  try {
    const fresh = await fragment("/operate/training/live");
    const ended = place.children.length > 0 && fresh.children.length === 0;
    place.replaceChildren(fresh);
    if (ended) location.reload();
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
  }
}

if (place.dataset.live === "true") setInterval(refresh, EVERY);
