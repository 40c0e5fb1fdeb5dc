/**
 * The forecasts that the page shows: of the base and of the adapter, and of the adapter in the visitor's scenario.
 *
 * A choice that is overtaken by the next one is aborted: the service drops what it has not begun. All forecasts draw
 * with the same seed, so only the adapter, and what it is told, make them differ.
 */

import { ApiError } from "./api.js";
import { NOTHING_SUPPOSED, isEmpty } from "./address.js";
import { byId, debounced } from "./dom.js";
import { eventName, shortDate } from "./words.js";

/** @typedef {import("./address.js").Scenario} Scenario */
/**
 * @typedef {object} BarColumns
 * @property {string[]} ts session dates
 * @property {number[]} open
 * @property {number[]} high
 * @property {number[]} low
 * @property {number[]} close
 * @property {number[]} volume
 */
/**
 * @typedef {object} Release
 * @property {string} date session date of the bar
 * @property {string} event_type
 * @property {string} family
 * @property {"high" | "medium" | "low"} impact
 * @property {string} release_at UTC
 * @property {string} [name] what the calendar calls it
 * @property {number | null} [z] surprise, of a past one that has figures
 */
/**
 * @typedef {object} Bars what GET /v1/bars gives
 * @property {string} symbol
 * @property {BarColumns} bars up to as_of
 * @property {BarColumns} after what came later
 * @property {string} last_bar of the whole series
 * @property {Release[]} events on those bars
 * @property {Release[]} ahead on the bars after as_of, as known then
 * @property {Record<string, string[]>} leaders the next bar dates on which each leader trades
 */
/**
 * @typedef {object} Forecast one series of POST /v1/forecast
 * @property {string[]} dates
 * @property {number} last_close
 * @property {Record<string, {open: number[], high: number[], low: number[], close: number[]}>} quantiles
 * @property {Record<string, number[]>} moves quantiles of each bar's own move, percent
 * @property {Release[]} events on the forecast bars
 * @property {{leader: string, last_bar: string | null}[]} missing_leaders
 * @property {string} last_bar
 * @property {number} stale_sessions
 * @property {boolean} is_stale
 * @property {string} as_of
 * @property {string} calendar_until
 * @property {number} bars_used
 */
/**
 * @typedef {object} Outlook
 * @property {Bars} bars
 * @property {Forecast} base
 * @property {Forecast | null} adapter null: no adapter serves
 * @property {any} model what computed the adapter's forecast
 * @property {number} paths sample paths of each forecast
 * @property {boolean} isPast whether bars are known that came after as_of
 */
/**
 * @typedef {object} Supposed
 * @property {Scenario} scenario that it was computed for
 * @property {Forecast} forecast
 */

/** Ends of the bands of 50, 80 and 90 %, and the median. */
const LEVELS = [0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95];
/**
 * Sample paths: as many as the embedded base answers within 300 ms on one core, but enough that the ends of the 90 %
 * band are not single paths.
 */
const BAR_BUDGET = 640;
const FEWEST_PATHS = 50;
const MOST_PATHS = 100;
/** Milliseconds that an answer may take: a service that has just started expects the worst of itself. */
const PATIENCE = 30_000;
const LONGEST_PAST = 160;
/** A slider that moves asks once it rests, milliseconds. */
const REST = 30;

/**
 * Keep `outlook` and `supposed` in the store as the choice and the serving version say.
 *
 * @param {import("./app.js").Page} page
 */
export function followOutlook({ api, store, announce }) {
  let loading = new AbortController();
  let supposing = new AbortController();
  /** @type {Scenario | null} the one that is being asked about */
  let answering = null;
  /** When the scenario changed last. */
  let moved = performance.now();
  let asked = "";
  let askedVersion = "";

  async function load() {
    const { choice, status } = store.get();
    asked = keyOf(choice);
    askedVersion = versionOf(status);
    loading.abort();
    supposing.abort();
    answering = null;
    loading = new AbortController();
    const { signal } = loading;
    showBusy(true);
    byId("empty").textContent = "Asking for the forecast …";
    try {
      const symbol = choice.symbol || (await firstSymbol(api, signal));
      const paths = pathsFor(choice.horizon, status.limits);
      const ask = (/** @type {object} */ more) => api.post("/v1/forecast", question(symbol, choice, paths, status.limits, more), { signal });
      const where = new URLSearchParams({ symbol, most: String(LONGEST_PAST) });
      if (choice.asOf !== null) where.set("as_of", choice.asOf);
      const [bars, base, told] = await Promise.all([
        api.get(`/v1/bars?${where}`, { signal }),
        ask({ model: "base" }),
        ask({}),
      ]);
      signal.throwIfAborted();
      const adapter = told.model.version === null ? null : told.series[0];
      for (const event of adapter?.events ?? []) event.name = nameOf(bars, event);
      const outlook = { bars, base: base.series[0], adapter, model: told.model, paths, isPast: bars.after.ts.length > 0 };
      announce.trouble("forecast", null);
      asked = keyOf({ ...choice, symbol });
      store.set({ outlook, supposed: null, hovered: null, choice: fitting({ ...store.get().choice, symbol }, outlook, announce) });
      performance.mark("fan");
      void suppose();
    } catch (error) {
      if (signal.aborted) return;
      announce.trouble("forecast", wordsOf(error));
      store.set({ outlook: null, supposed: null });
      byId("empty").textContent = "There is no forecast to show.";
    } finally {
      if (!signal.aborted) showBusy(false);
    }
  }

  async function suppose() {
    const { choice, outlook, supposed, status } = store.get();
    if (choice.scenario === answering) return;
    supposing.abort();
    supposing = new AbortController();
    const { signal } = supposing;
    answering = null;
    if (outlook === null || outlook.adapter === null || isEmpty(choice.scenario)) {
      announce.trouble("scenario", null);
      store.set({ supposed: null });
      return;
    }
    if (supposed?.scenario === choice.scenario) return;
    answering = choice.scenario;
    try {
      const asked = question(outlook.bars.symbol, choice, outlook.paths, status.limits, { scenario: choice.scenario });
      const told = await api.post("/v1/forecast", asked, { signal });
      signal.throwIfAborted();
      announce.trouble("scenario", null);
      store.set({ supposed: { scenario: choice.scenario, forecast: told.series[0] } });
      performance.measure("what-if", { start: moved });
    } catch (error) {
      if (signal.aborted) return;
      announce.trouble("scenario", wordsOf(error));
      store.set({ supposed: null });
    } finally {
      if (!signal.aborted) answering = null;
    }
  }

  const supposeAtRest = debounced(() => void suppose(), REST);
  store.on(["choice", "status"], ({ choice, status, supposed }) => {
    // nothing is asked of a service that says it cannot answer: the next status may say that it can
    if (!status?.ready) return;
    if (keyOf(choice) !== asked || versionOf(status) !== askedVersion) void load();
    else if (supposed?.scenario !== choice.scenario && answering !== choice.scenario) {
      moved = performance.now();
      supposeAtRest();
    }
  });
}

