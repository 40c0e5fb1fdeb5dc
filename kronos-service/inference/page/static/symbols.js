/** The field that finds a symbol: an ARIA combobox with a list below it. */

import { ApiError } from "./api.js";
import { byId, debounced, make } from "./dom.js";
import { counted, shortDate } from "./words.js";

const MOST_SHOWN = 50;
/** A search goes out once typing rests, milliseconds. */
const REST = 120;

/** @typedef {{symbol: string, asset_class: string, last_bar: string, bars: number, stale_sessions: number, is_stale: boolean}} Found */

/** @param {import("./app.js").Page} page */
export function mountSymbols({ api, store }) {
  const field = /** @type {HTMLInputElement} */ (byId("symbol"));
  const list = byId("symbol-list");
  let searching = new AbortController();
  /** @type {Found[]} */
  let found = [];
  let active = -1;

  /** @param {string} text */
  async function search(text) {
    searching.abort();
    searching = new AbortController();
    const { signal } = searching;
    const query = new URLSearchParams({ search: text, most: String(MOST_SHOWN) });
    try {
      const answer = await api.get(`/v1/symbols?${query}`, { signal });
      if (!signal.aborted) open(answer.symbols, answer.matching, text);
    } catch (error) {
      if (!signal.aborted && !(error instanceof ApiError)) throw error;
    }
  }
  const searchAtRest = debounced((/** @type {string} */ text) => void search(text), REST);

  /** @type {(symbols: Found[], matching: number, text: string) => void} */
  function open(symbols, matching, text) {
    found = symbols;
    const options = symbols.map((one, at) => {
      const option = make(
        "li",
        { role: "option", id: `symbol-${at}`, "aria-selected": "false" },
        make("span", { class: "option-name" }, one.symbol),
        make("span", { class: "option-more" }, `${one.asset_class.replace("_", " ")}, to ${shortDate(one.last_bar)}${one.is_stale ? ", stale" : ""}`),
      );
      // before the field loses its focus, which would close the list
      option.addEventListener("pointerdown", (event) => {
        event.preventDefault();
        choose(one.symbol);
      });
      return option;
    });
    const more = matching - symbols.length;
    const note = matching === 0 ? `No symbol contains “${text}”.` : more > 0 ? `${counted(more, "more symbol")}: type more of the name.` : null;
    list.replaceChildren(...options, ...(note === null ? [] : [make("li", { role: "option", "aria-disabled": "true", "aria-selected": "false", class: "option-note" }, note)]));
    list.hidden = false;
    field.setAttribute("aria-expanded", "true");
    activate(symbols.length > 0 && text !== "" ? 0 : symbols.findIndex((one) => one.symbol === store.get().choice.symbol));
  }

  function close() {
    searching.abort();
    list.hidden = true;
    field.setAttribute("aria-expanded", "false");
    field.removeAttribute("aria-activedescendant");
    field.value = store.get().choice.symbol;
  }

  /** @param {number} at */
  function activate(at) {
    active = at;
    for (const [number, option] of [...list.children].entries()) option.setAttribute("aria-selected", String(number === at));
    const option = at < 0 ? null : list.children[at];
    if (option === null || option === undefined) field.removeAttribute("aria-activedescendant");
    else {
      field.setAttribute("aria-activedescendant", option.id);
      option.scrollIntoView({ block: "nearest" });
    }
  }

  /** @param {string} symbol */
  function choose(symbol) {
    const { choice } = store.get();
    // another symbol has other sessions, but what is supposed of the calendar may still fit: outlook.js says what does not
    if (symbol !== choice.symbol) store.set({ choice: { ...choice, symbol } });
    close();
  }

  field.addEventListener("focus", () => {
    field.select();
    void search("");
  });
  field.addEventListener("click", () => {
    if (list.hidden) void search("");
  });
  field.addEventListener("input", () => searchAtRest(field.value.trim()));
  field.addEventListener("blur", close);
  field.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (list.hidden) void search("");
      else if (found.length > 0) activate((active + (event.key === "ArrowDown" ? 1 : -1) + found.length) % found.length);
    } else if (event.key === "Enter") {
      event.preventDefault();
      // a list that has not come yet is not what was typed: the service says whether there is such a symbol
      if (!list.hidden && active >= 0 && found[active] !== undefined) choose(found[active].symbol);
      else if (field.value.trim() !== "") choose(field.value.trim());
    } else if (event.key === "Escape" && !list.hidden) {
      event.preventDefault();
      close();
    }
  });

  const show = () => {
    if (document.activeElement !== field || list.hidden) field.value = store.get().choice.symbol;
  };
  store.on(["choice"], show);
  show();
}
