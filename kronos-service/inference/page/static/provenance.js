/** What the forecast was made by and from: version and digest, how old the data is, which leaders are missing. */

import { byId, make } from "./dom.js";
import { counted, dayName, fullDate } from "./words.js";

const DIGEST_SHOWN = 12;

/** @param {import("./app.js").Page} page */
export function mountProvenance({ store }) {
  const show = () => {
    const { outlook, status } = store.get();
    byId("synthetic").hidden = !(outlook?.model.synthetic ?? status?.serving?.synthetic ?? false);
    byId("provenance").replaceChildren(
      ...pair("Adapter", ...adapterWords(outlook?.model ?? status?.serving ?? null, status)),
      ...pair("Data", dataWords(outlook, status)),
    );
    const missing = missingWords(outlook);
    byId("missing").hidden = missing === "";
    byId("missing").textContent = missing;
  };
  store.on(["outlook", "status"], show);
  show();
}

/**
 * @param {string} term
 * @param {...(Node | string)} words
 */
function pair(term, ...words) {
  return [make("dt", {}, term), make("dd", {}, ...words)];
}

/**
 * @param {any} model
 * @param {any} status
 * @returns {(Node | string)[]}
 */
function adapterWords(model, status) {
  if (model === null) return ["…"];
  const stale = status?.stale_because ? [make("span", { class: "warning-inline" }, status.stale_because)] : [];
  if (model.version === null) return [`none: the plain base ${model.base} serves`, ...stale];
  // the end of a version's name is the digest's beginning
  return [make("code", { title: `sha256 of its manifest: ${model.digest}` }, model.version), " on ", model.base, make("code", { class: "digest" }, `sha256 ${model.digest.slice(0, DIGEST_SHOWN)}…`), ...stale];
}

/**
 * How fresh the bars are, in words.
 *
 * @param {import("./outlook.js").Outlook | null} outlook
 * @param {any} status
 */
function dataWords(outlook, status) {
  if (outlook === null) return status?.source?.error ?? "…";
  const { bars, base, isPast } = outlook;
  const last = bars.bars.ts[bars.bars.ts.length - 1];
  const failing = status?.source?.error ? ` The source cannot be read now: ${status.source.error}` : "";
  if (isPast) return `as of ${fullDate(last)}, in the past: ${counted(bars.after.ts.length, "later bar")} known.${failing}`;
  const age =
    base.stale_sessions === 0
      ? "up to date"
      : `${counted(base.stale_sessions, "session")} old${base.is_stale ? ": a forecast of the past" : ""}`;
  return `last bar ${dayName(last)} ${last.slice(0, 4)}, ${age}.${failing}`;
}

/** @param {import("./outlook.js").Outlook | null} outlook */
function missingWords(outlook) {
  const missing = (outlook?.adapter ?? outlook?.base)?.missing_leaders ?? [];
  if (missing.length === 0) return "";
  const names = missing.map((one) => (one.last_bar === null ? `${one.leader} (no bar at all)` : `${one.leader} (last bar ${dayName(one.last_bar)})`));
  return `Forecast without ${counted(missing.length, "leader")}, whose last bar was not known: ${names.join(", ")}.`;
}
