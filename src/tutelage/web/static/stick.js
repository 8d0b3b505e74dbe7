// @ts-check
/** Keeps a scroller at its end while the reader is at its end. */

const NEAR = 48;

/**
 * The reader leaves the end by scrolling upwards, which is not the same as a position that has changed: that also
 * happens when the text under it grows or shrinks.
 * @param {HTMLElement} scroller @param {HTMLElement} content @param {HTMLElement} button shown while away from the end
 * @returns {{toEnd: () => void, leave: () => void}} goes to the end; stays where it is from now on
 */
export function stick(scroller, content, button) {
  let stuck = true;
  let last = { top: 0, height: 0 };
  const toEnd = () => {
    stuck = true;
    scroller.scrollTop = scroller.scrollHeight;
    button.hidden = true;
  };
  const leave = () => {
    stuck = false;
  };
  const scrolled = () => scroller.scrollHeight > scroller.clientHeight && leave();
  scroller.addEventListener("wheel", (event) => event.deltaY < 0 && scrolled(), { passive: true });
  scroller.addEventListener("touchmove", scrolled, { passive: true });
  scroller.addEventListener("touchend", () => {
    if (scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 2) stuck = true;
  });
  scroller.addEventListener("scroll", () => {
    const now = { top: scroller.scrollTop, height: scroller.scrollHeight };
    const left = now.height - now.top - scroller.clientHeight;
    if (now.top < last.top && now.height === last.height) scrolled();
    if (left < 2 || (left < NEAR && now.top > last.top)) stuck = true;
    last = now;
    button.hidden = stuck || left < NEAR;
  }, { passive: true });
  new ResizeObserver(() => stuck && content.firstElementChild && toEnd()).observe(content);
  button.addEventListener("click", toEnd);
  return { toEnd, leave };
}
