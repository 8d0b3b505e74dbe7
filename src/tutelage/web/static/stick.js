// @ts-check
/** Keeps a scroller at its end while the reader is at its end. */

const NEAR = 48;

/**
 * @param {HTMLElement} scroller @param {HTMLElement} content @param {HTMLElement} button shown while away from the end
 * @returns {() => void} goes to the end
 */
export function stick(scroller, content, button) {
  let stuck = true;
  let last = 0;
  const toEnd = () => {
    stuck = true;
    scroller.scrollTop = scroller.scrollHeight;
    button.hidden = true;
  };
  scroller.addEventListener("scroll", () => {
    const left = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight;
    const upwards = scroller.scrollTop < last;
    last = scroller.scrollTop;
    // The first pixels upwards count: a wheel begins slowly, and the growing text would pull the reader back.
    stuck = left < 2 || (left < NEAR && !upwards);
    button.hidden = left < NEAR;
  }, { passive: true });
  new ResizeObserver(() => stuck && content.firstElementChild && toEnd()).observe(content);
  button.addEventListener("click", toEnd);
  return toEnd;
}
