/** What serves: GET /v1/model, again and again, so that a new version or a restart shows by itself. */

import { ApiError } from "./api.js";

const SECONDS = 2;

/**
 * @param {import("./api.js").Api} api
 * @param {import("./store.js").Store<import("./app.js").State>} store
 * @returns {() => void} asks now
 */
export function followStatus(api, store) {
  let seen = "";
  /** @type {number | undefined} */
  let timer;
  let asked = 0;

  async function ask() {
    clearTimeout(timer);
    const turn = (asked += 1);
    try {
      const status = await api.get("/v1/model");
      // the queue moves all the time, and nothing on the page shows it
      const text = JSON.stringify({ ...status, queue_depth: 0, source: { ...status.source, checked_at: null, read_at: null } });
      if (text !== seen) {
        seen = text;
        store.set({ status });
      }
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      return; // no key was given: nothing will change until the page is loaded again
    } finally {
      if (turn === asked && seen !== "") timer = setTimeout(() => void ask(), 1000 * SECONDS);
    }
  }

  document.addEventListener("visibilitychange", () => {
    // a page in the background asks nothing; back in front it asks at once
    if (document.hidden) clearTimeout(timer);
    else void ask();
  });
  void ask();
  return () => void ask();
}
