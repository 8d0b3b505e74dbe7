// @ts-check
/** The list of chats: searching it, and what can be done with each. */

import { t } from "./catalogue.js";
import { copy } from "./copy.js";
import { announce, ask, attempt, byId, onActions, toast } from "./dialogs.js";
import { call, fragment } from "./http.js";

const list = byId("dialogues");
const search = byId("search");
const menu = byId("dialogue-menu");
const current = () => byId("main").dataset.dialogue ?? "";
let opener = /** @type {HTMLElement | null} */ (null);

/** Fetch the list of chats again, or what is found of it. */
export async function refreshDialogues() {
  const words = search.value.trim();
  const html = await fragment(`/fragments/dialogues?${new URLSearchParams({ current: current(), q: words })}`);
  if (words !== search.value.trim()) return;
  const held = /** @type {HTMLElement | null} */ (document.activeElement);
  const holds = list.contains(held);
  list.replaceChildren(html);
  watchEnd();
  if (holds && held) inList(held)?.focus();
  if (opener && !opener.isConnected) opener = inList(opener) ?? opener;
}

/** Name the chat on the page and in the tab. @param {string} title */
export function showTitle(title) {
  byId("title").textContent = title;
  byId("title").hidden = false;
  document.title = `${title} · tutelage`;
}

/** The link or button of the list as it stands now that does what one of the list before did. @param {HTMLElement} old */
function inList(old) {
  const id = /** @type {HTMLElement | null} */ (old.closest("[data-dialogue]"))?.dataset.dialogue;
  const item = list.querySelector(`[data-dialogue="${id}"]`);
  return /** @type {HTMLElement | null} */ (item?.querySelector(old.localName) ?? null);
}

/** @param {HTMLElement} button */
async function showMore(button) {
  const query = new URLSearchParams({ current: current(), before: button.dataset.before ?? "" });
  const html = await attempt(() => fragment(`/fragments/dialogues?${query}`));
  if (!html || !button.isConnected) return;
  const heading = html.querySelector("h2");
  if (heading?.textContent === [...list.querySelectorAll("h2")].at(-1)?.textContent) heading?.remove();
  button.replaceWith(html);
  watchEnd();
}

const end = new IntersectionObserver((entries) => {
  const reached = entries.find((entry) => entry.isIntersecting);
  if (!reached) return;
  end.disconnect();
  showMore(/** @type {HTMLElement} */ (reached.target));
}, { root: list, rootMargin: "300px" });

/** Older chats come when somebody scrolls down to them. */
function watchEnd() {
  end.disconnect();
  const button = list.querySelector("[data-action='more-dialogues']");
  if (button) end.observe(button);
}

let typing = 0;
search.addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(async () => {
    await attempt(refreshDialogues);
    if (search.value.trim()) announce(list.querySelector("h2")?.textContent ?? "");
  }, 150);
});

async function openFirst() {
  await attempt(refreshDialogues);
  const first = /** @type {HTMLElement | null} */ (list.querySelector(".found a"));
  first?.click();
}

/** From the words to what is found and back by arrows; Enter opens the first. */
byId("sidebar").addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
  const links = [search, ...list.querySelectorAll(".item > a")];
  const place = links.indexOf(document.activeElement);
  if (event.isComposing || place < 0) return;
  if (event.key === "Enter" && !place) openFirst();
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step) return;
  event.preventDefault();
  links[place + step]?.focus();
});

/** @param {HTMLElement} button */
function openMenu(button) {
  opener = button;
  menu.showPopover();
  const place = button.getBoundingClientRect();
  menu.style.left = `${Math.max(8, Math.min(place.left, innerWidth - menu.offsetWidth - 8))}px`;
  menu.style.top = `${Math.max(8, Math.min(place.bottom + 4, innerHeight - menu.offsetHeight - 8))}px`;
  button.setAttribute("aria-expanded", "true");
  menu.querySelector("button")?.focus();
}

