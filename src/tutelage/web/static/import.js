// @ts-check
/** Bringing chats from a ChatGPT export. The file is read here and sent in parts; the server never sees more than conversations. */

import { t } from "./catalogue.js";
import { byId } from "./dialogs.js";
import { Problem, call } from "./http.js";
import { refreshDialogues } from "./library.js";
import { unzip } from "./zip.js";

const MOST_BYTES = 1_500_000;
const MOST_AT_ONCE = 100;
const state = byId("import-state");
const input = byId("import-file");
const encoder = new TextEncoder();

/** @param {File} file @returns {Promise<any[]>} */
async function conversations(file) {
  const zipped = new Uint8Array(await file.slice(0, 2).arrayBuffer());
  const text = zipped[0] === 0x50 && zipped[1] === 0x4b ? await unzip(file, "conversations.json") : await file.text();
  const found = JSON.parse(text);
  if (!Array.isArray(found)) throw new Problem(t("This is not a file of conversations."));
  return found;
}

/** Conversations in parts that fit into one request; one that is too large by itself is left out. @param {any[]} all */
function* parts(all) {
  let part = /** @type {any[]} */ ([]);
  let size = 0;
  for (const each of all) {
    const bytes = encoder.encode(JSON.stringify(each)).length;
    if (bytes > MOST_BYTES) continue;
    if (part.length && (size + bytes > MOST_BYTES || part.length === MOST_AT_ONCE)) {
      yield part;
      part = [];
      size = 0;
    }
    part.push(each);
    size += bytes;
  }
  if (part.length) yield part;
}

/** @param {File} file */
async function bring(file) {
  state.textContent = t("Reading the file…");
  try {
    const all = await conversations(file);
    let imported = 0;
    let known = 0;
    for (const part of parts(all)) {
      const counts = await call("POST", "/api/import", { conversations: part });
      imported += counts.imported;
      known += counts.known;
      state.textContent = t("Chats brought so far: {count}…", { count: imported });
    }
    const left = all.length - imported - known;
    state.textContent = t("Brought: {imported}. Here already: {known}. Left out: {left}.", { imported, known, left });
    await refreshDialogues();
  } catch (error) {
    state.textContent = error instanceof Problem ? error.message : t("This is not a file of conversations.");
  }
}

byId("import").addEventListener("click", () => input.click());
input.addEventListener("change", () => {
  if (input.files?.[0]) bring(input.files[0]);
  input.value = "";
});
