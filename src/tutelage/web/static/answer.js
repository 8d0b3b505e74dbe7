// @ts-check
/** Follows one answer while it comes, and survives a lost network: the browser re-attaches by Last-Event-ID. */

import { Problem } from "./http.js";
import { t } from "./catalogue.js";

/**
 * Stream an answer's text into its element. Text only ever becomes textContent.
 * @param {HTMLElement} element a running message
 * @param {string} id
 * @returns {Promise<void>} when the answer has ended, however it ended; rejects with a Problem when it failed
 */
export function follow(element, id) {
  const waiting = /** @type {HTMLElement} */ (element.querySelector(".waiting"));
  const streaming = /** @type {HTMLElement} */ (element.querySelector(".streaming"));
  const text = document.createTextNode("");
  streaming.append(text);
  return new Promise((resolve, reject) => {
    const source = new EventSource(`/api/answers/${id}/events`);
    const end = (/** @type {() => void} */ settle) => {
      source.close();
      settle();
    };
    source.addEventListener("delta", (event) => {
      waiting.hidden = true;
      streaming.hidden = false;
      text.appendData(JSON.parse(event.data).text);
    });
    source.addEventListener("verdict", (event) => {
      if (JSON.parse(event.data).state === "blocked") text.data = "";
    });
    source.addEventListener("done", () => end(resolve));
    source.addEventListener("error", (event) => {
      if (event instanceof MessageEvent) {
        const { message } = JSON.parse(event.data);
        end(() => reject(new Problem(message)));
      } else if (source.readyState === EventSource.CLOSED) {
        end(() => reject(new Problem(t("The connection was lost."), t("The answer goes on without it: load the page again to see it."))));
      }
    });
  });
}
