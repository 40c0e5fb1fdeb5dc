/** Candles up to as_of, the fans after it, what came, and what is scheduled. */

import { CandlestickSeries, LineSeries, createChart } from "./vendor/lightweight-charts.js";
import { byId, make } from "./dom.js";
import { FanView } from "./fan.js";
import { Pins } from "./pins.js";
import { highNames } from "./releases.js";
import { factsOf, readoutOf, spokenOf } from "./readout.js";
import { colour } from "./theme.js";
import { counted, decimalsOf, fullDate, priceText } from "./words.js";

/** @typedef {"base" | "adapter" | "what-if" | "came"} LayerName */

/** Dashes tell the fans apart where colours do not. */
const LAYERS = /** @type {const} */ ([
  { name: "base", label: "Base, which knows no calendar", short: "Base", dash: [6, 4] },
  { name: "adapter", label: "Adapter", short: "Adapter", dash: [] },
  { name: "what-if", label: "What if", short: "What if", dash: [8, 3, 2, 3] },
  { name: "came", label: "What came", short: "What came", dash: [1, 3] },
]);
const LEVELS = ["0.05", "0.1", "0.25", "0.5", "0.75", "0.9", "0.95"];
const FEWEST_PAST = 12;
/** Widths in pixels: of a chart with little room, and of a bar that can still be read. */
const NARROW = 480;
const FINEST = 7;
/** Pixels between a bar and its numbers. */
const ASIDE = 18;

/**
 * @param {import("./app.js").Page} page
 * @returns {() => void} to be called after the colours have changed
 */
export function mountChart({ store }) {
  const element = byId("chart");
  const chart = createChart(element, options());
  const candles = chart.addSeries(CandlestickSeries, { priceLineVisible: false, lastValueVisible: false });
  /** @type {Record<"base" | "adapter" | "what-if", any>} */
  const fans = {
    // the first lies lowest: what the what-if is compared with shows through it
    "what-if": chart.addCustomSeries(new FanView(), {}),
    base: chart.addCustomSeries(new FanView(), {}),
    adapter: chart.addCustomSeries(new FanView(), {}),
  };
  const came = chart.addSeries(LineSeries, { lineWidth: 1, lineStyle: 1, pointMarkersVisible: true, pointMarkersRadius: 2.5, priceLineVisible: false, lastValueVisible: false, crosshairMarkerVisible: false });
  const pins = new Pins();
  candles.attachPrimitive(pins);
  mountReadout(element, chart, candles, store);
  mountLegend(store);

  function recolour() {
    chart.applyOptions(options());
    const [ink, surface] = [colour("ink"), colour("surface")];
    // hollow rises, full falls: candles keep clear of the forecasts' colours, and of red and green
    candles.applyOptions({ upColor: surface, downColor: ink, borderUpColor: ink, borderDownColor: ink, wickUpColor: ink, wickDownColor: ink });
    came.applyOptions({ color: ink });
    for (const { name, dash } of LAYERS) if (name !== "came") fans[name].applyOptions({ color: colour(name), dash: [...dash] });
    pins.colours = { event: colour("event"), muted: colour("muted"), surface, line: colour("line") };
    pins.font = getComputedStyle(document.body).fontFamily;
  }

  function show() {
    const state = store.get();
    const { outlook, supposed, hidden } = state;
    byId("forecast-title").textContent = titleOf(outlook);
    document.title = `${titleOf(outlook)}, Kronos`;
    byId("paths").textContent = outlook === null ? "" : `${outlook.paths} sample paths each, from the same seed. `;
    byId("forecast").classList.toggle("is-empty", outlook === null);
    if (outlook === null) {
      for (const series of [candles, came, ...Object.values(fans)]) series.setData([]);
      pins.show([], null);
      return;
    }
    const { bars, base, adapter } = outlook;
    const decimals = decimalsOf(base.last_close);
    const priceFormat = { type: /** @type {const} */ ("custom"), minMove: 10 ** -decimals, formatter: (/** @type {number} */ price) => priceText(price, decimals) };
    candles.applyOptions({ priceFormat });
    candles.setData(bars.bars.ts.map((time, at) => ({ time, open: bars.bars.open[at], high: bars.bars.high[at], low: bars.bars.low[at], close: bars.bars.close[at] })));
    const origin = bars.bars.ts[bars.bars.ts.length - 1];
    const forecasts = { base, adapter, "what-if": supposed?.forecast ?? null };
    for (const [name, series] of Object.entries(fans)) {
      const forecast = forecasts[/** @type {keyof typeof forecasts} */ (name)];
      series.applyOptions({ priceFormat, isGhost: name !== "what-if" && supposed !== null });
      series.setData(forecast === null || hidden.has(/** @type {LayerName} */ (name)) ? [] : fanBars(forecast, origin));
    }
    const until = base.dates[base.dates.length - 1];
    const later = bars.after.ts.flatMap((time, at) => (time <= until ? [{ time, value: bars.after.close[at] }] : []));
    came.setData(later.length === 0 || hidden.has("came") ? [] : [{ time: origin, value: base.last_close }, ...later]);
    pins.show(pinsOf(outlook), [origin, base.dates[0]]);
  }

  let shown = store.get().outlook;
  store.on(["outlook", "supposed", "hidden"], ({ outlook }) => {
    show();
    if (outlook !== shown) frame(chart, element, outlook);
    shown = outlook;
  });
  new ResizeObserver(() => frame(chart, element, store.get().outlook)).observe(element);
  return () => {
    recolour();
    show();
  };
}

