/** What is said aloud and shown above the chart: trouble until it ends, news for a moment. */

import { byId } from "./dom.js";

const NEWS_SECONDS = 6;

/**
 * @typedef {object} Announcer
 * @property {(message: string | null) => void} trouble shown until null is said
 * @property {(message: string) => void} news shown for a few seconds, unless there is trouble
 */

/** @returns {Announcer} */
export function createAnnouncer() {
  const element = byId("notice");
  /** @type {string | null} */
  let trouble = null;
  /** @type {number | undefined} */
  let timer;

  /** @param {string | null} message */
  function show(message) {
    element.textContent = message ?? "";
    element.classList.toggle("is-trouble", trouble !== null);
  }

  return {
    trouble(message) {
      clearTimeout(timer);
      trouble = message;
      show(message);
    },
    news(message) {
      if (trouble !== null) return;
      show(message);
      clearTimeout(timer);
      timer = setTimeout(() => show(trouble), 1000 * NEWS_SECONDS);
    },
  };
}
