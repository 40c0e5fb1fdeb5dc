/** Trust: what the manifest of the version that serves proves about it, and what it does not hold. */

import { make } from "./dom.js";
import { fromMarkdown } from "./markdown.js";
import { counted, fullDate } from "./words.js";

/** Below these a figure is not made a headline of. */
const FEWEST = { targets: 30, dates: 20 };
const DAYS = /** @type {const} */ ([
  ["event", "Event days"],
  ["tier1", "Rates, CPI, payrolls"],
  ["quiet", "Non-event days"],
]);
const NOT_RECORDED = "not recorded";

/** @typedef {{nats: number, low: number, high: number, percent: number, targets: number, dates: number}} Gain */
/** @typedef {Record<"tier1" | "event" | "quiet", Gain | null>} Gains */
/** @typedef {{adapter: Gains, placebo: Gains | null}} Evidence */

/**
 * @param {HTMLElement} element
 * @param {import("./app.js").Page} page see the head of app.js
 */
export function mount(element, page) {
  /** @type {string | null | undefined} undefined: nothing has been shown */
  let shown;
  let asked = new AbortController();

  async function follow() {
    const status = page.store.get().status;
    const version = status === null ? undefined : (status.serving?.version ?? null);
    if (version === shown || version === undefined) return;
    shown = version;
    asked.abort();
    asked = new AbortController();
    if (version === null) {
      const reason = status.serving === null ? "Nothing serves yet." : "The plain base serves: no adapter, nothing learned of events.";
      element.replaceChildren(make("p", { class: "panel-note" }, reason));
      return;
    }
    const { signal } = asked;
    try {
      const found = await page.api.get(`/v1/adapters/${encodeURIComponent(version)}`, { signal });
      element.replaceChildren(view(found));
    } catch (error) {
      if (signal.aborted) return;
      shown = undefined;
      element.replaceChildren(make("p", { class: "panel-note" }, `The evidence cannot be read: ${/** @type {Error} */ (error).message}`));
    }
  }

  page.store.on(["status"], () => void follow());
  void follow();
}

/** @param {any} found what GET /v1/adapters/{version} answers */
function view(found) {
  const { splits } = found.training;
  return make(
    "div",
    { class: "panel" },
    make("p", { class: "headline" }, verdict(found)),
    evidence("Validation", found.validation, splits.val ? `${fullDate(splits.val[0])} to ${fullDate(splits.val[1])}` : null),
    evidence("Walk-forward", found.walk_forward, folds(found.walk_forward)),
    make(
      "dl",
      { class: "facts" },
      ...fact("Look-ahead audit", audit(found.audit)),
      ...fact("Trained on", splits.train ? `${fullDate(splits.train[0])} to ${fullDate(splits.train[1])}` : NOT_RECORDED),
      ...fact("Test dates", splits.test ? `${fullDate(splits.test[0])} to ${fullDate(splits.test[1])}, not looked at in training` : NOT_RECORDED),
      ...fact("Data", `${found.training.snapshot} (${found.training.sha256.slice(0, 12)})${found.training.has_manifest ? "" : ", plain tables"}`),
      ...fact("Base", `${found.base.repo} (${found.base.content_sha256.slice(0, 12)})`),
      ...fact("Coverage, PIT", `${NOT_RECORDED} in a manifest: the report of the run and the track record have them`),
    ),
    card(found.card),
  );
}

/**
 * The one sentence for somebody who has not heard of any of this.
 *
 * @param {any} found
 */
function verdict(found) {
  /** @type {Gain | null | undefined} */
  const walked = found.walk_forward?.adapter.event;
  /** @type {Gain | null | undefined} */
  const gain = walked ?? found.validation?.adapter.event;
  const where = walked ? "Over several periods" : "In validation";
  const leak = found.audit === null ? "" : found.audit.verdict === "pass" ? " No look-ahead was found." : " The audit for look-ahead failed.";
  if (!gain) return `Whether events help is not recorded for this version.${leak}`;
  const dates = counted(gain.dates, "event date");
  if (areFew(gain)) return `${dates} are too few to say whether events help.${leak}`;
  const size = `${Math.abs(gain.percent).toFixed(1)} %`;
  if (gain.low > 0) return `${where}, on ${dates}, its loss is ${size} lower than the same training's without events.${leak}`;
  if (gain.high < 0) return `${where}, on ${dates}, its loss is ${size} higher than the same training's without events: do not use it.${leak}`;
  return `${where}, on ${dates}, events made no difference that can be told from chance.${leak}`;
}

/** @param {any} walk */
function folds(walk) {
  if (!walk) return null;
  const periods = Math.max(walk.folds.length - 1, 0);
  return `${counted(periods, "period")}, ${counted(walk.seeds, "seed")}`;
}

