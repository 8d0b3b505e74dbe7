// @ts-check
/** Reading what a rating judges: fetched only when an operator asks, because each reading is written down. */

import { attempt, onActions } from "./dialogs.js";
import { fragment } from "./http.js";

onActions({
  "read-words": (button) => attempt(async () => {
    const card = button.closest("[data-rating]");
    const words = await fragment(`/operate/feedback/${card.dataset.rating}/words`, {});
    const shown = /** @type {HTMLElement | null} */ (words.firstElementChild);
    button.remove();
    card.append(words);
    shown?.focus();
  }),
});
