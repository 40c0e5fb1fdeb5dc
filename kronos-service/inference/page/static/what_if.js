/**
 * What if a release surprises, or a leader moves: a slider for each, from -3 to +3 standard deviations.
 *
 * What is supposed of a bar moves the bars after it, so the last bar has no slider. At 0 nothing is supposed.
 */

import { MOST_SIGMAS, NOTHING_SUPPOSED, isEmpty } from "./address.js";
import { byId, make } from "./dom.js";
import { trades } from "./outlook.js";
import { grouped } from "./releases.js";
import { changeText, dayName, localTime, shortDate, sigmaText } from "./words.js";

/** @typedef {import("./address.js").Scenario} Scenario */
/** @typedef {import("./outlook.js").Outlook} Outlook */

const STEP = 0.25;

/** @param {import("./app.js").Page} page */
export function mountWhatIf({ store }) {
  const place = byId("sliders");
  const reset = /** @type {HTMLButtonElement} */ (byId("reset"));
  /** @type {string | null} bar on which leaders are supposed to move; null: the first on which any can */
  let moveDate = null;
  /** @type {Outlook | null} whose sliders are there */
  let built = null;

  /** @param {Scenario} scenario */
  const suppose = (scenario) => {
    const { choice } = store.get();
    store.set({ choice: { ...choice, scenario: isEmpty(scenario) ? NOTHING_SUPPOSED : scenario } });
  };

  /** @type {(date: string, event_type: string, z: number) => void} */
  const surprise = (date, event_type, z) => {
    const { scenario } = store.get().choice;
    const others = scenario.surprises.filter((one) => one.date !== date || one.event_type !== event_type);
    suppose({ ...scenario, surprises: z === 0 ? others : [...others, { date, event_type, z }] });
  };

  /** @type {(date: string, leader: string, z: number) => void} */
  const move = (date, leader, z) => {
    const { scenario } = store.get().choice;
    const others = scenario.leaders.filter((one) => one.leader !== leader);
    suppose({ ...scenario, leaders: z === 0 ? others : [...others, { date, leader, z }] });
  };

  /** @param {Outlook} outlook */
  function build(outlook) {
    const { adapter, bars } = outlook;
    if (adapter === null) {
      place.replaceChildren(make("p", { class: "hint" }, "No adapter serves, and the plain base knows no events: nothing would change."));
      return;
    }
    const dates = adapter.dates.slice(0, -1);
    const { scenario } = store.get().choice;
    moveDate = scenario.leaders[0]?.date ?? (moveDate !== null && dates.includes(moveDate) ? moveDate : (dates[0] ?? null));
    place.replaceChildren(...releases(adapter, scenario, surprise), ...leaders(bars, dates, scenario));
  }

  /** @type {(bars: import("./outlook.js").Bars, dates: string[], scenario: Scenario) => HTMLElement[]} */
  function leaders(bars, dates, scenario) {
    if (moveDate === null) return [make("p", { class: "hint" }, "A horizon of 2 bars or more has bars that can react.")];
    const day = /** @type {HTMLSelectElement} */ (
      make("select", { id: "move-date" }, ...dates.map((date) => make("option", { value: date, selected: date === moveDate }, dayName(date))))
    );
    day.addEventListener("change", () => {
      moveDate = day.value;
      const { scenario: now } = store.get().choice;
      const kept = now.leaders.filter((one) => trades(bars, one.leader, day.value));
      suppose({ ...now, leaders: kept.map((one) => ({ ...one, date: day.value })) });
      rebuild();
    });
    const on = moveDate;
    const sliders = Object.keys(bars.leaders).map((leader) => {
      const isOpen = trades(bars, leader, on);
      const z = scenario.leaders.find((one) => one.leader === leader)?.z ?? 0;
      return slider(`move-${leader}`, leader, isOpen ? "" : "does not trade on this bar", z, isOpen, (value) => move(on, leader, value));
    });
    const head = make("div", { class: "group-head" }, make("h3", {}, "A leader moves on"), day);
    day.setAttribute("aria-label", "Bar on which the leaders move");
    return [make("section", { class: "group", "aria-label": "Leaders" }, head, ...sliders)];
  }

  function rebuild() {
    const { outlook } = store.get();
    built = outlook;
    if (outlook === null) place.replaceChildren();
    else build(outlook);
  }

  /** Show what is supposed where it was not a slider that changed it: reset, a link, "back". */
  function follow() {
    const { scenario } = store.get().choice;
    reset.disabled = isEmpty(scenario);
    const moved = scenario.leaders[0]?.date;
    if (moved !== undefined && moved !== moveDate) return rebuild();
    for (const input of /** @type {NodeListOf<HTMLInputElement>} */ (place.querySelectorAll("input[type=range]"))) {
      const [kind, name, date] = input.id.split("|");
      const z = kind.startsWith("move-")
        ? scenario.leaders.find((one) => `move-${one.leader}` === kind)?.z
        : scenario.surprises.find((one) => one.event_type === name && one.date === date)?.z;
      if (document.activeElement !== input || Number(input.value) !== (z ?? 0)) paint(input, z ?? 0);
    }
  }

  reset.addEventListener("click", () => suppose(NOTHING_SUPPOSED));
  store.on(["outlook"], ({ outlook }) => {
    if (outlook !== built) rebuild();
  });
  store.on(["choice"], follow);
  store.on(["choice", "outlook", "supposed"], (state) => {
    byId("what-if-line").textContent = headline(state);
  });
  follow();
}

