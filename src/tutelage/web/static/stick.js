// @ts-check
/** Keeps a scroller at its end while the reader is at its end. */

const NEAR = 48;

/** @param {HTMLElement} scroller @param {HTMLElement} content @param {HTMLElement} button shown while away from the end */
export function stick(scroller, content, button) {
  let stuck = true;
  const toEnd = () => {
    stuck = true;
    scroller.scrollTop = scroller.scrollHeight;
    button.hidden = true;
  };
  scroller.addEventListener("scroll", () => {
    stuck = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < NEAR;
    button.hidden = stuck;
  }, { passive: true });
  new ResizeObserver(() => stuck && content.firstElementChild && toEnd()).observe(content);
  button.addEventListener("click", toEnd);
  return toEnd;
}
