/** As of when, how many bars, from which seed. */

import { MOST_HORIZON } from "./address.js";
import { byId } from "./dom.js";

/** @param {import("./app.js").Page} page */
export function mountControls({ store, announce }) {
  const asOf = /** @type {HTMLInputElement} */ (byId("as-of"));
  const horizon = /** @type {HTMLInputElement} */ (byId("horizon"));
  const seed = /** @type {HTMLInputElement} */ (byId("seed"));
  const latest = /** @type {HTMLButtonElement} */ (byId("latest"));

  /** @param {Partial<import("./address.js").Choice>} changes */
  const choose = (changes) => store.set({ choice: { ...store.get().choice, ...changes } });

  byId("controls").addEventListener("submit", (event) => event.preventDefault());
  asOf.addEventListener("change", () => {
    if (asOf.value !== "" || !asOf.validity.badInput) choose({ asOf: asOf.value || null });
  });
  latest.addEventListener("click", () => choose({ asOf: null }));
  horizon.addEventListener("change", () => {
    const most = mostHorizon(store.get().status);
    const wanted = Math.round(horizon.valueAsNumber);
    const bars = Math.max(1, Math.min(most, Number.isNaN(wanted) ? store.get().choice.horizon : wanted));
    if (bars !== wanted) announce.news(`The horizon goes from 1 to ${most} bars here.`);
    horizon.value = String(bars);
    choose({ horizon: bars });
  });
  seed.addEventListener("change", () => {
    const wanted = seed.valueAsNumber;
    const fits = Number.isSafeInteger(wanted) && wanted >= 0;
    if (!fits) announce.news("A seed is a whole number from 0 on.");
    seed.value = String(fits ? wanted : store.get().choice.seed);
    if (fits) choose({ seed: wanted });
  });

  const show = () => {
    const { choice, outlook, status } = store.get();
    // what is chosen, or else the date of the bar that "latest" has turned out to be
    if (document.activeElement !== asOf) asOf.value = choice.asOf ?? lastShown(outlook) ?? "";
    asOf.max = outlook?.bars.last_bar ?? "";
    latest.disabled = choice.asOf === null;
    horizon.max = String(mostHorizon(status));
    if (document.activeElement !== horizon) horizon.value = String(choice.horizon);
    if (document.activeElement !== seed) seed.value = String(choice.seed);
  };
  store.on(["choice", "outlook", "status"], show);
  show();
}

/** @param {import("./outlook.js").Outlook | null} outlook */
function lastShown(outlook) {
  return outlook?.bars.bars.ts.at(-1) ?? null;
}

/** @param {any} status */
const mostHorizon = (status) => Math.min(MOST_HORIZON, status?.limits?.max_horizon ?? MOST_HORIZON);