/**
 * Everything chosen that the forecasts depend on but for the scenario.
 *
 * @param {import("./address.js").Choice} choice
 */
const keyOf = ({ symbol, asOf, horizon, seed }) => JSON.stringify([symbol, asOf, horizon, seed]);

/**
 * What makes the same question have another answer.
 *
 * @param {any} status
 */
const versionOf = (status) => JSON.stringify([status.serving?.digest, status.source?.last_bar]);

/** @param {boolean} isBusy */
const showBusy = (isBusy) => byId("forecast").setAttribute("aria-busy", String(isBusy));

/**
 * @param {number} horizon bars
 * @param {{max_paths: number}} limits the operator's
 */
function pathsFor(horizon, limits) {
  const wanted = Math.round(BAR_BUDGET / horizon);
  return Math.min(Math.max(FEWEST_PATHS, Math.min(MOST_PATHS, wanted)), limits.max_paths);
}

/**
 * @param {string} symbol
 * @param {import("./address.js").Choice} choice
 * @param {number} paths
 * @param {{max_deadline_ms: number}} limits the operator's
 * @param {object} more
 */
function question(symbol, { asOf, horizon, seed }, paths, limits, more) {
  const series = [{ symbol, ...(asOf === null ? {} : { as_of: asOf }) }];
  return { series, horizon, seed, paths, quantiles: LEVELS, deadline_ms: Math.min(PATIENCE, limits.max_deadline_ms), ...more };
}

/**
 * @param {import("./api.js").Api} api
 * @param {AbortSignal} signal
 * @returns {Promise<string>}
 */
async function firstSymbol(api, signal) {
  const { symbols } = await api.get("/v1/symbols?most=50", { signal });
  if (symbols.length === 0) throw new ApiError(422, "The service has no symbol with enough bars to forecast.");
  // SPY, where there is one, is what most people know
  return symbols.find((/** @type {any} */ one) => one.symbol === "SPY")?.symbol ?? symbols[0].symbol;
}

/**
 * What the calendar calls a release, which the forecast's own list does not tell.
 *
 * @param {Bars} bars
 * @param {Release} event
 */
const nameOf = (bars, event) => bars.ahead.find((one) => one.date === event.date && one.event_type === event.event_type)?.name ?? "";

/**
 * The choice without suppositions that do not fit the forecast bars: after another date or horizon, or from an old link.
 *
 * @param {import("./address.js").Choice} choice
 * @param {Outlook} outlook
 * @param {import("./announcer.js").Announcer} announce
 * @returns {import("./address.js").Choice}
 */
function fitting(choice, outlook, announce) {
  const { scenario } = choice;
  if (outlook.adapter === null || isEmpty(scenario)) return choice;
  const { dates, events } = outlook.adapter;
  // what happens on the last bar has no bar after it that could react
  const reacting = new Set(dates.slice(0, -1));
  const surprises = scenario.surprises.filter(
    (one) => reacting.has(one.date) && events.some((event) => event.date === one.date && event.event_type === one.event_type),
  );
  const leaders = scenario.leaders.filter(
    (one) => reacting.has(one.date) && trades(outlook.bars, one.leader, one.date),
  );
  const dropped = [
    ...scenario.surprises.filter((one) => !surprises.includes(one)).map((one) => `${eventName(one.event_type)} on ${shortDate(one.date)}`),
    ...scenario.leaders.filter((one) => !leaders.includes(one)).map((one) => `${one.leader} on ${shortDate(one.date)}`),
  ];
  if (dropped.length === 0) return choice;
  announce.news(`Left out of the what-if, because no later forecast bar could react to it: ${dropped.join(", ")}.`);
  const kept = { surprises, leaders };
  return { ...choice, scenario: isEmpty(kept) ? NOTHING_SUPPOSED : kept };
}

/**
 * Whether a leader has a session on a bar's date: on others it cannot move.
 *
 * @param {Bars} bars
 * @param {string} leader
 * @param {string} date
 */
export const trades = (bars, leader, date) => (bars.leaders[leader] ?? []).includes(date);

/** @param {unknown} error */
function wordsOf(error) {
  if (!(error instanceof ApiError)) throw error;
  return error.fields.length > 0 ? error.fields.map((field) => field.message).join(" ") : error.message;
}