/**
 * @param {string} title
 * @param {Evidence | null} found
 * @param {string | null} where
 */
function evidence(title, found, where) {
  if (found === null) return make("dl", { class: "facts" }, ...fact(title, NOT_RECORDED));
  const rows = DAYS.map(([day, name]) => ({ name, gain: found.adapter[day], isPlacebo: false }));
  const placebo = DAYS.filter(([day]) => day !== "tier1").map(([day, name]) => ({
    name: `Placebo, ${name.toLowerCase()}`,
    gain: found.placebo?.[day] ?? null,
    isPlacebo: true,
  }));
  const shown = found.placebo === null ? rows : [...rows, ...placebo];
  const known = shown.flatMap(({ gain }) => (gain === null || areFew(gain) ? [] : [lowOf(gain), highOf(gain)]));
  const scale = { from: Math.min(0, ...known), to: Math.max(0, ...known) };
  const table = make(
    "table",
    {},
    make("caption", {}, `${title}${where === null ? "" : `, ${where}`}: loss below the same training without events`),
    make(
      "thead",
      {},
      make("tr", {}, ...["Days", "Lower by", "95 % interval", "Dates"].map((name) => make("th", { scope: "col" }, name))),
    ),
    make("tbody", {}, ...shown.map((row) => gainRow(row, scale))),
  );
  const missing = found.placebo === null ? make("p", { class: "panel-note" }, `Placebo (events on wrong dates): ${NOT_RECORDED}`) : null;
  return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": title }, table, missing);
}

/**
 * @param {{name: string, gain: Gain | null, isPlacebo: boolean}} row
 * @param {{from: number, to: number}} scale
 */
function gainRow({ name, gain, isPlacebo }, scale) {
  const head = make("th", { scope: "row" }, name);
  if (gain === null) return make("tr", {}, head, make("td", { colspan: "3", class: "is-aside" }, NOT_RECORDED));
  const isFew = areFew(gain);
  return make(
    "tr",
    { class: [isPlacebo ? "is-placebo" : "", isFew ? "is-aside" : ""].join(" ").trim() || null },
    head,
    make("td", {}, signed(gain.percent)),
    // the bootstrap's interval is far too narrow on few dates
    isFew
      ? make("td", {}, "too few dates")
      : make("td", {}, make("span", {}, `${signed(lowOf(gain))} to ${signed(highOf(gain))}`), interval(gain, scale)),
    make("td", {}, String(gain.dates)),
  );
}

/**
 * The interval as a line; the numbers beside it say the same.
 *
 * @param {Gain} gain
 * @param {{from: number, to: number}} scale
 */
function interval(gain, { from, to }) {
  const at = (/** @type {number} */ value) => `${(100 * (value - from)) / (to - from || 1)}%`;
  const zero = make("span", { class: "interval-zero" });
  zero.style.left = at(0);
  const range = make("span", { class: "interval-range" });
  range.style.left = at(lowOf(gain));
  range.style.right = `calc(100% - ${at(highOf(gain))})`;
  const mean = make("span", { class: "interval-mean" });
  mean.style.left = at(gain.percent);
  const isOpen = gain.low <= 0 && gain.high >= 0;
  return make("span", { class: isOpen ? "interval is-open" : "interval", "aria-hidden": "true" }, zero, range, mean);
}

/** @param {Gain} gain */
const areFew = (gain) => gain.targets < FEWEST.targets || gain.dates < FEWEST.dates;

/** The ends of the interval in percent: nats and percent differ by one factor, the other model's loss. */
const lowOf = (/** @type {Gain} */ gain) => (gain.nats === 0 ? 0 : (gain.percent * gain.low) / gain.nats);
const highOf = (/** @type {Gain} */ gain) => (gain.nats === 0 ? 0 : (gain.percent * gain.high) / gain.nats);

/** @param {number} percent */
const signed = (percent) => `${percent < 0 ? "−" : "+"}${Math.abs(percent).toFixed(1)}\u00a0%`;

/** @param {{verdict: string, findings: number, checked: Record<string, number>} | null} record */
function audit(record) {
  if (record === null) return "not audited";
  const checks = Object.keys(record.checked).length;
  return `${record.verdict}: ${counted(record.findings, "finding")} in ${counted(checks, "check")}`;
}

/** @param {string | null} text */
function card(text) {
  if (text === null) return make("p", { class: "panel-note" }, "Model card: not whole in the store.");
  return make("details", {}, make("summary", {}, "Model card"), make("div", { class: "prose" }, ...fromMarkdown(text)));
}

/**
 * @param {string} name
 * @param {string} value
 */
const fact = (name, value) => [make("dt", {}, name), make("dd", {}, value)];
