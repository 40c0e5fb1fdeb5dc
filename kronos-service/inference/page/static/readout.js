/** The numbers of one bar: what is known of it, what each forecast says, and what is released on it. */

import { make } from "./dom.js";
import { grouped } from "./releases.js";
import { dayName, decimalsOf, localTime, percentText, priceText, sigmaText } from "./words.js";

/**
 * @typedef {object} BarFacts
 * @property {string} date
 * @property {{open: number, high: number, low: number, close: number} | null} candle up to as_of
 * @property {{open: number, high: number, low: number, close: number} | null} came after as_of
 * @property {{name: import("./chart.js").LayerName, label: string, median: number, low: number, high: number, range: number}[]} fans
 * @property {import("./releases.js").Group[]} releases
 */

/**
 * What is known and forecast of a date.
 *
 * @param {import("./app.js").State} state
 * @param {string} date
 * @returns {BarFacts | null} null: no bar of the chart
 */
export function factsOf({ outlook, supposed }, date) {
  if (outlook === null) return null;
  const { bars, base, adapter } = outlook;
  const step = base.dates.indexOf(date);
  const fans = [
    fanOf("base", "Base", base, step),
    fanOf("adapter", "Adapter", adapter, step),
    fanOf("what-if", "What if", supposed?.forecast ?? null, step),
  ].flatMap((fan) => (fan === null ? [] : [fan]));
  const facts = {
    date,
    candle: candleOf(bars.bars, date),
    came: candleOf(bars.after, date),
    fans,
    releases: grouped((step < 0 ? bars.events : (adapter ?? base).events).filter((event) => event.date === date)),
  };
  return facts.candle === null && step < 0 ? null : facts;
}

/**
 * The facts as elements: a heading, a small table, the releases.
 *
 * @param {BarFacts} facts
 * @returns {Node[]}
 */
export function readoutOf(facts) {
  const decimals = decimalsOf((facts.candle ?? facts.came)?.close ?? facts.fans[0].median);
  const text = (/** @type {number} */ price) => priceText(price, decimals);
  const rows = facts.fans.map(({ name, label, median, low, high, range }) =>
    make(
      "tr",
      {},
      make("th", { scope: "row" }, make("span", { class: `swatch swatch-${name}` }), label),
      make("td", {}, text(median)),
      make("td", {}, `${text(low)} – ${text(high)}`),
      make("td", {}, percentText(range)),
    ),
  );
  const head = make("tr", {}, make("th", { scope: "col" }, "Close"), make("th", { scope: "col" }, "median"), make("th", { scope: "col" }, "90 %"), make("th", { scope: "col" }, "range"));
  return [
    make("strong", {}, dayName(facts.date)),
    ...(facts.candle === null ? [] : [candleLine("", facts.candle, text)]),
    ...(rows.length === 0 ? [] : [make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows))]),
    ...(facts.came === null ? [] : [candleLine("came: ", facts.came, text)]),
    ...facts.releases.map((release) => make("p", { class: "readout-event" }, releaseLine(release))),
  ];
}

/**
 * The facts as a sentence, for those who hear the page.
 *
 * @param {BarFacts} facts
 */
export function spokenOf(facts) {
  const decimals = decimalsOf((facts.candle ?? facts.came)?.close ?? facts.fans[0].median);
  const text = (/** @type {number} */ price) => priceText(price, decimals);
  const parts = [dayName(facts.date)];
  if (facts.candle !== null) parts.push(`close ${text(facts.candle.close)}`);
  for (const { label, median, low, high } of facts.fans) parts.push(`${label}: ${text(median)}, 90 % from ${text(low)} to ${text(high)}`);
  if (facts.came !== null) parts.push(`what came: ${text(facts.came.close)}`);
  for (const release of facts.releases) parts.push(releaseLine(release));
  return `${parts.join("; ")}.`;
}

/**
 * How far apart the ends of the 90 % band of a bar's own move lie, in words.
 *
 * @param {import("./outlook.js").Forecast} forecast
 * @param {number} step
 */
export const rangeOf = (forecast, step) => forecast.moves["0.95"][step] - forecast.moves["0.05"][step];

/** @param {import("./releases.js").Group} release */
function releaseLine({ name, called, at, z }) {
  const surprise = z === null ? "" : `, surprise ${sigmaText(Math.round(10 * z) / 10)}`;
  return `${name}${called === "" ? "" : ` (${called})`}, ${localTime(at)}${surprise}`;
}

/**
 * @param {string} prefix
 * @param {{open: number, high: number, low: number, close: number}} candle
 * @param {(price: number) => string} text
 */
function candleLine(prefix, { open, high, low, close }, text) {
  return make("p", { class: "readout-candle" }, `${prefix}open ${text(open)}, high ${text(high)}, low ${text(low)}, close ${text(close)}`);
}

/** @type {(name: any, label: string, forecast: import("./outlook.js").Forecast | null, step: number) => BarFacts["fans"][number] | null} */
function fanOf(name, label, forecast, step) {
  if (forecast === null || step < 0) return null;
  const { quantiles } = forecast;
  return { name, label, median: quantiles["0.5"].close[step], low: quantiles["0.05"].close[step], high: quantiles["0.95"].close[step], range: rangeOf(forecast, step) };
}

/** @type {(columns: import("./outlook.js").BarColumns, date: string) => BarFacts["candle"]} */
function candleOf({ ts, open, high, low, close }, date) {
  const at = ts.indexOf(date);
  return at < 0 ? null : { open: open[at], high: high[at], low: low[at], close: close[at] };
}
