// @ts-check
/** Requests to this server: JSON in and out, fragments of pages, and errors that can be shown to people. */

import { t } from "./catalogue.js";

/** An error with a way out. */
export class Problem extends Error {
  /** @param {string} message @param {string} hint @param {string} code @param {number} wait seconds until another try has a chance */
  constructor(message, hint = "", code = "", wait = 0) {
    super(message);
    this.hint = hint;
    this.code = code;
    this.wait = wait;
  }
}

/** A key for a request that may be sent again. Browsers have randomUUID only over HTTPS and on the machine itself. */
export const newKey = () => Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(36)).join("-");

/** @type {{createHTML(text: string): any}} */
const policy = /** @type {any} */ (window).trustedTypes?.createPolicy("tutelage", {
  createHTML: (/** @type {string} */ text) => text,
}) ?? { createHTML: (text) => text };

/**
 * @param {string} method @param {string} path @param {unknown} [body]
 * @returns {Promise<any>} the answer's JSON, or null when it has none
 */
export async function call(method, path, body) {
  const response = await reach(path, {
    method,
    headers: { accept: "application/json", ...(body === undefined ? {} : { "content-type": "application/json" }) },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  return response.status === 204 ? null : response.json();
}

/**
 * A piece of a page rendered by the server. The only place where text becomes HTML.
 * @param {string} path @param {unknown} [body] what to render, sent as JSON
 * @returns {Promise<DocumentFragment>}
 */
export async function fragment(path, body) {
  const sent = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) };
  const headers = { accept: "text/html", "content-type": "application/json" };
  const response = await reach(path, { headers, ...sent });
  const template = document.createElement("template");
  template.innerHTML = policy.createHTML(await response.text());
  return template.content;
}

/** @param {string} path @param {RequestInit} options @returns {Promise<Response>} */
async function reach(path, options) {
  const response = await fetch(path, { credentials: "same-origin", ...options }).catch(() => {
    throw new Problem(t("The server cannot be reached."), t("Check the connection and try again."));
  });
  if (response.ok) return response;
  const error = (await response.json().catch(() => null))?.error ?? {};
  const wait = Number(response.headers.get("retry-after") ?? 0);
  throw new Problem(error.message ?? response.statusText, "", error.code ?? "", wait);
}

/** An answer's text as it comes, after its head. @param {string} method @param {string} path @param {unknown} [body] @param {AbortSignal} [signal] @param {(head: Headers) => void} [onHead] */
export async function* pieces(method, path, body, signal, onHead) {
  const headers = { "content-type": "application/json" };
  const response = await reach(path, { method, headers, body: JSON.stringify(body ?? {}), signal });
  onHead?.(response.headers);
  const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
  const decoder = new TextDecoder();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    yield decoder.decode(value, { stream: true });
  }
}

/** JSON values that come one a line. @param {string} method @param {string} path @param {unknown} [body] @returns {AsyncGenerator<any>} */
export async function* lines(method, path, body) {
  let rest = "";
  for await (const piece of pieces(method, path, body)) {
    const whole = (rest + piece).split("\n");
    rest = whole.pop() ?? "";
    for (const line of whole) yield JSON.parse(line);
  }
}
