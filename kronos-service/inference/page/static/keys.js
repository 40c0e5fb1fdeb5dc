/**
 * The visitor's keys: asked once, kept in this tab's sessionStorage, sent in a header and nowhere else.
 *
 * A service that needs none (`serve --demo`) is never asked about: the first request goes without a key, and only a 401
 * brings up the dialog.
 */

import { byId } from "./dom.js";

/** @typedef {"forecast" | "admin"} Role */

const TITLES = { forecast: "Key to forecast", admin: "Admin key" };

/** The visitor closed the dialog without a key. */
export class NoKey extends Error {}

/** @param {Role} role */
const slot = (role) => `kronos-key-${role}`;

/** @type {Map<Role, Promise<string>>} so that ten requests that fail together ask once */
const asking = new Map();

/** @param {Role} role */
export const keyOf = (role) => sessionStorage.getItem(slot(role));

/** @param {Role} role */
export const forget = (role) => sessionStorage.removeItem(slot(role));

/**
 * The key that the visitor types.
 *
 * @param {Role} role
 * @param {string} why shown above the field, in the service's words
 * @returns {Promise<string>} rejects with NoKey
 */
export function askFor(role, why) {
  const pending = asking.get(role);
  if (pending !== undefined) return pending;
  const others = [...asking.values()];
  // one dialog at a time: the next role waits for the one before, however that ends
  const answer = Promise.allSettled(others)
    .then(() => show(role, why))
    .finally(() => asking.delete(role));
  asking.set(role, answer);
  return answer;
}

/**
 * @param {Role} role
 * @param {string} why
 * @returns {Promise<string>}
 */
function show(role, why) {
  const dialog = /** @type {HTMLDialogElement} */ (byId("key-dialog"));
  const field = /** @type {HTMLInputElement} */ (byId("key"));
  const form = /** @type {HTMLFormElement} */ (dialog.querySelector("form"));
  byId("key-title").textContent = TITLES[role];
  byId("key-why").textContent = why;
  field.value = "";
  const ended = new AbortController();
  return new Promise((resolve, reject) => {
    const listen = { signal: ended.signal };
    form.addEventListener(
      "submit",
      (event) => {
        event.preventDefault();
        const key = field.value.trim();
        if (key === "") return;
        field.value = "";
        sessionStorage.setItem(slot(role), key);
        resolve(key);
        dialog.close();
      },
      listen,
    );
    byId("key-cancel").addEventListener("click", () => dialog.close(), listen);
    dialog.addEventListener(
      "close",
      () => {
        ended.abort();
        reject(new NoKey("no key was given"));
      },
      listen,
    );
    dialog.showModal();
    field.focus();
  });
}
