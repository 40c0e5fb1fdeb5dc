/** Elements, made without markup: whatever a name contains, it is text. */

/**
 * The element of this id, which index.html has.
 *
 * @param {string} id
 * @returns {HTMLElement}
 */
export function byId(id) {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`index.html has no #${id}`);
  return found;
}

/**
 * An element with attributes and children; strings become text nodes, so nothing in them is ever parsed.
 *
 * @param {string} tag
 * @param {Record<string, string | boolean | null | undefined>} [attributes] true: present without a value; null, false: absent
 * @param {...(Node | string | null)} children null is left out
 * @returns {HTMLElement}
 */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/**
 * Call `work` once calls have stopped for a while.
 *
 * @template {unknown[]} A
 * @param {(...given: A) => void} work
 * @param {number} milliseconds
 * @returns {(...given: A) => void}
 */
export function debounced(work, milliseconds) {
  /** @type {number | undefined} */
  let timer;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...given), milliseconds);
  };
}
