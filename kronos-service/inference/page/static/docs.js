/** The API's description: /openapi.json as text, without anything to type a key into. */

import { byId, make } from "./dom.js";

const VERBS = ["get", "post", "put", "patch", "delete"];

/** @param {any} document */
function* sections(document) {
  yield make("section", { class: "card prose" }, make("h2", {}, document.info.title), ...paragraphs(document.info.description));
  const operations = Object.entries(document.paths).flatMap(([path, item]) =>
    VERBS.filter((verb) => verb in item).map((verb) => ({ verb, path, of: item[verb] })),
  );
  const links = operations.map(({ verb, path }) => make("li", {}, make("a", { href: `#${verb}${path}` }, `${verb.toUpperCase()} ${path}`)));
  yield make("nav", { class: "card prose", "aria-label": "Endpoints" }, make("ul", {}, ...links));
  for (const { verb, path, of } of operations) yield operation(verb, path, of);
  for (const [name, schema] of Object.entries(document.components?.schemas ?? {})) yield schemaCard(name, schema);
}

/**
 * @param {string} verb
 * @param {string} path
 * @param {any} operation
 */
function operation(verb, path, operation) {
  const body = operation.requestBody?.content?.["application/json"]?.schema;
  const parameters = operation.parameters ?? [];
  return make(
    "section",
    { class: "card panel", id: `${verb}${path}` },
    make("h2", {}, make("span", { class: "verb" }, verb.toUpperCase()), path),
    ...paragraphs(operation.description ?? operation.summary ?? ""),
    operation.security ? make("p", { class: "panel-note" }, "With a key: Authorization: Bearer KEY.") : null,
    body ? make("p", {}, "Body: ", ...typeOf(body)) : null,
    parameters.length > 0
      ? table(
          ["parameter", "in", "type", "meaning"],
          parameters.map((/** @type {any} */ one) => [
            make("code", {}, one.name),
            one.in,
            span(typeOf(one.schema)),
            `${one.required ? "required. " : ""}${limits(one.schema)}${one.description ?? ""}`,
          ]),
        )
      : null,
    table(
      ["status", "answer", "meaning"],
      Object.entries(operation.responses).map(([status, response]) => {
        const schema = response.content?.["application/json"]?.schema;
        return [status, schema ? span(typeOf(schema)) : "text", response.description];
      }),
    ),
  );
}

/**
 * @param {string} name
 * @param {any} schema
 */
function schemaCard(name, schema) {
  const required = new Set(schema.required ?? []);
  const fields = Object.entries(schema.properties ?? {});
  return make(
    "section",
    { class: "card panel", id: name },
    make("h2", {}, name),
    ...paragraphs(schema.description ?? ""),
    fields.length > 0
      ? table(
          ["field", "type", "meaning"],
          fields.map(([field, of]) => [
            make("code", {}, field),
            span(typeOf(of)),
            `${required.has(field) ? "" : `default ${JSON.stringify(of.default ?? null)}. `}${limits(of)}${of.description ?? ""}`,
          ]),
        )
      : null,
    ...(schema.examples ?? []).map((/** @type {any} */ example) =>
      make("details", {}, make("summary", {}, "Example"), make("div", { class: "prose" }, make("pre", { tabindex: "0" }, JSON.stringify(example, null, 2)))),
    ),
  );
}

/**
 * A schema in words, with links to the named ones.
 *
 * @param {any} schema
 * @returns {(Node | string)[]}
 */
function typeOf(schema) {
  if (schema === undefined || schema === true) return ["anything"];
  if (schema.$ref !== undefined) {
    const name = schema.$ref.split("/").at(-1);
    return [make("a", { href: `#${name}` }, name)];
  }
  const choices = schema.anyOf ?? schema.oneOf;
  if (choices) return joined(choices.map(typeOf), " or ");
  if (schema.allOf) return joined(schema.allOf.map(typeOf), " and ");
  if (schema.enum) return [schema.enum.map((/** @type {unknown} */ one) => JSON.stringify(one)).join(", ")];
  if (schema.const !== undefined) return [JSON.stringify(schema.const)];
  if (schema.type === "array") return schema.prefixItems ? ["list"] : ["list of ", ...typeOf(schema.items)];
  if (schema.type === "object") {
    const values = schema.additionalProperties;
    return values && values !== true ? ["by name: ", ...typeOf(values)] : ["object"];
  }
  return [schema.format ? `${schema.type} (${schema.format})` : String(schema.type ?? "anything")];
}

/**
 * @param {(Node | string)[][]} parts
 * @param {string} word
 */
const joined = (parts, word) => parts.flatMap((part, place) => (place === 0 ? part : [word, ...part]));

/** @param {(Node | string)[]} parts */
const span = (parts) => make("span", {}, ...parts);

/** @param {any} schema */
function limits(schema) {
  const bounds = [
    ["minimum", "from "],
    ["exclusiveMinimum", "above "],
    ["maximum", "to "],
    ["exclusiveMaximum", "below "],
    ["minLength", "characters from "],
    ["maxLength", "characters to "],
    ["minItems", "entries from "],
    ["maxItems", "entries to "],
    ["pattern", "matches "],
  ];
  const said = bounds.filter(([name]) => schema?.[name] !== undefined).map(([name, words]) => `${words}${schema[name]}`);
  return said.length > 0 ? `${said.join(", ")}. ` : "";
}

/**
 * @param {string[]} head
 * @param {(Node | string)[][]} rows
 */
function table(head, rows) {
  const cells = (/** @type {(Node | string)[]} */ row) => row.map((cell, place) => make(place === 0 ? "th" : "td", { class: "is-text", scope: place === 0 ? "row" : null }, cell));
  return make(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": head.join(", ") },
    make(
      "table",
      {},
      make("thead", {}, make("tr", {}, ...head.map((name) => make("th", { scope: "col", class: "is-text" }, name)))),
      make("tbody", {}, ...rows.map((row) => make("tr", {}, ...cells(row)))),
    ),
  );
}

/** @param {string} text */
const paragraphs = (text) => text.split(/\n{2,}/).filter(Boolean).map((one) => make("p", {}, one.replaceAll("\n", " ")));

const main = byId("api");
try {
  const answer = await fetch("openapi.json");
  if (!answer.ok) throw new Error(`it answered ${answer.status}`);
  main.append(...sections(await answer.json()));
  // the browser looked for the address's part before it was there
  document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
} catch (error) {
  main.append(make("p", { class: "notice" }, `openapi.json cannot be read: ${/** @type {Error} */ (error).message}`));
} finally {
  main.removeAttribute("aria-busy");
}
