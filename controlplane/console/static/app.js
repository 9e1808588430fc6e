// The console's frame: which page is shown, how it is kept fresh, and the keys that move through it.

import { onReflects, Problem } from "./api.js";
import { h, number } from "./dom.js";
import { overview } from "./pages/overview.js";
import { jobPage, jobs } from "./pages/jobs.js";
import { runners } from "./pages/runners.js";
import { subjectPage, truths } from "./pages/truths.js";
import { eventPage, events } from "./pages/events.js";
import { audit } from "./pages/audit.js";
import { deadLetters } from "./pages/deadletters.js";

const PAGES = [
  { path: "", name: "Overview", key: "o", show: overview, everySeconds: 2 },
  { path: "jobs", name: "Jobs", key: "j", show: jobs, detail: jobPage, everySeconds: 3 },
  { path: "runners", name: "Runners", key: "r", show: runners, everySeconds: 3 },
  { path: "truths", name: "Truths", key: "t", show: truths, detail: subjectPage },
  { path: "events", name: "Topics", key: "e", show: events, detail: eventPage },
  { path: "deadletters", name: "Dead letters", key: "d", show: deadLetters, everySeconds: 5 },
  { path: "audit", name: "Audit", key: "a", show: audit },
];

const main = document.getElementById("main");
let current = new AbortController();
let timer = 0;

function route() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [first = "", ...rest] = path.split("/");
  const page = PAGES.find((candidate) => candidate.path === first) ?? PAGES[0];
  return { page, id: rest.length ? decodeURIComponent(rest.join("/")) : null, query: new URLSearchParams(query) };
}

function problemCard(error) {
  const { title, code, expected, found, retry_after_seconds: retry } = error instanceof Problem ? error.problem : { title: "A fault of the console" };
  return h("div", { class: "problem", role: "alert" }, h("b", {}, title), h("div", {}, error.message),
    expected && h("div", {}, `Expected ${expected}, found ${found}.`), code && h("div", { class: "quiet" }, code, retry ? `, try again in ${retry} s` : ""));
}

async function draw({ fresh }) {
  clearTimeout(timer);
  current.abort();
  current = new AbortController();
  const { signal } = current;
  const { page, id, query } = route();
  const show = id && page.detail ? page.detail : page.show;
  try {
    const content = await show({ id, query, signal, again: () => draw({ fresh: false }) });
    if (signal.aborted) return;
    main.replaceChildren(...[content].flat());
  } catch (error) {
    if (signal.aborted) return;
    main.replaceChildren(problemCard(error));
  }
  document.title = `${id ?? page.name} · ControlPlane`;
  for (const link of document.querySelectorAll("nav a")) link.toggleAttribute("aria-current", false);
  document.querySelector(`nav a[data-path="${page.path}"]`)?.setAttribute("aria-current", "page");
  if (fresh) main.focus({ preventScroll: true });
  if (page.everySeconds && !(id && page.path === "truths")) timer = setTimeout(refresh, page.everySeconds * 1000);
}

function refresh() {
  const busy = document.hidden || main.querySelector("input:focus, select:focus, textarea:focus, details[open], dialog[open], input[type=checkbox]:checked");
  if (busy) timer = setTimeout(refresh, 1000);
  else draw({ fresh: false });
}

function find(text) {
  if (!text) return;
  if (/^[\w.-]+\/\d+\/\d+$/.test(text)) location.hash = `#/events/${encodeURIComponent(text)}`;
  else if (text.includes(":") || text.includes("*")) location.hash = `#/truths/${encodeURIComponent(text)}`;
  else location.hash = `#/jobs/${encodeURIComponent(text)}`;
}

function help() {
  const dialog = document.getElementById("help");
  const keys = [["/", "Find"], ["?", "This help"], ...PAGES.map((page) => [`g ${page.key}`, page.name])];
  dialog.replaceChildren(h("h2", { id: "help-title" }, "Keys"), h("dl", { class: "facts" }, keys.map(([key, what]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, what)])),
    h("form", { method: "dialog" }, h("button", { class: "main" }, "Close")));
  dialog.showModal();
}

let after = "";
function pressed(event) {
  if (event.target.closest("input, select, textarea, dialog") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/") { event.preventDefault(); document.getElementById("query").focus(); }
  else if (event.key === "?") help();
  else if (after === "g") { const page = PAGES.find((candidate) => candidate.key === event.key); if (page) location.hash = `#/${page.path}`; }
  after = event.key === "g" ? "g" : "";
}

function themed(theme) {
  document.documentElement.dataset.theme = theme;
  try { localStorage.setItem("theme", theme); } catch { /* Private windows may refuse; the theme then lasts for the visit. */ }
}

document.getElementById("navigation").append(...PAGES.map((page) => h("a", { href: `#/${page.path}`, "data-path": page.path }, page.name)));
document.getElementById("search").addEventListener("submit", (event) => { event.preventDefault(); find(new FormData(event.target).get("query").trim()); });
document.getElementById("theme").addEventListener("click", () => themed(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
document.getElementById("keys").addEventListener("click", help);
document.addEventListener("keydown", pressed);
addEventListener("hashchange", () => draw({ fresh: true }));
onReflects(({ lag_records: records, lag_seconds: seconds }) => {
  document.getElementById("freshness").textContent = records ? `${number(records)} records behind the log, ${seconds.toFixed(1)} s` : "Up to date with the log";
});
themed(localStorage.getItem("theme") ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
draw({ fresh: false });