/**
 * A slider for each release; those of one bar stand together, for they share one channel.
 *
 * @param {import("./outlook.js").Forecast} adapter
 * @param {Scenario} scenario
 * @param {(date: string, event_type: string, z: number) => void} surprise
 * @returns {HTMLElement[]}
 */
function releases(adapter, scenario, surprise) {
  const last = adapter.dates[adapter.dates.length - 1];
  if (adapter.events.length === 0) return [make("p", { class: "hint" }, `No release is scheduled on these bars; the calendar reaches ${shortDate(adapter.calendar_until)}.`)];
  return [...Map.groupBy(grouped(adapter.events), (one) => one.date)].map(([date, groups]) => {
    const isLast = date === last;
    const rows = groups.map(({ name, called, at, impact, type, types }) => {
      // a link may name any type of the family
      const given = scenario.surprises.find((one) => one.date === date && types.includes(one.event_type));
      const more = [localTime(at), `${impact} impact`, ...(called === "" ? [] : [called])].join(", ");
      return isLast
        ? make("p", { class: "release" }, make("span", { class: "slider-name" }, name), make("span", { class: "slider-more" }, more))
        : slider(`if|${given?.event_type ?? type}|${date}`, name, more, given?.z ?? 0, true, (value) => surprise(date, given?.event_type ?? type, value));
    });
    const note = isLast ? make("p", { class: "hint" }, "On the last bar: no later bar could react.") : null;
    return make("section", { class: "group", "aria-label": dayName(date) }, make("div", { class: "group-head" }, make("h3", {}, dayName(date))), ...rows, note);
  });
}

/**
 * @param {string} id
 * @param {string} name
 * @param {string} more
 * @param {number} z
 * @param {boolean} isEnabled
 * @param {(z: number) => void} changed
 */
function slider(id, name, more, z, isEnabled, changed) {
  const input = /** @type {HTMLInputElement} */ (
    make("input", { type: "range", id, min: String(-MOST_SIGMAS), max: String(MOST_SIGMAS), step: String(STEP), disabled: !isEnabled })
  );
  const value = make("output", { class: "slider-value", for: id });
  const row = make(
    "div",
    { class: "slider" },
    make("label", { for: id }, make("span", { class: "slider-name" }, name), make("span", { class: "slider-more" }, more)),
    value,
    input,
  );
  input.addEventListener("input", () => {
    paint(input, input.valueAsNumber);
    changed(input.valueAsNumber);
  });
  paint(input, z);
  return row;
}

/**
 * Show a value: the thumb, the words beside it, and the bar from the middle to the thumb.
 *
 * @param {HTMLInputElement} input
 * @param {number} z
 */
function paint(input, z) {
  input.value = String(z);
  input.setAttribute("aria-valuetext", z === 0 ? "as forecast" : `${z > 0 ? "plus" : "minus"} ${Math.abs(z)} sigma`);
  const share = 50 + (50 * z) / MOST_SIGMAS;
  input.style.setProperty("--from", `${Math.min(50, share)}%`);
  input.style.setProperty("--to", `${Math.max(50, share)}%`);
  const value = input.parentElement?.querySelector("output");
  if (value) value.textContent = sigmaText(z);
  input.closest(".slider")?.classList.toggle("is-set", z !== 0);
}

/**
 * What the scenario does to the forecast, in a line.
 *
 * @param {import("./app.js").State} state
 */
function headline({ choice, outlook, supposed }) {
  if (outlook === null || outlook.adapter === null) return "";
  const { scenario } = choice;
  if (isEmpty(scenario)) return "Move a slider: the forecast answers, and the one without it stays as a ghost.";
  if (supposed === null || supposed.scenario !== scenario) return "…";
  const { adapter } = outlook;
  const first = [...scenario.surprises, ...scenario.leaders].map((one) => one.date).sort()[0];
  const after = adapter.dates.indexOf(first) + 1;
  const end = adapter.dates.length - 1;
  const change = (/** @type {number} */ step) => 100 * (supposed.forecast.quantiles["0.5"].close[step] / adapter.quantiles["0.5"].close[step] - 1);
  const next = `The median close of ${dayName(adapter.dates[after])} moves by ${changeText(change(after))}`;
  return after === end ? `${next}.` : `${next}, that of ${dayName(adapter.dates[end])} by ${changeText(change(end))}.`;
}
