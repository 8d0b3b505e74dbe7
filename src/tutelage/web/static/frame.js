// @ts-check
/** The frame around every page: side bar and drawer. */

import { byId, onActions } from "./dialogs.js";
import "./library.js";

const YEAR = 31536000;
const narrow = matchMedia("(max-width: 48rem)");
const sidebar = byId("sidebar");

document.cookie = `timezone=${Intl.DateTimeFormat().resolvedOptions().timeZone}; path=/; max-age=${YEAR}; samesite=lax`;

/** @param {boolean} open */
function showSidebar(open) {
  if (narrow.matches) {
    document.body.classList.toggle("drawer", open);
  } else {
    document.body.toggleAttribute("data-sidebar", !open);
    if (!open) document.body.dataset.sidebar = "closed";
    document.cookie = `sidebar=${open ? "open" : "closed"}; path=/; max-age=${YEAR}; samesite=lax`;
  }
  const next = open ? sidebar.querySelector("[data-action='close-sidebar']") : document.querySelector(".open-sidebar");
  next?.focus();
}

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && document.body.classList.contains("drawer")) showSidebar(false);
  if (event.isComposing || !(event.ctrlKey || event.metaKey)) return;
  if (event.code === "KeyK" && !event.shiftKey) {
    event.preventDefault();
    if (!sidebar.checkVisibility({ visibilityProperty: true })) showSidebar(true);
    byId("search").focus();
  }
  if (event.code === "KeyO" && event.shiftKey) {
    event.preventDefault();
    location.assign("/");
  }
});
narrow.addEventListener("change", () => document.body.classList.remove("drawer"));

onActions({
  "open-sidebar": () => showSidebar(true),
  "close-sidebar": () => showSidebar(false),
});

document.querySelector(".tabs [aria-current]")?.scrollIntoView({ inline: "center", block: "nearest" });
