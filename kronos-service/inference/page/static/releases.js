/**
 * Scheduled releases as a reader counts them: one rate decision, though the calendar lists statement and press conference.
 *
 * The model has one channel a family; types of one family on one bar are one input to it, and one line on the page.
 */

import { eventName } from "./words.js";

/** @typedef {import("./outlook.js").Release} Release */
/**
 * @typedef {object} Group
 * @property {string} date session date of the bar
 * @property {string} name short
 * @property {string} type event type that stands for the group in a scenario
 * @property {string[]} types all of them
 * @property {string} at UTC time of the first
 * @property {"high" | "medium" | "low"} impact the highest
 * @property {string} called what the calendar itself calls them; "" where that says no more
 * @property {number | null} z the largest surprise, of past ones with figures
 */

/** Families whose types are separate releases by separate offices. */
const SEPARATE = new Set(["sentiment_and_labour"]);
/** Family -> the type that carries the figure. */
const FIGURE = new Map([["fomc_rate", "fomc_rate_decision"]]);
const IMPACTS = /** @type {const} */ (["high", "medium", "low"]);

/**
 * Releases grouped by bar and family, in order of time.
 *
 * @param {readonly Release[]} releases
 * @returns {Group[]}
 */
export function grouped(releases) {
  const groups = Map.groupBy(releases, (one) => `${one.date} ${SEPARATE.has(one.family) ? one.event_type : one.family}`);
  return [...groups.values()].map((events) => {
    const types = [...new Set(events.map((one) => one.event_type))];
    const figure = FIGURE.get(events[0].family);
    const type = figure !== undefined && types.includes(figure) ? figure : types[0];
    const surprises = events.flatMap((one) => (typeof one.z === "number" ? [one.z] : []));
    return {
      date: events[0].date,
      name: eventName(type),
      type,
      types,
      at: events[0].release_at,
      impact: IMPACTS.find((impact) => events.some((one) => one.impact === impact)) ?? "low",
      called: [...new Set(events.map((one) => one.name ?? "").filter((name) => saysMore(name, types)))].join(", "),
      z: surprises.length === 0 ? null : surprises.reduce((one, other) => (Math.abs(other) > Math.abs(one) ? other : one)),
    };
  });
}

/**
 * Names of the high-impact releases among these.
 *
 * @param {readonly Release[]} releases
 */
export const highNames = (releases) => [...new Set(grouped(releases).flatMap((one) => (one.impact === "high" ? [one.name] : [])))];

/**
 * Whether a calendar's name is more than the words of the type.
 *
 * @param {string} name
 * @param {string[]} types
 */
function saysMore(name, types) {
  const plain = (/** @type {string} */ text) => text.toLowerCase().replaceAll(/[^a-z]+/g, " ").trim();
  return name !== "" && !types.some((type) => plain(type) === plain(name));
}
