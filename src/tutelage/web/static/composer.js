// @ts-check
/** Text areas in which Enter sends. */

/** The keyboard on a screen has no Shift+Enter. */
const touched = matchMedia("(any-hover: none)");

/**
 * Enter sends, Shift+Enter (and where nothing but fingers is known, Enter) breaks the line, and an Enter that confirms
 * an input method does neither: `isComposing` says so, except in Safari, where the confirming key comes after the
 * composition as 229.
 * @param {KeyboardEvent} event
 */
export function sends(event) {
  const meant = event.ctrlKey || event.metaKey || !(event.shiftKey || touched.matches);
  return event.key === "Enter" && meant && !event.isComposing && event.keyCode !== 229;
}

/** Let a text area grow with its text where the style sheet's field-sizing is not known. @param {HTMLTextAreaElement} area */
export function grow(area) {
  if (CSS.supports("field-sizing", "content")) return;
  area.style.height = "auto";
  area.style.height = `${area.scrollHeight}px`;
}

/**
 * Keep what is not sent yet through a reload of this tab.
 * @param {HTMLTextAreaElement} area @param {() => string} place names the chat @param {() => string} unsent what the server has not taken
 */
export function draft(area, place, unsent) {
  const key = () => `draft:${place()}`;
  const keep = () => {
    const words = area.value || unsent();
    if (words) sessionStorage.setItem(key(), words);
    else sessionStorage.removeItem(key());
  };
  if (!area.value) area.value = sessionStorage.getItem(key()) ?? "";
  sessionStorage.removeItem(key());
  addEventListener("pagehide", keep);
}
