/** Trust: what the adapter's manifest proves about it. */

/**
 * @param {HTMLElement} element the section's body; it is hidden until the panel has something to show
 * @param {import("./app.js").Page} page see the head of app.js
 */
export function mount(element, page) {
  void element;
  void page;
}
