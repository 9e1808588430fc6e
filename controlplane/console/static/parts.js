// The parts that pages are made of: cards, tables, tags, links, bars, filters, JSON that leads somewhere.

import { h } from "./dom.js";
import { changed, link } from "./router.js";
import { ago, clock, kindOf, number, percent } from "./words.js";

export const tag = (word, kind = kindOf(word)) => h("span", { class: `tag ${kind}` }, word.toLowerCase().replaceAll("_", " "));
export const mono = (text) => h("span", { class: "mono" }, text);
export const quiet = (...content) => h("span", { class: "quiet" }, ...content);
export const job = (id, { brief = false } = {}) => h("a", { href: link("jobs", id), class: "mono", title: id }, brief && id.length > 14 ? `${id.slice(0, 8)}…` : id);
export const share = (value) => h("span", { class: "nowrap" }, percent(value));
export const subject = (name) => h("a", { href: link("truths", name), class: "mono" }, name);
export const position = (text) => h("a", { href: link("events", text), class: "mono nowrap" }, text.replace(/^controlplane\./, ""));
export const time = (instant, options) => (instant ? h("time", { datetime: instant, title: instant, class: "nowrap" }, clock(instant, options)) : quiet("–"));
export const since = (instant) => (instant ? h("time", { datetime: instant, title: instant, class: "nowrap" }, ago(instant)) : quiet("–"));

export const title = (...content) => h("h1", {}, ...content);
export const lead = (...content) => h("p", { class: "lead" }, ...content);
export const note = (...content) => h("p", { class: "note" }, ...content);
export const row = (...content) => h("div", { class: "row" }, ...content);
export const grid = (...content) => h("div", { class: "grid" }, ...content);
export const wide = (...content) => h("div", { class: "grid wide" }, ...content);
export const card = (heading, ...content) => h("section", { class: "card" }, heading && h("h2", {}, heading), ...content);
export const button = (words, onclick, attributes = {}) => h("button", { type: "button", onclick, ...attributes }, words);

export function table(headings, rows, { caption, keys, empty = "Nothing here." }) {
  // Rows are lists of cells; keys keep a row itself when others come before it.
  const body = rows.length
    ? rows.map((cells, index) => h("tr", { "data-key": keys?.[index] }, cells.map((cell, column) => h("td", { "data-label": typeof headings[column] === "string" ? headings[column] || null : null }, h("div", {}, cell)))))
    : h("tr", {}, h("td", { colspan: headings.length, class: "quiet empty" }, empty));
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption },
    h("table", {}, h("caption", { class: "hidden" }, caption),
      h("thead", {}, h("tr", {}, headings.map((heading) => (heading ? h("th", { scope: "col" }, heading) : h("td", {}))))),
      h("tbody", {}, body)));
}

export const facts = (pairs) => h("dl", { class: "facts" },
  pairs.filter(([, value]) => value !== null && value !== undefined && value !== "").map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));

export function meter(share, label, { kind = "", words = null } = {}) {
  const value = Math.max(0, Math.min(1, share));
  return h("div", { class: `bar ${kind}`, role: "meter", "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": Math.round(100 * value), "aria-label": label, "aria-valuetext": words ?? percent(value) },
    h("i", { style: { width: `${100 * value}%` } }));
}

export function figure(value, words, { href, kind = "", extra } = {}) {
  const inside = [h("b", { class: kind }, value), h("span", {}, words), extra];
  return href ? h("a", { class: "card figure", href }, ...inside) : h("div", { class: "card figure" }, ...inside);
}

export function form(fields, submitted, { words = "Filter", clear } = {}) {
  // Filters in the address: what is typed becomes the query of this page.
  const made = h("form", { class: "filters", onsubmit: (event) => {
    event.preventDefault();
    submitted(Object.fromEntries(new FormData(event.currentTarget)));
  } }, fields, h("button", { class: "main" }, words), clear && h("a", { href: clear }, "Clear"));
  return made;
}

export const filters = (fields, clear) => form(fields, (values) => { location.hash = changed(values).slice(1); }, { clear });
export const field = (words, name, value, attributes = {}) => h("label", {}, words, h("input", { name, value: value ?? "", autocomplete: "off", spellcheck: "false", ...attributes }));

export const choice = (words, name, value, options, { any } = {}) => h("label", {}, words,
  h("select", { name }, any !== undefined && h("option", { value: "" }, any), options.map(([option, text]) => h("option", { value: option, selected: option === (value ?? "") }, text ?? option))));

export function pager(query, next, words = "Older", begin = "Newest") {
  // Pages by cursor: back is the browser's own, or where the list begins.
  if (!next && !query.get("cursor")) return null;
  return h("nav", { class: "pager", "aria-label": "Pages of the list" }, query.get("cursor") && h("a", { href: changed({ cursor: null }) }, begin),
    next && h("a", { href: changed({ cursor: next }), rel: "next" }, `${words} ›`));
}

// JSON

const POSITION = /^controlplane\.[a-z]+\/\d+\/\d+$/;

function scalar(value, name) {
  if (value === null) return h("span", { class: "json-null" }, "null");
  if (typeof value === "number") return h("span", { class: "json-number" }, String(value));
  if (typeof value === "boolean") return h("span", { class: "json-number" }, String(value));
  if (POSITION.test(value)) return h("a", { href: link("events", value) }, JSON.stringify(value));
  if (name === "job_id") return h("a", { href: link("jobs", value) }, JSON.stringify(value));
  if (name === "subject") return h("a", { href: link("truths", value) }, JSON.stringify(value));
  return h("span", { class: "json-text" }, JSON.stringify(value));
}

function tree(value, name, indent) {
  const inner = `${indent}  `;
  if (value === null || typeof value !== "object") return [scalar(value, name)];
  const list = Array.isArray(value);
  const entries = list ? value.map((one) => [null, one]) : Object.entries(value);
  if (!entries.length) return [list ? "[]" : "{}"];
  if (!list && Object.keys(value).length === 3 && "topic" in value && "partition" in value && "offset" in value) {
    return [scalar(`${value.topic}/${value.partition}/${value.offset}`)];
  }
  return [list ? "[" : "{", "\n",
    entries.map(([key, one], index) => [inner, key !== null && [h("span", { class: "json-key" }, JSON.stringify(key)), ": "], tree(one, key ?? name, inner), index < entries.length - 1 ? "," : "", "\n"]),
    indent, list ? "]" : "}"];
}

export const json = (value, label = "JSON") => h("pre", { class: "json", tabindex: 0, role: "region", "aria-label": label }, tree(value, null, ""));

export const shown = (value, unit) => {
  const text = typeof value === "string" ? value : JSON.stringify(value);
  if (typeof value === "string" && /^[a-z][\w-]*:[^\s/]/.test(value)) return subject(value);
  return h("span", { class: "mono value" }, typeof value === "number" ? number(value) : text, unit && ` ${unit}`);
};
