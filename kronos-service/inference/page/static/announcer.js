/** What is said aloud and shown above the chart: trouble until it ends, news for a moment. */

import { byId } from "./dom.js";

const NEWS_SECONDS = 6;

/** @typedef {"service" | "status" | "forecast" | "scenario"} Source whose trouble it is: each has one at a time */
/**
 * @typedef {object} Announcer
 * @property {(source: Source, message: string | null) => void} trouble shown until the same source says null
 * @property {(message: string) => void} news shown for a few seconds, unless there is trouble
 */

/** @returns {Announcer} */
export function createAnnouncer() {
  const element = byId("notice");
  /** @type {Map<Source, string>} */
  const troubles = new Map();
  /** @type {number | undefined} */
  let timer;

  function showTrouble() {
    clearTimeout(timer);
    element.textContent = [...troubles.values()].join(" ");
    element.classList.toggle("is-trouble", troubles.size > 0);
  }

  return {
    trouble(source, message) {
      if ((troubles.get(source) ?? null) === message) return;
      if (message === null) troubles.delete(source);
      else troubles.set(source, message);
      showTrouble();
    },
    news(message) {
      if (troubles.size > 0) return;
      element.textContent = message;
      clearTimeout(timer);
      timer = setTimeout(showTrouble, 1000 * NEWS_SECONDS);
    },
  };
}