/** What the library draws with; colours as they stand. */
function options() {
  const line = colour("line");
  return {
    autoSize: true,
    layout: {
      background: { color: "transparent" },
      textColor: colour("muted"),
      fontFamily: getComputedStyle(document.body).fontFamily,
      fontSize: 12,
      // its logo brings a style element, which the Content-Security-Policy forbids: the page's foot names it instead
      attributionLogo: false,
    },
    grid: { vertLines: { visible: false }, horzLines: { color: line } },
    rightPriceScale: { borderVisible: false, entireTextOnly: true, scaleMargins: { top: 0.17, bottom: 0.09 } },
    timeScale: { borderColor: line, fixLeftEdge: true, fixRightEdge: true, rightOffset: 0 },
    localization: { locale: "en-GB", timeFormatter: (/** @type {any} */ time) => fullDate(isoDate(time)) },
    crosshair: { mode: 0, vertLine: { color: colour("line-strong"), labelBackgroundColor: colour("muted") }, horzLine: { color: colour("line-strong"), labelBackgroundColor: colour("muted") } },
    // the wheel and a finger that moves up or down belong to the page
    handleScroll: { mouseWheel: false, vertTouchDrag: false },
    handleScale: { mouseWheel: false, axisPressedMouseMove: { price: false, time: true } },
  };
}

/**
 * Show the forecast with half as many bars again before it, or as many as the width lets one see.
 *
 * @param {any} chart
 * @param {HTMLElement} element
 * @param {import("./outlook.js").Outlook | null} outlook
 */
function frame(chart, element, outlook) {
  if (outlook === null) return;
  const { horizon, past } = { horizon: outlook.base.dates.length, past: outlook.bars.bars.ts.length };
  // a narrow chart gives half its width to the forecast
  const ample = element.clientWidth < NARROW ? horizon + 8 : 1.6 * horizon + 14;
  const room = Math.floor(element.clientWidth / FINEST) - horizon;
  const before = Math.min(past, Math.max(FEWEST_PAST, Math.min(ample, room)));
  chart.timeScale().setVisibleLogicalRange({ from: Math.ceil(past - before) - 0.5, to: past + horizon - 0.5 });
}

/** @param {import("./outlook.js").Outlook | null} outlook */
function titleOf(outlook) {
  if (outlook === null) return "Forecast";
  const { bars, base } = outlook;
  return `${bars.symbol}: ${counted(base.dates.length, "bar")} after ${fullDate(bars.bars.ts[bars.bars.ts.length - 1])}`;
}

/**
 * @param {import("./outlook.js").Forecast} forecast
 * @param {string} origin where all paths begin
 */
function fanBars({ dates, quantiles, last_close }, origin) {
  return [
    { time: origin, ends: LEVELS.map(() => last_close) },
    ...dates.map((time, step) => ({ time, ends: LEVELS.map((level) => quantiles[level].close[step]) })),
  ];
}

/**
 * @param {import("./outlook.js").Outlook} outlook
 * @returns {import("./pins.js").Pin[]} one a date, ascending
 */
