// @ts-check
/** The frame around every page: side bar, drawer, and the list of chats. */

import { t } from "./catalogue.js";
import { ask, attempt, byId, confirmed, onActions } from "./dialogs.js";
import { call, fragment } from "./http.js";

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
});
narrow.addEventListener("change", () => document.body.classList.remove("drawer"));

/** Fetch the list of chats again. */
export async function refreshDialogues() {
  const list = byId("dialogues");
  list.replaceChildren(await fragment(`/fragments/dialogues?current=${byId("main").dataset.dialogue ?? ""}`));
}

const menu = byId("dialogue-menu");
let opener = /** @type {HTMLElement | null} */ (null);

/** @param {HTMLElement} button */
function openMenu(button) {
  opener = button;
  menu.showPopover();
  const place = button.getBoundingClientRect();
  menu.style.left = `${Math.max(8, Math.min(place.left, innerWidth - menu.offsetWidth - 8))}px`;
  menu.style.top = `${Math.min(place.bottom + 4, innerHeight - menu.offsetHeight - 8)}px`;
  button.setAttribute("aria-expanded", "true");
  menu.querySelector("button")?.focus();
}

menu.addEventListener("toggle", (/** @type {any} */ event) => {
  if (event.newState === "open" || !opener) return;
  opener.setAttribute("aria-expanded", "false");
  if (!document.querySelector("dialog[open]")) opener.focus();
});

/** @returns {{id: string, title: string}} the dialogue whose menu is open */
function chosen() {
  const item = /** @type {HTMLElement} */ (opener?.closest("[data-dialogue]"));
  menu.hidePopover();
  return { id: item.dataset.dialogue ?? "", title: item.querySelector("a")?.textContent?.trim() ?? "" };
}

async function rename() {
  const { id, title } = chosen();
  byId("rename-text").value = title;
  const { choice, data } = await ask(byId("rename"));
  if (choice !== "ok") return;
  await attempt(async () => {
    await call("PATCH", `/api/dialogues/${id}`, { title: data.get("title") });
    await refreshDialogues();
    if (byId("main").dataset.dialogue === id) byId("title").textContent = String(data.get("title"));
  });
}

async function remove() {
  const { id, title } = chosen();
  const text = t("“{title}” will be deleted with all its messages. This cannot be undone.", { title });
  if (!(await confirmed({ title: t("Delete chat?"), text, ok: t("Delete") }))) return;
  await attempt(async () => {
    await call("DELETE", `/api/dialogues/${id}`);
    if (byId("main").dataset.dialogue === id) location.assign("/");
    else await refreshDialogues();
  });
}

onActions({
  "open-sidebar": () => showSidebar(true),
  "close-sidebar": () => showSidebar(false),
  "dialogue-menu": (button) => openMenu(button),
  "rename-dialogue": rename,
  "delete-dialogue": remove,
});