menu.addEventListener("toggle", (/** @type {any} */ event) => {
  if (event.newState === "open" || !opener) return;
  opener.setAttribute("aria-expanded", "false");
  if (!document.querySelector("dialog[open]")) opener.focus();
});
menu.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step) return;
  event.preventDefault();
  const buttons = [...menu.querySelectorAll("button")];
  buttons.at((buttons.indexOf(/** @type {any} */ (document.activeElement)) + step) % buttons.length)?.focus();
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
    if (current() === id) showTitle(String(data.get("title")));
  });
}

/** Take a chat out of the list, and offer to take that back. @param {"archived" | "deleted"} what */
async function putAway(what) {
  const { id } = chosen();
  await attempt(async () => {
    if (what === "archived") await call("PATCH", `/api/dialogues/${id}`, { archived: true });
    else await call("DELETE", `/api/dialogues/${id}`);
    if (current() !== id) {
      await refreshDialogues();
      return offerBack(what, id);
    }
    sessionStorage.setItem("put-away", JSON.stringify({ what, id }));
    location.assign("/");
  });
}

/** @param {"archived" | "deleted"} what @param {string} id */
function offerBack(what, id) {
  const back = () => attempt(async () => {
    if (what === "archived") await call("PATCH", `/api/dialogues/${id}`, { archived: false });
    else await call("POST", `/api/dialogues/${id}/restore`);
    await refreshDialogues();
  });
  toast(what === "archived" ? t("Archived. You find it under your account.") : t("Chat deleted."), { label: t("Undo"), act: back });
}

/** @param {HTMLElement} button */
function save(button) {
  const { id } = chosen();
  const link = document.createElement("a");
  link.href = `/api/dialogues/${id}/export?format=${button.dataset.format}`;
  link.download = "";
  link.click();
}

/** @param {string} id */
async function share(id) {
  const dialog = byId("share");
  const path = `/api/dialogues/${id}/share`;
  const known = await attempt(() => call("GET", path));
  if (!known) return;
  dialog.dataset.path = path;
  showShare(known.share);
  await ask(dialog);
}

/** @param {{path: string, created: string} | null} made */
function showShare(made) {
  const button = byId("make-share");
  byId("share-made").hidden = byId("unshare").hidden = !made;
  button.textContent = made ? button.dataset.again : button.dataset.new;
  if (!made) return;
  byId("share-link").value = new URL(made.path, location.href).href;
  byId("share-when").textContent = new Date(made.created).toLocaleString(document.documentElement.lang);
}

async function makeShare() {
  const leaf = byId("share").dataset.path.includes(current()) && document.querySelector("#thread > [data-message]:last-of-type");
  const body = leaf ? { leaf_id: leaf.dataset.message } : {};
  const made = await attempt(() => call("PUT", byId("share").dataset.path, body));
  if (!made) return;
  showShare(made.share);
  byId("share-link").select();
}

async function unshare() {
  if ((await attempt(() => call("DELETE", byId("share").dataset.path))) === undefined) return;
  showShare(null);
  toast(t("The link leads nowhere now."));
}

onActions({
  "dialogue-menu": (button) => openMenu(button),
  "more-dialogues": (button) => showMore(button),
  "rename-dialogue": rename,
  "share-dialogue": () => share(chosen().id),
  "share-this": () => share(current()),
  "archive-dialogue": () => putAway("archived"),
  "export-dialogue": save,
  "delete-dialogue": () => putAway("deleted"),
  "make-share": makeShare,
  "copy-share": (button) => copy(byId("share-link").value, button),
  unshare,
});

list.scrollTop = Number(sessionStorage.getItem("list-top") ?? 0);
list.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest" });
addEventListener("pagehide", () => sessionStorage.setItem("list-top", String(list.scrollTop)));
watchEnd();

const away = sessionStorage.getItem("put-away");
if (away) {
  sessionStorage.removeItem("put-away");
  const { what, id } = JSON.parse(away);
  offerBack(what, id);
}
