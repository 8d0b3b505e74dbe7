// @ts-check
/** Follows one answer while it comes, and survives a lost network: the browser re-attaches by Last-Event-ID. */

import { t } from "./catalogue.js";
import { dressCode } from "./copy.js";
import { Problem, fragment } from "./http.js";

/** Seconds until the answer is asked for again, each time that the server, or what stands before it, refuses it. */
const PAUSES = [1, 2, 4, 8, 15, 30];

/**
 * Stream an answer's text into its element.
 * @param {HTMLElement} element a running message
 * @param {string} id
 * @param {StreamedText} [text] where it has begun
 * @returns {Promise<void>} when the answer has ended, however it ended; rejects with a Problem when it failed
 */
export function follow(element, id, text = new StreamedText(element)) {
  return new Promise((resolve, reject) => {
    let seen = "0";
    let refused = 0;
    const attach = () => {
      // The browser comes back by itself where it finds nobody, but for good gives up on a 502 or 503.
      const source = new EventSource(`/api/answers/${id}/events?after=${seen}`);
      const end = (/** @type {() => void} */ settle) => {
        source.close();
        text.close();
        settle();
      };
      source.addEventListener("waiting", (event) => text.wait(JSON.parse(event.data).place));
      source.addEventListener("delta", (event) => {
        seen = event.lastEventId;
        refused = 0;
        text.push(JSON.parse(event.data).text);
      });
      source.addEventListener("verdict", (event) => {
        if (JSON.parse(event.data).state === "blocked") text.hide();
      });
      source.addEventListener("done", () => end(resolve));
      source.addEventListener("error", (event) => {
        if (event instanceof MessageEvent) {
          const { message, hint } = JSON.parse(event.data);
          end(() => reject(new Problem(message, hint)));
        } else if (source.readyState === EventSource.CLOSED) {
          if (refused < PAUSES.length) setTimeout(attach, 1000 * PAUSES[refused++]);
          else end(() => reject(new Problem(t("The connection was lost."), t("The answer goes on without it: load the page again to see it."))));
        }
      });
    };
    attach();
  });
}

/** The server lets go of whole sentences; they are shown within about so many frames, as somebody would write them. */
const FRAMES = 24;
/** More characters than this are shown at once: somebody has come back to an answer. */
const AT_ONCE = 400;
const still = matchMedia("(prefers-reduced-motion: reduce)");
/** Code, or strong words, on one line; the final rendering is the server's. */
const MARKED = /(?<!`)`([^`\n]+)`(?!`)|\*\*(?=\S)([^*`\n]+)\*\*(?!\*)/;

/** Text as it comes: plain while its block is open, rendered by the server once the block is closed. */
export class StreamedText {
  /** @param {HTMLElement} element a running message */
  constructor(element) {
    this.waiting = /** @type {HTMLElement} */ (element.querySelector(".waiting"));
    this.blocks = /** @type {HTMLElement} */ (element.querySelector(".blocks"));
    this.streaming = /** @type {HTMLElement} */ (element.querySelector(".streaming"));
    this.raw = "";
    this.coming = "";
    this.skip = 0;
    this.frame = 0;
    this.open = document.createTextNode("");
    this.streaming.append(this.open);
    this.rendering = false;
    this.closed = false;
  }

  /** The answer stands in the line. @param {number} place */
  wait(place) {
    const words = place === 1 ? t("You are next in the line…") : t("Place {place} in the line…", { place });
    /** @type {HTMLElement} */ (this.waiting.querySelector("[data-waiting]")).textContent = words;
  }

  /** Begin with what an answer that goes on has said already; it comes again, and is passed over. @param {string} text */
  async goOn(text) {
    const length = closedLength(text);
    if (length) {
      const html = await fragment("/fragments/markdown", { text: text.slice(0, length) });
      dressCode(html);
      this.blocks.append(html);
    }
    this.skip = text.length;
    this.raw = text.slice(length);
    this.open.data = this.raw;
    this.streaming.hidden = false;
    this.streaming.after(this.waiting);
    this.waiting.hidden = this.raw !== "";
    this.dress();
  }

  /** @param {string} text */
  push(text) {
    const known = Math.min(this.skip, text.length);
    this.skip -= known;
    text = text.slice(known);
    if (!text) return;
    this.waiting.hidden = true;
    this.streaming.hidden = false;
    this.coming += text;
    if (still.matches || this.coming.length > AT_ONCE) this.show(this.coming.length);
    else this.frame ||= requestAnimationFrame(() => this.write());
  }

  /** A little of what has come, and the rest in the next frames. */
  write() {
    this.frame = 0;
    if (this.closed || !this.coming) return;
    const length = Math.ceil(this.coming.length / FRAMES);
    const halved = (this.coming.codePointAt(length - 1) ?? 0) > 0xffff;
    this.show(halved ? length + 1 : length);
    if (this.coming) this.frame = requestAnimationFrame(() => this.write());
  }

  /** @param {number} length how much of what has come */
  show(length) {
    const text = this.coming.slice(0, length);
    this.coming = this.coming.slice(length);
    this.raw += text;
    this.open.appendData(text);
    this.dress();
    this.render();
  }

  /** Code looks like code from its first line on, words between marks like what they mark. */
  dress() {
    this.streaming.classList.toggle("code", /^ {0,3}(`{3,}|~{3,})[^\n]*\n/.test(this.raw));
    if (/^ {0,3}(`{3}|~{3})/.test(this.raw)) return;
    for (let found; (found = MARKED.exec(this.open.data)); ) {
      const marked = document.createElement(found[1] ? "code" : "strong");
      marked.textContent = found[1] ?? found[2];
      const rest = this.open.splitText(found.index);
      rest.deleteData(0, found[0].length);
      rest.before(marked);
      this.open = rest;
    }
  }

  /** The filter has blocked the answer: take away what was shown. */
  hide() {
    this.close();
    this.blocks.replaceChildren();
    this.streaming.hidden = true;
  }

  close() {
    this.closed = true;
  }

  /** Have the closed blocks rendered, one request at a time; what fails stays plain until the end. */
  async render() {
    const length = closedLength(this.raw);
    if (!length || this.rendering || this.closed) return;
    this.rendering = true;
    const html = await fragment("/fragments/markdown", { text: this.raw.slice(0, length) }).catch(() => null);
    if (!html || this.closed) return;
    dressCode(html);
    this.blocks.append(html);
    this.raw = this.raw.slice(length);
    this.open = document.createTextNode(this.raw);
    this.streaming.replaceChildren(this.open);
    this.dress();
    this.rendering = false;
    this.render();
  }
}

/** How much of a Markdown text is closed: up to its last blank line or heading that is not inside a block of code. @param {string} text */
export function closedLength(text) {
  let closed = 0;
  let place = 0;
  let fence = "";
  for (const line of text.split("\n").slice(0, -1)) {
    place += line.length + 1;
    const mark = /^ {0,3}(`{3,}|~{3,})/.exec(line)?.[1] ?? "";
    if (!fence) fence = mark;
    else if (mark[0] === fence[0] && mark.length >= fence.length && line.trim() === mark) fence = "";
    if (!fence && (line.trim() === "" || mark || /^ {0,3}#{1,6}\s/.test(line))) closed = place;
  }
  return closed;
}
