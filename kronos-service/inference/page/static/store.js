/** What the page knows, and who wants to hear of it. */

/**
 * @template {object} S
 * @typedef {object} Store
 * @property {() => Readonly<S>} get
 * @property {(changes: Partial<S>) => void} set tells every subscriber, unless nothing changed
 * @property {(names: (keyof S)[], listener: (state: Readonly<S>) => void) => () => void} on
 *   called after any of these names changed; gives what ends it
 */

/**
 * One object whose parts are replaced, never altered: a part that is the same object has not changed.
 *
 * @template {object} S
 * @param {S} initial
 * @returns {Store<S>}
 */
export function createStore(initial) {
  let state = Object.freeze({ ...initial });
  /** @type {Set<{names: Set<keyof S>, listener: (state: Readonly<S>) => void}>} */
  const listeners = new Set();
  return {
    get: () => state,
    set(changes) {
      const names = /** @type {(keyof S)[]} */ (Object.keys(changes)).filter((name) => changes[name] !== state[name]);
      if (names.length === 0) return;
      state = Object.freeze({ ...state, ...changes });
      for (const one of [...listeners]) {
        if (names.some((name) => one.names.has(name))) one.listener(state);
      }
    },
    on(names, listener) {
      const one = { names: new Set(names), listener };
      listeners.add(one);
      return () => listeners.delete(one);
    },
  };
}
