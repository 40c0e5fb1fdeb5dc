/** Versions: what there is, what serves, and how to change it with an admin key. */

import { ApiError } from "./api.js";
import { make } from "./dom.js";
import { fullDate } from "./words.js";

const CONFIRM_SECONDS = 6;

/**
 * @param {HTMLElement} element
 * @param {import("./app.js").Page} page see the head of app.js
 */
export function mount(element, page) {
  const alert = make("p", { class: "panel-alert", role: "alert" });
  const list = make("div", { class: "panel" });
  let shown = "";
  let asked = new AbortController();
  let isBusy = false;

  async function refresh() {
    if (page.store.get().status === null) return;
    asked.abort();
    asked = new AbortController();
    const { signal } = asked;
    try {
      const found = await page.api.get("/v1/adapters", { signal });
      const text = JSON.stringify(found);
      if (text === shown) return;
      shown = text;
      show(found);
    } catch (error) {
      if (!signal.aborted) alert.textContent = /** @type {Error} */ (error).message;
    }
    if (element.childElementCount === 0) element.append(list, alert);
  }

  /** @param {any} found what GET /v1/adapters answers */
  function show(found) {
    const focused = /** @type {HTMLElement | null} */ (document.activeElement)?.dataset.action;
    list.replaceChildren(...view(found, change));
    // a list that is drawn again must not take the keyboard's place away
    if (focused) /** @type {HTMLElement | null} */ (list.querySelector(`[data-action="${CSS.escape(focused)}"]`))?.focus();
  }

  /** @type {Change} */
  async function change(path, body, done) {
    if (isBusy) return;
    isBusy = true;
    list.setAttribute("aria-busy", "true");
    alert.textContent = "";
    try {
      const status = await page.api.post(`/v1/adapters/${path}`, body, { role: "admin", retries: false });
      const serving = status.serving?.version ?? "the plain base";
      page.announce.news(`${done} ${serving} serves now.`);
      if (status.stale_because !== null) alert.textContent = `Not as asked: ${status.stale_because}`;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      alert.textContent = `Nothing has changed: ${error.message}`;
    } finally {
      isBusy = false;
      list.removeAttribute("aria-busy");
      page.refresh();
      void refresh();
    }
  }

  page.store.on(["status"], () => void refresh());
  void refresh();
}

/** @typedef {(path: "reload" | "pin" | "rollback", body: object | null, done: string) => Promise<void>} Change */

/**
 * @param {any} found
 * @param {Change} change
 */
function* view(found, change) {
  if (found.unlisted_because !== null) yield make("p", { class: "panel-note" }, `The store cannot be read: ${found.unlisted_because}`);
  yield make(
    "div",
    { class: "panel-actions" },
    action("reload", "Reload", () => change("reload", null, "Reloaded:")),
    found.pinned === null
      ? null
      : action("unpin", "Follow LATEST again", () => change("pin", { version: null }, "The pin is off:")),
    found.versions.length > 1
      ? confirmed("rollback", "Roll back", () => change("rollback", { version: null }, "Rolled back:"))
      : null,
  );
  yield make("ul", { class: "versions" }, ...found.versions.map((/** @type {any} */ one) => item(one, change)));
  if (found.total > found.versions.length) yield make("p", { class: "panel-note" }, `and ${found.total - found.versions.length} older ones`);
  const last = found.last_refusal;
  if (last !== null && !found.versions.some((/** @type {any} */ one) => one.version === last.version)) {
    yield make("p", { class: "version-note" }, `Last refused: ${last.version ?? "LATEST.json"}: ${last.reason}`);
  }
}

/**
 * @param {any} one
 * @param {Change} change
 */
function item(one, change) {
  const name = one.version;
  const isRefused = one.refused_because !== null;
  return make(
    "li",
    {},
    make(
      "div",
      { class: "version-head" },
      make("span", { class: "version-name" }, name),
      chip(one.serves, "chip-serves", "serves"),
      chip(one.is_latest, "chip-plain", "LATEST"),
      chip(one.is_pinned, "chip-plain", "pinned"),
      chip(isRefused, "chip-bad", "refused"),
      chip(one.synthetic === true, "chip-synthetic", "SYNTHETIC"),
    ),
    make("p", { class: "version-note" }, about(one)),
    isRefused ? make("p", { class: "version-note is-bad" }, `Refused: ${one.refused_because}`) : null,
    make(
      "div",
      { class: "panel-actions" },
      one.is_pinned ? null : action(`pin ${name}`, "Pin", () => change("pin", { version: name }, "Pinned:"), `Pin: ${name}`),
      one.is_latest
        ? null
        : confirmed(`rollback ${name}`, "Make LATEST", () => change("rollback", { version: name }, "Rolled back:"), `Make LATEST: ${name}`),
    ),
  );
}

/** @param {any} one */
function about(one) {
  if (one.unread_because !== null) return `Its manifest cannot be read: ${one.unread_because}`;
  const day = /^\d{4}-\d\d-\d\d/.exec(one.created_at)?.[0];
  const made = day === undefined ? "made at an unknown time" : `made on ${fullDate(day)}`;
  const gain = one.gain;
  if (gain === null) return `${made}; gain on event days not recorded`;
  const way = gain.percent < 0 ? "higher" : "lower";
  return `${made}; on ${gain.dates} event dates its loss is ${Math.abs(gain.percent).toFixed(1)} % ${way} than without events`;
}

/**
 * @param {boolean} isShown
 * @param {string} kind
 * @param {string} text
 */
const chip = (isShown, kind, text) => (isShown ? make("span", { class: `chip ${kind}` }, text) : null);

/**
 * @param {string} id keeps the keyboard's place
 * @param {string} text
 * @param {() => void} work
 * @param {string} [label] for screen readers, where the text alone names no version
 */
function action(id, text, work, label) {
  const button = make("button", { type: "button", class: "quiet", "data-action": id, "aria-label": label }, text);
  button.addEventListener("click", work);
  return button;
}

/**
 * An action that every replica feels: the first press asks, the second does it.
 *
 * @param {string} id
 * @param {string} text
 * @param {() => void} work
 * @param {string} [label]
 */
function confirmed(id, text, work, label = text) {
  let isArmed = false;
  const button = action(id, text, () => {
    if (isArmed) {
      work();
      return;
    }
    isArmed = true;
    name(`${text} for every replica?`, `${text} for every replica? Press again to do it. ${label}`);
    setTimeout(() => {
      isArmed = false;
      name(text, label);
    }, 1000 * CONFIRM_SECONDS);
  }, label);
  /** @type {(shown: string, spoken: string) => void} */
  const name = (shown, spoken) => {
    button.textContent = shown;
    button.setAttribute("aria-label", spoken);
  };
  return button;
}
