/**
 * What the visitor has chosen, as the fragment of the page's address: a link holds all of it.
 *
 * The fragment is never sent to a server, so neither logs nor proxies see what somebody supposes. No key is part of it.
 */

/**
 * @typedef {object} Surprise what if a release differs from its forecast
 * @property {string} date session date of the bar that it falls on
 * @property {string} event_type
 * @property {number} z standard deviations
 */
/**
 * @typedef {object} Move what if a leader moves on one bar
 * @property {string} date
 * @property {string} leader
 * @property {number} z standard deviations
 */
/**
 * @typedef {object} Scenario
 * @property {readonly Surprise[]} surprises
 * @property {readonly Move[]} leaders
 */
/**
 * @typedef {object} Choice
 * @property {string} symbol "": the first that the service has
 * @property {string | null} asOf ISO date; null: the latest bar
 * @property {number} horizon bars
 * @property {number} seed
 * @property {Scenario} scenario
 */

/** @type {Scenario} */
export const NOTHING_SUPPOSED = Object.freeze({ surprises: Object.freeze([]), leaders: Object.freeze([]) });
export const MOST_HORIZON = 64;
export const MOST_SIGMAS = 3;

/** @type {Readonly<Choice>} */
const DEFAULTS = Object.freeze({ symbol: "", asOf: null, horizon: 10, seed: 0, scenario: NOTHING_SUPPOSED });

/**
 * Read a fragment; what makes no sense is as if it were not there, for links are typed and cut off.
 *
 * @param {string} fragment with or without "#"
 * @returns {Choice}
 */
export function readAddress(fragment) {
  const given = new URLSearchParams(fragment.replace(/^#/, ""));
  const asOf = given.get("as_of");
  return {
    symbol: (given.get("symbol") ?? DEFAULTS.symbol).slice(0, 64),
    asOf: asOf !== null && isDate(asOf) ? asOf : null,
    horizon: wholeNumber(given.get("horizon"), 1, MOST_HORIZON) ?? DEFAULTS.horizon,
    seed: wholeNumber(given.get("seed"), 0, Number.MAX_SAFE_INTEGER) ?? DEFAULTS.seed,
    scenario: {
      surprises: given.getAll("if").flatMap((text) => supposed(text, (date, event_type, z) => ({ date, event_type, z }))),
      leaders: given.getAll("move").flatMap((text) => supposed(text, (date, leader, z) => ({ date, leader, z }))),
    },
  };
}

/**
 * The fragment of a choice, without "#"; what is as by default is left out.
 *
 * @param {Choice} choice
 * @returns {string}
 */
export function writeAddress(choice) {
  const given = new URLSearchParams();
  if (choice.symbol !== "") given.set("symbol", choice.symbol);
  if (choice.asOf !== null) given.set("as_of", choice.asOf);
  given.set("horizon", String(choice.horizon));
  if (choice.seed !== DEFAULTS.seed) given.set("seed", String(choice.seed));
  for (const { date, event_type, z } of choice.scenario.surprises) given.append("if", `${event_type}@${date}:${z}`);
  for (const { date, leader, z } of choice.scenario.leaders) given.append("move", `${leader}@${date}:${z}`);
  // "@" and ":" may stand in a fragment as they are, and a link is easier to read so
  return given.toString().replaceAll("%40", "@").replaceAll("%3A", ":");
}

/** @param {Scenario} scenario */
export const isEmpty = (scenario) => scenario.surprises.length === 0 && scenario.leaders.length === 0;

/**
 * @template T
 * @param {string} text NAME@DATE:Z
 * @param {(date: string, name: string, z: number) => T} build
 * @returns {T[]} none if it is not of that form
 */
function supposed(text, build) {
  const parts = /^([A-Za-z0-9_]{1,64})@(\d{4}-\d{2}-\d{2}):([+-]?\d+(?:\.\d+)?)$/.exec(text);
  if (parts === null || !isDate(parts[2])) return [];
  const z = Math.max(-MOST_SIGMAS, Math.min(MOST_SIGMAS, Number(parts[3])));
  return z === 0 ? [] : [build(parts[2], parts[1], z)];
}

/** @param {string} text */
function isDate(text) {
  return /^\d{4}-\d{2}-\d{2}$/.test(text) && !Number.isNaN(Date.parse(`${text}T00:00:00Z`));
}

/**
 * @param {string | null} text
 * @param {number} least
 * @param {number} most
 */
function wholeNumber(text, least, most) {
  if (text === null || !/^\d+$/.test(text)) return null;
  const value = Number(text);
  return value >= least && value <= most ? value : null;
}
