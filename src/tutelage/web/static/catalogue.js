// @ts-check
/** Texts that only scripts show. The English text is the key; the page brings other languages along. */

const element = document.getElementById("catalogue");
/** @type {Record<string, string>} */
const texts = element ? JSON.parse(element.textContent ?? "{}") : {};

/** @param {string} text @param {Record<string, string | number>} [values] fill the {names} in the text */
export function t(text, values = {}) {
  return (texts[text] ?? text).replace(/\{(\w+)\}/g, (whole, name) => String(values[name] ?? whole));
}
