/** The fan as a table: what the chart shows, for those who do not see it or want the figures. */

import { byId, make } from "./dom.js";
import { rangeOf } from "./readout.js";
import { grouped } from "./releases.js";
import { dayName, decimalsOf, percentText, priceText } from "./words.js";

/** @param {import("./app.js").Page} page */
export function mountNumbers({ store }) {
  const details = /** @type {HTMLDetailsElement} */ (byId("numbers").closest("details"));
  const show = () => {
    // a table of 64 bars is made only where somebody reads it
    if (details.open) byId("numbers").replaceChildren(...tableOf(store.get()));
  };
  details.addEventListener("toggle", show);
  store.on(["outlook", "supposed"], show);
}

/**
 * @param {import("./app.js").State} state
 * @returns {Node[]}
 */
function tableOf({ outlook, supposed }) {
  if (outlook === null) return [];
  const { bars, base, adapter } = outlook;
  const forecasts = [
    { label: "Base", forecast: base },
    { label: "Adapter", forecast: adapter },
    { label: "What if", forecast: supposed?.forecast ?? null },
  ].flatMap(({ label, forecast }) => (forecast === null ? [] : [{ label, forecast }]));
  const decimals = decimalsOf(base.last_close);
  const text = (/** @type {number} */ price) => priceText(price, decimals);
  const groups = make("tr", {}, make("td", { colspan: "2" }), ...forecasts.map(({ label }) => make("th", { scope: "colgroup", colspan: "4" }, label)), ...(outlook.isPast ? [make("td", {})] : []));
  const heads = ["Bar", "Releases", ...forecasts.flatMap(() => ["Median", "50 %", "90 %", "Range"]), ...(outlook.isPast ? ["Came"] : [])];
  const rows = base.dates.map((date, step) => {
    const names = grouped((adapter ?? base).events.filter((event) => event.date === date)).map((one) => one.name);
    const came = bars.after.ts.indexOf(date);
    const cells = forecasts.flatMap(({ forecast }) => {
      const close = (/** @type {string} */ level) => text(forecast.quantiles[level].close[step]);
      return [close("0.5"), `${close("0.25")} – ${close("0.75")}`, `${close("0.05")} – ${close("0.95")}`, percentText(rangeOf(forecast, step))];
    });
    return make(
      "tr",
      {},
      make("th", { scope: "row" }, dayName(date)),
      make("td", { class: "is-text" }, names.join(", ")),
      ...cells.map((cell) => make("td", {}, cell)),
      ...(outlook.isPast ? [make("td", {}, came < 0 ? "" : text(bars.after.close[came]))] : []),
    );
  });
  const caption = make("caption", {}, "Close in quote currency: median and bands of the sample paths; range: width of the 90 % band of the bar's own move.");
  return [make("table", {}, caption, make("thead", {}, groups, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))), make("tbody", {}, ...rows))];
}
