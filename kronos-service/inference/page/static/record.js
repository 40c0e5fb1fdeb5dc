/** Track record: how past forecasts turned out, where the operator names a scorecard. */

import { make } from "./dom.js";
import { counted, fullDate } from "./words.js";

const MINUTES = 10;
/** Below this a figure is not made a headline of. */
const FEWEST_TARGETS = 30;
const STEPS = /** @type {Record<string, string>} */ ({ 1: "first bar", all: "all bars" });
const INTERVALS = /** @type {const} */ (["50", "80", "90"]);

/** @typedef {{mean: number, low: number | null, high: number | null, dates: number}} Mean */

/**
 * @param {HTMLElement} element it stays empty, and so takes no room, while no scorecard is configured
 * @param {import("./app.js").Page} page see the head of app.js
 */
export function mount(element, page) {
  let shown = "";

  async function refresh() {
    if (page.store.get().status === null) return;
    /** @type {any} */
    let found;
    try {
      found = await page.api.get("/v1/record");
    } catch {
      return; // what the service says of itself stands above the chart; the last record stays
    }
    const serving = page.store.get().status?.serving?.version ?? null;
    const text = JSON.stringify([found, serving]);
    if (text === shown) return;
    shown = text;
    if (found.scorecard !== null) element.replaceChildren(view(found, serving));
    else element.replaceChildren(...(found.is_configured ? [make("p", { class: "panel-note" }, `No track record: ${found.reason}`)] : []));
  }

  page.store.on(["status"], () => void refresh());
  setInterval(() => void refresh(), 60_000 * MINUTES);
  void refresh();
}

/**
 * @param {any} found what GET /v1/record answers
 * @param {string | null} serving
 */
function view(found, serving) {
  const card = found.scorecard;
  const version = card.versions.find((/** @type {any} */ one) => one.version === serving) ?? card.versions.at(-1);
  if (version === undefined) return make("p", { class: "panel-note" }, "The scorecard has no forecast whose bar has come.");
  const others = version.version === serving ? null : make("p", { class: "panel-note" }, `The version that serves has none yet; this is ${version.version}.`);
  return make(
    "div",
    { class: "panel" },
    make("p", { class: "headline" }, verdict(version)),
    others,
    scores(version),
    pit(version),
    coverage(card.coverage.filter((/** @type {any} */ one) => one.version === version.version), card.days),
    make(
      "p",
      { class: "panel-note" },
      `${counted(card.targets, "forecast")} scored, ${card.pending.toLocaleString("en-GB")} wait for their bar. `,
      `Scored on ${card.snapshot.name}, written on ${fullDate(found.written_at.slice(0, 10))}.`,
    ),
  );
}

/** @param {any} version */
function verdict(version) {
  const first = version.groups.find((/** @type {any} */ one) => one.by === "all" && one.steps === "1");
  const days = `From ${fullDate(version.first)} to ${fullDate(version.last)}`;
  if (!first || first.targets < FEWEST_TARGETS || first.inside_90 === null) return `${days} too few forecasts have come to say how good they were.`;
  const share = `${(100 * first.inside_90.mean).toFixed(1)} %`;
  return `${days}, ${share} of ${first.targets.toLocaleString("en-GB")} outcomes of the first bar fell inside the 90 % band.`;
}

/** @param {any} version */
function scores(version) {
  const rows = version.groups.filter((/** @type {any} */ one) => one.by === "all" || one.by === "day");
  const names = ["Days", "Bars", "Targets", "CRPS", "Below a random walk's", "Below the base's", ...INTERVALS.map((name) => `In ${name} %`)];
  const table = make(
    "table",
    {},
    make("caption", {}, "Errors (CRPS) in percent of the price, and the share of outcomes inside each band; 95 % intervals"),
    make("thead", {}, make("tr", {}, ...names.map((name) => make("th", { scope: "col" }, name)))),
    make("tbody", {}, ...rows.map(scoreRow)),
  );
  return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Scores" }, table);
}

/** @param {any} row */
function scoreRow(row) {
  const days = row.group === "quiet" ? "Non-event" : row.group === "event" ? "Event" : "All";
  return make(
    "tr",
    { class: row.targets < FEWEST_TARGETS ? "is-aside" : null },
    make("th", { scope: "row" }, days),
    make("td", { class: "is-text" }, STEPS[row.steps] ?? row.steps),
    make("td", {}, row.targets.toLocaleString("en-GB")),
    ...[row.crps, row.over_walk, row.over_base].map((mean) => make("td", {}, meanText(mean, 2))),
    ...INTERVALS.map((name) => make("td", {}, meanText(row[`inside_${name}`], 1))),
  );
}

/**
 * @param {Mean | null} mean
 * @param {number} digits
 */
function meanText(mean, digits) {
  if (mean === null) return "–";
  const text = (/** @type {number} */ value) => (100 * value).toFixed(digits);
  const range = mean.low === null || mean.high === null ? "" : ` (${text(mean.low)} to ${text(mean.high)})`;
  return `${text(mean.mean)}${range}`;
}

/** @param {any} version */
function pit(version) {
  const total = version.pit.reduce((/** @type {number} */ sum, /** @type {number} */ count) => sum + count, 0);
  if (total === 0) return null;
  const shares = version.pit.map((/** @type {number} */ count) => (100 * count) / total);
  const top = Math.max(20, ...shares);
  const bars = shares.map((/** @type {number} */ share) => {
    const bar = make("span", { class: "pit-bar" });
    bar.style.height = `${(100 * share) / top}%`;
    return bar;
  });
  const expected = make("span", { class: "pit-expected" });
  expected.style.bottom = `${1000 / top}%`;
  const said = shares.map((/** @type {number} */ share) => share.toFixed(0)).join(", ");
  return make(
    "figure",
    { class: "figure" },
    make("div", { class: "pit", role: "img", "aria-label": `Percent of outcomes by tenths of the forecast: ${said}` }, ...bars, expected),
    make("figcaption", { class: "panel-note" }, "Where outcomes of the first bar fell in the forecast, by tenths (PIT): each is at the dashed line if it is right."),
  );
}

/**
 * @param {any[]} rows
 * @param {number} days
 */
function coverage(rows, days) {
  if (rows.length === 0) return make("p", { class: "panel-note" }, `The last ${days} days have too few dates to judge the coverage.`);
  const table = make(
    "table",
    {},
    make("caption", {}, `Coverage of the last ${days} days`),
    make("thead", {}, make("tr", {}, ...["Band", "Bars", "Inside", "May be", "Verdict"].map((name) => make("th", { scope: "col" }, name)))),
    make(
      "tbody",
      {},
      ...rows.map((one) => {
        const isInside = one.low <= one.share && one.share <= one.high;
        return make(
          "tr",
          {},
          make("th", { scope: "row" }, `${one.interval} %`),
          make("td", { class: "is-text" }, STEPS[one.steps] ?? one.steps),
          make("td", {}, `${(100 * one.share).toFixed(1)} %`),
          make("td", {}, `${(100 * one.low).toFixed(1)} to ${(100 * one.high).toFixed(1)} %`),
          make("td", { class: isInside ? "is-good" : "is-bad" }, isInside ? "pass" : "fail"),
        );
      }),
    ),
  );
  return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Coverage" }, table);
}
