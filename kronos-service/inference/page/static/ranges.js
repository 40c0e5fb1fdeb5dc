/**
 * The product in one strip: the range that base and adapter expect of each bar, and one line that says what differs.
 *
 * The range of a bar is the width of the 90 % band of its own move, close to close, in percent of the price.
 */

import { byId, make } from "./dom.js";
import { rangeOf } from "./readout.js";
import { highNames } from "./releases.js";
import { dayName, percentText, shortDate } from "./words.js";

/** Ratios of ranges within these are "about the same": so few paths do not tell them apart. */
const ALIKE = 1.25;
/** Pixels that a date needs. */
const LABEL = 58;
/** Pixels that a figure needs, and those between two columns. */
const FIGURE = 23;
const GAP = 10;

/** @param {import("./app.js").Page} page */
export function mountRanges({ store }) {
  const plot = byId("ranges");
  /** @type {Map<string, HTMLElement>} */
  let columns = new Map();

  const label = () => {
    const every = Math.ceil((columns.size * LABEL) / Math.max(LABEL, plot.clientWidth));
    const figures = plot.querySelectorAll(".range-figures span").length;
    plot.classList.toggle("is-roomy", plot.clientWidth >= FIGURE * figures + GAP * columns.size);
    for (const [at, [date, column]] of [...columns].entries()) {
      /** @type {HTMLElement} */ (column.lastElementChild).textContent = at % every === 0 ? shortDate(date) : "";
    }
  };
  const show = () => {
    const { outlook, supposed } = store.get();
    byId("ranges-line").textContent = outlook === null ? "" : headline(outlook);
    columns = outlook === null ? new Map() : columnsOf(outlook, supposed?.forecast ?? null);
    plot.style.setProperty("--bars", String(columns.size));
    plot.replaceChildren(...columns.values());
    label();
    for (const [date, column] of columns) {
      column.addEventListener("pointerenter", () => store.set({ hovered: date }));
      column.addEventListener("pointerleave", () => store.set({ hovered: null }));
    }
  };
  store.on(["outlook", "supposed"], show);
  new ResizeObserver(label).observe(plot);
  store.on(["hovered"], ({ hovered }) => {
    for (const [date, column] of columns) column.classList.toggle("is-hovered", date === hovered);
  });
}

/**
 * @param {import("./outlook.js").Outlook} outlook
 * @param {import("./outlook.js").Forecast | null} supposed
 * @returns {Map<string, HTMLElement>} a column of bars for each date
 */
function columnsOf({ base, adapter }, supposed) {
  const forecasts = [
    { name: "base", label: "base", forecast: base },
    { name: "adapter", label: "adapter", forecast: adapter },
    { name: "what-if", label: "what if", forecast: supposed },
  ].flatMap(({ forecast, ...one }) => (forecast === null ? [] : [{ ...one, forecast }]));
  const highest = Math.max(...forecasts.flatMap(({ forecast }) => forecast.dates.map((_, step) => rangeOf(forecast, step))));
  return new Map(
    base.dates.map((date, step) => {
      const names = highNames((adapter ?? base).events.filter((event) => event.date === date));
      const ranges = forecasts.map(({ name, label, forecast }) => ({ name, label, range: rangeOf(forecast, step) }));
      const words = `${dayName(date)}: ${ranges.map(({ label, range }) => `${label} ${percentText(range)}`).join(", ")}${names.length > 0 ? `; ${names.join(", ")}` : ""}`;
      const bars = ranges.map(({ name, range }) => {
        const bar = make("span", { class: `range range-${name}` });
        bar.style.height = `${(100 * range) / highest}%`;
        return bar;
      });
      const column = make(
        "div",
        { class: `range-column${names.length > 0 ? " is-event" : ""}`, role: "img", "aria-label": words, title: words },
        make("div", { class: "range-bars" }, ...bars),
        make("div", { class: "range-figures" }, ...ranges.map(({ range }) => make("span", {}, percentText(range).replace(" %", "")))),
        make("span", { class: "range-pin" }, names.length > 0 ? "◆" : ""),
        make("span", { class: "range-date" }),
      );
      return [date, column];
    }),
  );
}

/**
 * What the adapter makes of the bar on which it differs most from the base, events first.
 *
 * @param {import("./outlook.js").Outlook} outlook
 */
function headline({ base, adapter }) {
  if (adapter === null) return "No adapter serves: this is what the plain base expects, which knows no calendar.";
  const bars = base.dates.map((date, step) => {
    const names = highNames(adapter.events.filter((event) => event.date === date));
    const [ofBase, ofAdapter] = [rangeOf(base, step), rangeOf(adapter, step)];
    return { date, names, ofBase, ofAdapter, ratio: ofBase > 0 ? ofAdapter / ofBase : 1 };
  });
  const onEvents = bars.filter((bar) => bar.names.length > 0);
  const among = onEvents.length > 0 ? onEvents : bars;
  const most = among.reduce((one, other) => (Math.abs(Math.log(other.ratio)) > Math.abs(Math.log(one.ratio)) ? other : one));
  const what = onEvents.length > 0 ? `${joined(most.names)} on ${dayName(most.date)}` : `No high-impact release is scheduled here; on ${dayName(most.date)}`;
  const figures = `${percentText(most.ofAdapter)} against ${percentText(most.ofBase)}`;
  if (most.ratio > ALIKE) return `${what}: the adapter expects ${timesText(most.ratio)} the base's range (${figures}).`;
  if (most.ratio < 1 / ALIKE) return `${what}: the adapter expects a narrower range than the base (${figures}).`;
  return `${what}: adapter and base expect about the same range (${figures}).`;
}

/** @param {number} ratio */
const timesText = (ratio) => `${ratio.toLocaleString("en-GB", { minimumFractionDigits: 1, maximumFractionDigits: 1 })} times`;

/** @param {string[]} names */
const joined = (names) => (names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`);
