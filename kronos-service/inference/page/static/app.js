/**
 * Wires the page: each module has one part of it, and all share one `Page`.
 *
 * A panel is a module with `mount(element, page)`: it fills `element` and never looks outside it. From `page` it has
 *
 *   page.api     `get(path, {signal, role})` and `post(path, body, {signal, role, retries})` of JSON under the service's
 *                root, such as api.get("/v1/model"). The key of `role` ("forecast" unless told, or "admin") is sent by
 *                itself, and asked for where there is none or it is no longer good; 429, 503, 504 and a service that
 *                restarts are said in words and retried, unless `retries: false`. What is left to a panel is ApiError
 *                (.status, .message in the service's words, .fields).
 *   page.store   `store.get()`, and `store.on(["name", ...], listener)`, which calls `listener(state)` after a change.
 *                A part that is the same object has not changed. Names: see State below. `status` is what GET /v1/model
 *                says, polled every 2 s, and a new object only if it differs; after a change of version by a panel
 *                `page.refresh()` polls at once.
 *   page.announce `news(message)`: said aloud and shown above the chart for a moment.
 *
 * Names of symbols, events and versions come from files of other people: they go into the page by textContent, or by
 * `make` of dom.js, which makes text nodes; never by innerHTML. The Content-Security-Policy is 'self': no style
 * attributes in markup (element.style.x = ... is allowed), no inline script, nothing from elsewhere.
 */

import { readAddress, writeAddress } from "./address.js";
import { createAnnouncer } from "./announcer.js";
import { createApi } from "./api.js";
import { mountChart } from "./chart.js";
import { mountControls } from "./controls.js";
import { byId, debounced } from "./dom.js";
import { mountNumbers } from "./numbers.js";
import { followOutlook } from "./outlook.js";
import { mountProvenance } from "./provenance.js";
import { mountRanges } from "./ranges.js";
import * as record from "./record.js";
import { followStatus } from "./status.js";
import { createStore } from "./store.js";
import { mountSymbols } from "./symbols.js";
import { followTheme } from "./theme.js";
import * as trust from "./trust.js";
import * as versions from "./versions.js";
import { mountWhatIf } from "./what_if.js";

/**
 * @typedef {object} State
 * @property {import("./address.js").Choice} choice what the visitor has chosen; the address follows it
 * @property {any} status what GET /v1/model says: serving, stale_because, source, limits ...; null until it has answered
 * @property {import("./outlook.js").Outlook | null} outlook what the chart shows: bars, base, adapter
 * @property {import("./outlook.js").Supposed | null} supposed the adapter's forecast in the scenario
 * @property {string | null} hovered ISO date of the bar that is pointed at
 * @property {ReadonlySet<import("./chart.js").LayerName>} hidden what the visitor has switched off in the chart
 */
/**
 * @typedef {object} Page
 * @property {import("./api.js").Api} api
 * @property {import("./store.js").Store<State>} store
 * @property {import("./announcer.js").Announcer} announce
 * @property {() => void} refresh ask GET /v1/model now
 */

/** The address is written once a choice rests, milliseconds: browsers stop pages that write it too often. */
const REST = 150;
/** Everything before /ui: a proxy may publish the service under a path. */
const ROOT = location.pathname.replace(/\/ui(\/.*)?$/, "");

const announce = createAnnouncer();
/** @type {State} */
const initial = {
  choice: readAddress(location.hash),
  status: null,
  outlook: null,
  supposed: null,
  hovered: null,
  hidden: new Set(),
};
const store = createStore(initial);
const api = createApi(ROOT, (message) => announce.trouble("service", message));
const refresh = followStatus(api, store, announce);
/** @type {Page} */
const page = { api, store, announce, refresh };

followAddress();
mountSymbols(page);
mountControls(page);
mountProvenance(page);
const recolour = mountChart(page);
mountRanges(page);
mountNumbers(page);
mountWhatIf(page);
followTheme(recolour);
followOutlook(page);
trust.mount(byId("trust"), page);
versions.mount(byId("versions"), page);
record.mount(byId("record"), page);

/** The address says what is chosen, and a change of the address chooses. */
function followAddress() {
  let shown = store.get().choice;
  const write = debounced(() => {
    const { choice } = store.get();
    // sliders move through many values: only another forecast is a step that "back" should undo
    const isStep = choice.symbol !== shown.symbol || choice.asOf !== shown.asOf || choice.horizon !== shown.horizon;
    const address = addressOf(choice);
    if (address !== location.href) history[isStep && shown.symbol !== "" ? "pushState" : "replaceState"](null, "", address);
    shown = choice;
  }, REST);
  store.on(["choice"], write);
  addEventListener("popstate", () => {
    shown = readAddress(location.hash);
    store.set({ choice: shown });
  });
  byId("copy-link").addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(addressOf(store.get().choice));
      announce.news("The link is copied: it holds symbol, date, horizon, seed and what-if, and no key.");
    } catch {
      announce.news("The browser does not allow copying here: the address bar holds the same link.");
    }
  });
}

/** @param {import("./address.js").Choice} choice */
function addressOf(choice) {
  return `${location.href.split("#")[0]}#${writeAddress(choice)}`;
}