function pinsOf({ bars, base, adapter }) {
  const past = new Set(bars.bars.ts);
  const releases = [...bars.events.filter((event) => past.has(event.date)), ...(adapter ?? base).events];
  const byDate = Map.groupBy(releases, (event) => event.date);
  return [...byDate].map(([date, events]) => {
    const names = highNames(events);
    return { date, text: names.join(", "), isAhead: !past.has(date), isHigh: names.length > 0 };
  });
}

/**
 * Buttons that say what is drawn how, and switch it off and on.
 *
 * @param {import("./store.js").Store<import("./app.js").State>} store
 */
function mountLegend(store) {
  const element = byId("legend");
  const buttons = LAYERS.map(({ name, label, short }) => {
    const button = make("button", { type: "button", class: "legend-item", "aria-pressed": "true", title: label }, make("span", { class: `swatch swatch-${name}` }), short);
    button.addEventListener("click", () => {
      const hidden = new Set(store.get().hidden);
      if (!hidden.delete(name)) hidden.add(name);
      store.set({ hidden });
    });
    return { name, button };
  });
  element.append(...buttons.map((one) => one.button));
  const show = () => {
    const { outlook, supposed, hidden } = store.get();
    const there = { base: outlook !== null, adapter: outlook?.adapter != null, "what-if": supposed !== null, came: outlook?.isPast === true };
    for (const { name, button } of buttons) {
      button.hidden = !there[name];
      button.setAttribute("aria-pressed", String(!hidden.has(name)));
      button.classList.toggle("is-ghost", name !== "what-if" && supposed !== null);
    }
  };
  store.on(["outlook", "supposed", "hidden"], show);
  show();
}

/**
 * The readout follows what is hovered: by the pointer here or on the ranges below, or by the arrow keys.
 *
 * @param {HTMLElement} element
 * @param {any} chart
 * @param {any} candles
 * @param {import("./store.js").Store<import("./app.js").State>} store
 */
function mountReadout(element, chart, candles, store) {
  const readout = byId("readout");

  store.on(["hovered", "outlook", "supposed"], (state) => {
    const { hovered, outlook } = state;
    const facts = hovered === null ? null : factsOf(state, hovered);
    const x = hovered === null ? null : chart.timeScale().timeToCoordinate(hovered);
    readout.hidden = facts === null || x === null;
    if (facts === null || x === null) return;
    readout.replaceChildren(...readoutOf(facts));
    // beside the bar, and clear of the fans: left of where the forecast starts
    const start = outlook === null ? null : chart.timeScale().timeToCoordinate(outlook.base.dates[0]);
    const isLeft = x > element.clientWidth / 2 || facts.fans.length > 0;
    const left = isLeft ? Math.min(x, start ?? x) - readout.offsetWidth - ASIDE : x + ASIDE;
    readout.style.left = `${Math.max(0, Math.min(element.clientWidth - readout.offsetWidth, left))}px`;
  });

  chart.subscribeCrosshairMove((/** @type {any} */ moved) => {
    // without an event it was the code below that moved it
    if (moved.sourceEvent !== undefined) store.set({ hovered: moved.time === undefined ? null : isoDate(moved.time) });
  });
  element.addEventListener("pointerleave", () => store.set({ hovered: null }));

  element.addEventListener("keydown", (event) => {
    const { outlook, hovered } = store.get();
    if (outlook === null) return;
    const dates = [...outlook.bars.bars.ts, ...outlook.base.dates];
    const first = outlook.bars.bars.ts.length;
    const at = hovered === null ? first - 1 : dates.indexOf(hovered);
    const next = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: first, End: dates.length - 1 }[event.key];
    if (event.key === "Escape") leave();
    if (next === undefined) return;
    event.preventDefault();
    const date = dates[Math.max(0, Math.min(dates.length - 1, next))];
    const facts = factsOf(store.get(), date);
    if (facts === null) return;
    chart.setCrosshairPosition(facts.candle?.close ?? facts.fans[facts.fans.length - 1].median, date, candles);
    store.set({ hovered: date });
    byId("spoken").textContent = spokenOf(facts);
  });
  const leave = () => {
    chart.clearCrosshairPosition();
    store.set({ hovered: null });
  };
  element.addEventListener("blur", leave);
}

/**
 * @param {any} time as the library gives it: "2025-06-10", or {year, month, day}
 * @returns {string}
 */
function isoDate(time) {
  if (typeof time === "string") return time;
  return `${time.year}-${String(time.month).padStart(2, "0")}-${String(time.day).padStart(2, "0")}`;
}
