// Elements and words: how values become what a person reads. Text is always set as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const h = (name, attributes, ...children) => fill(document.createElement(name), attributes, children);
export const svg = (name, attributes, ...children) => fill(document.createElementNS(SVG, name), attributes, children);

const KINDS = {
  COMPLETED: "ok", SUCCEEDED: "ok", REGISTERED: "ok", ok: "ok",
  RUNNING: "run", ROUTED: "run", STARTED: "run",
  QUEUED: "wait", SUBMITTED: "wait", DELAYED: "wait", RETRYING: "wait", DRAINING: "wait", degraded: "wait",
  FAILED: "bad", REJECTED: "bad", LOST: "bad", down: "bad",
};

export const tag = (word) => h("span", { class: `tag ${KINDS[word] ?? ""}` }, word.toLowerCase());
export const kindOf = (word) => KINDS[word] ?? "other";
export const job = (id) => h("a", { href: `#/jobs/${encodeURIComponent(id)}`, class: "mono" }, id);
export const subject = (name) => h("a", { href: `#/truths/${encodeURIComponent(name)}`, class: "mono" }, name);
export const position = (text) => h("a", { href: `#/events/${encodeURIComponent(text)}`, class: "mono" }, text);
export const time = (instant) => instant
  ? h("time", { datetime: instant, title: instant }, new Date(instant).toLocaleString(undefined, { dateStyle: "short", timeStyle: "medium" }))
  : h("span", { class: "quiet" }, "–");

export function duration(milliseconds) {
  if (milliseconds === null || Number.isNaN(milliseconds)) return "–";
  if (milliseconds < 1000) return `${milliseconds.toFixed(milliseconds < 10 ? 1 : 0)} ms`;
  if (milliseconds < 120_000) return `${(milliseconds / 1000).toFixed(1)} s`;
  return `${(milliseconds / 60_000).toFixed(1)} min`;
}

export const between = (from, to) => (from && to ? new Date(to) - new Date(from) : null);
export const number = (value) => Number(value).toLocaleString();
export const percent = (value) => `${(100 * value).toFixed(1)} %`;
export const json = (value) => h("pre", { tabindex: 0 }, JSON.stringify(value, null, 2));

export function shown(value) {
  if (typeof value === "string" && value.startsWith("module:")) return subject(value);
  return h("span", { class: "mono" }, typeof value === "string" ? value : JSON.stringify(value));
}

export function table(headings, rows, caption) {
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption },
    h("table", {}, h("caption", { class: "hidden" }, caption),
      h("thead", {}, h("tr", {}, headings.map((heading) => h("th", { scope: "col" }, heading)))),
      h("tbody", {}, rows.length ? rows.map((cells) => h("tr", {}, cells.map((cell) => h("td", {}, cell))))
        : h("tr", {}, h("td", { colspan: headings.length, class: "quiet" }, "Nothing here yet.")))));
}

export const facts = (pairs) => h("dl", { class: "facts" },
  pairs.filter(([, value]) => value !== null && value !== undefined && value !== "").map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
export const card = (title, ...children) => h("section", { class: "card" }, title && h("h2", {}, title), children);
export const figure = (value, words) => h("div", { class: "card figure" }, h("b", {}, value), h("span", {}, words));
