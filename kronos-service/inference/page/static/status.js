/** What serves: GET /v1/model, again and again, so that a new version or a restart shows by itself. */

import { ApiError } from "./api.js";

const SECONDS = 2;

/**
 * @param {import("./api.js").Api} api
 * @param {import("./store.js").Store<import("./app.js").State>} store
 * @param {import("./announcer.js").Announcer} announce
 * @returns {() => void} asks now
 */
export function followStatus(api, store, announce) {
  let seen = "";
  let asked = 0;
  /** @type {number | undefined} */
  let timer;

  async function ask() {
    clearTimeout(timer);
    const turn = (asked += 1);
    try {
      const status = await api.get("/v1/model");
      const text = JSON.stringify(lasting(status));
      announce.trouble("status", status.ready ? null : `The service is not ready: ${status.reason}.`);
      if (text !== seen) store.set({ status });
      seen = text;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      announce.trouble("status", error.message);
      // without a key nothing will change until the page is loaded again; anything else may pass
      if (error.status === 401 || error.status === 403) return;
    }
    if (turn === asked && !document.hidden) timer = setTimeout(() => void ask(), 1000 * SECONDS);
  }

  document.addEventListener("visibilitychange", () => {
    // a page in the background asks nothing; back in front it asks at once
    if (document.hidden) clearTimeout(timer);
    else void ask();
  });
  void ask();
  return () => void ask();
}

/**
 * A status without what moves all the time and nothing on the page shows.
 *
 * @param {any} status
 */
function lasting(status) {
  return { ...status, queue_depth: 0, source: { ...status.source, checked_at: null, read_at: null } };
}
