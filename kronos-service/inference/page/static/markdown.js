/**
 * A model card as elements: headings, paragraphs, lists, tables, code, emphasis of nothing. What is not of these forms
 * stays the text that it is; nothing is ever parsed as markup, and links are not followed.
 */

import { make } from "./dom.js";

/**
 * @param {string} text Markdown; its front matter is left out
 * @returns {HTMLElement[]}
 */
export function fromMarkdown(text) {
  const body = text.replace(/^---\n[\s\S]*?\n---\n/, "");
  return body
    .split(/\n{2,}/)
    .map((block) => block.trim())
    .filter((block) => block !== "")
    .map(blockOf);
}

/**
 * @param {string} block
 * @returns {HTMLElement}
 */
function blockOf(block) {
  const lines = block.split("\n");
  const heading = /^(#{1,4}) (.*)$/.exec(block);
  // the page has headings 1 and 2 above a card
  if (heading) return make(`h${Math.min(heading[1].length + 2, 5)}`, {}, heading[2]);
  if (block.startsWith("```")) return make("pre", { tabindex: "0" }, lines.slice(1, lines.at(-1) === "```" ? -1 : undefined).join("\n"));
  if (lines.length > 1 && lines.every((line) => line.startsWith("|"))) return tableOf(lines);
  if (/^[-*] /.test(block)) return make("ul", {}, ...items(lines).map((item) => make("li", {}, ...spans(item))));
  return make("p", {}, ...spans(lines.join(" ")));
}

/** @param {string[]} lines */
function items(lines) {
  /** @type {string[]} */
  const found = [];
  for (const line of lines) {
    if (/^[-*] /.test(line)) found.push(line.slice(2));
    else found.push(`${found.pop() ?? ""} ${line.trim()}`);
  }
  return found;
}

/** @param {string[]} lines */
function tableOf(lines) {
  const cells = lines.map((line) => line.replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim()));
  const [head, , ...rows] = cells;
  const table = make(
    "table",
    {},
    make("thead", {}, make("tr", {}, ...head.map((cell) => make("th", { scope: "col" }, cell)))),
    make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map((cell) => make("td", {}, ...spans(cell)))))),
  );
  return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Table: ${head.join(", ")}` }, table);
}

/**
 * @param {string} text
 * @returns {(Node | string)[]}
 */
function spans(text) {
  return text.split(/(`[^`]+`)/).map((part) => (/^`.+`$/.test(part) ? make("code", {}, part.slice(1, -1)) : part));
}
