/** Light or dark: what the system asks for, until the visitor chooses. */

import { byId } from "./dom.js";

const SLOT = "kronos-theme";
const ORDER = /** @type {const} */ (["system", "light", "dark"]);
const SIGNS = { system: "◐", light: "☀", dark: "☾" };
const WORDS = { system: "as the system", light: "light", dark: "dark" };

/** @typedef {typeof ORDER[number]} Choice */

/**
 * Follow the button and the system.
 *
 * @param {() => void} changed called after the colours have changed
 */
export function followTheme(changed) {
  const button = byId("theme");
  const stored = localStorage.getItem(SLOT);
  /** @type {Choice} */
  let choice = ORDER.find((one) => one === stored) ?? "system";

  function apply() {
    if (choice === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = choice;
    button.textContent = SIGNS[choice];
    button.setAttribute("aria-label", `Colours: ${WORDS[choice]}`);
    button.title = `Colours: ${WORDS[choice]}`;
    changed();
  }

  button.addEventListener("click", () => {
    choice = ORDER[(ORDER.indexOf(choice) + 1) % ORDER.length];
    localStorage.setItem(SLOT, choice);
    apply();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changed);
  apply();
}

const probe = document.createElement("span");
probe.hidden = true;

/**
 * A colour token of style.css as it stands now, for a canvas, which knows neither variables nor light-dark().
 *
 * @param {string} name such as "adapter"
 * @returns {string} rgb(...)
 */
export function colour(name) {
  if (!probe.isConnected) document.body.append(probe);
  probe.style.color = `var(--${name})`;
  return getComputedStyle(probe).color;
}
