/** Figures, dates and names as a reader wants them. */

const LOCALE = "en-GB";
const DAY = new Intl.DateTimeFormat(LOCALE, { weekday: "short", day: "numeric", month: "short", timeZone: "UTC" });
const SHORT_DAY = new Intl.DateTimeFormat(LOCALE, { day: "numeric", month: "short", timeZone: "UTC" });
const FULL_DAY = new Intl.DateTimeFormat(LOCALE, { day: "numeric", month: "long", year: "numeric", timeZone: "UTC" });
const CLOCK = new Intl.DateTimeFormat(LOCALE, { hour: "2-digit", minute: "2-digit", timeZoneName: "short" });

/** Event types of the taxonomy whose name is not simply its words. */
const EVENT_NAMES = new Map([
  ["fomc_rate_decision", "FOMC rate decision"],
  ["fomc_statement", "FOMC statement"],
  ["fomc_press_conference", "FOMC press conference"],
  ["fomc_minutes", "FOMC minutes"],
  ["cpi", "CPI"],
  ["core_cpi", "Core CPI"],
  ["pce", "PCE"],
  ["core_pce", "Core PCE"],
  ["ppi", "PPI"],
  ["nfp", "Payrolls"],
  ["gdp", "GDP"],
  ["ism_manufacturing", "ISM manufacturing"],
  ["ism_services", "ISM services"],
  ["jolts", "JOLTS"],
]);

/**
 * The name of an event type; one that is not known is shown by its words.
 *
 * @param {string} type such as core_cpi
 */
export function eventName(type) {
  const words = type.replaceAll("_", " ");
  return EVENT_NAMES.get(type) ?? words.charAt(0).toUpperCase() + words.slice(1);
}

/** @param {string} date ISO session date */
export const dayName = (date) => DAY.format(midnight(date));

/** @param {string} date ISO session date */
export const shortDate = (date) => SHORT_DAY.format(midnight(date));

/** @param {string} date ISO session date */
export const fullDate = (date) => FULL_DAY.format(midnight(date));

/**
 * The visitor's own clock, with its zone: "14:30 CEST".
 *
 * @param {string} moment ISO, UTC
 */
export const localTime = (moment) => CLOCK.format(new Date(moment));

/**
 * How many decimals five significant digits of a price need.
 *
 * @param {number} price
 */
export function decimalsOf(price) {
  return Math.max(0, Math.min(8, 4 - Math.floor(Math.log10(price))));
}

/**
 * @param {number} price
 * @param {number} decimals
 */
export const priceText = (price, decimals) =>
  price.toLocaleString(LOCALE, { minimumFractionDigits: decimals, maximumFractionDigits: decimals });

/**
 * A percentage with two significant digits: 0.84 %, 2.4 %, 13 %.
 *
 * @param {number} percent
 */
export function percentText(percent) {
  const size = Math.abs(percent);
  const decimals = size >= 9.95 ? 0 : size >= 0.995 ? 1 : 2;
  return `${percent.toLocaleString(LOCALE, { minimumFractionDigits: decimals, maximumFractionDigits: decimals })} %`;
}

/**
 * A change in percent with its sign, a true minus.
 *
 * @param {number} percent
 */
export function changeText(percent) {
  const text = percentText(Math.abs(percent));
  return /[1-9]/.test(text) ? `${percent < 0 ? "−" : "+"}${text}` : text;
}

/**
 * Standard deviations with their sign: "+2.0 σ".
 *
 * @param {number} z
 */
export function sigmaText(z) {
  if (z === 0) return "0 σ";
  return `${z < 0 ? "−" : "+"}${Math.abs(z).toLocaleString(LOCALE, { minimumFractionDigits: 1, maximumFractionDigits: 2 })} σ`;
}

/**
 * @param {number} count
 * @param {string} one
 * @param {string} [many]
 */
export const counted = (count, one, many = `${one}s`) => `${count.toLocaleString(LOCALE)} ${count === 1 ? one : many}`;

/** @param {string} date */
function midnight(date) {
  return new Date(`${date}T00:00:00Z`);
}
