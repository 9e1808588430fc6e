// The console's frame: which page is shown, how it is kept fresh, and the keys that move through it.

import { onReflects, Problem } from "./api.js";
import { h, render } from "./dom.js";
import { icon } from "./icons.js";
import { follow, following, leave } from "./live.js";
import { sample } from "./memory.js";
import { go, here, link } from "./router.js";
import { showWho, signIn } from "./signin.js";
import { duration, number } from "./words.js";
import { audit } from "./pages/audit.js";
import { controls } from "./pages/controls.js";
import { deadLetters } from "./pages/deadletters.js";
import { eventPage, events } from "./pages/events.js";
import { jobPage } from "./pages/job.js";
import { jobs } from "./pages/jobs.js";
import { overview } from "./pages/overview.js";
import { query } from "./pages/query.js";
import { runners } from "./pages/runners.js";
import { subjectPage } from "./pages/subject.js";
import { truths } from "./pages/truths.js";

// Where a stream tells what happens, pages ask so many times less often: for what follows from time alone.
const SELDOM = 5;
const DRAWN_APART = 700;
const ofTopics = (...names) => () => names.map((name) => ["topic", `controlplane.${name}`]);
const ofJobs = (id) => (id === null ? ofTopics("submissions", "jobs")() : [["job_id", id]]);

const PAGES = [
  { path: "", icon: "overview", name: "Overview", key: "o", show: overview, everySeconds: 2, about: ofTopics("submissions", "jobs", "controls", "deadletters") },
  { path: "jobs", name: "Jobs", key: "j", show: jobs, everySeconds: 3, detail: jobPage, detailSeconds: 1.5, about: ofJobs },
  { path: "runners", name: "Runners", key: "r", show: runners, everySeconds: 2, about: ofTopics("runners", "routing", "controls") },
  { path: "truths", name: "Truths", key: "t", show: truths, everySeconds: 5, detail: subjectPage, detailSeconds: 5, about: ofTopics("truth") },
  { path: "events", name: "Topics", key: "e", show: events, everySeconds: 3, detail: eventPage, about: (_, query) => (query.get("topic") ? [["topic", query.get("topic")]] : []) },
  { path: "controls", name: "Controls", key: "c", show: controls, everySeconds: 3, about: ofTopics("controls") },
  { path: "deadletters", name: "Dead letters", key: "d", show: deadLetters, everySeconds: 5, about: ofTopics("deadletters") },
  { path: "audit", name: "Audit", key: "a", show: audit },
  { path: "query", name: "Query", key: "q", show: query },
];

const main = document.getElementById("main");
let current = new AbortController();
let timer = 0, due = 0, drawn = 0;
let drawing = false, stale = false;
let paused = false;
let shown = null;

function problem(error) {
  const { title, code, expected, found, retry_after_seconds: retry } = error instanceof Problem ? error.problem : { title: "A fault of the console" };
  if (!(error instanceof Problem)) console.error(error);
  return [h("h1", {}, title ?? "Refused"), h("div", { class: "problem", role: "alert" }, h("div", {}, error.message),
    expected && h("div", {}, `Expected ${expected}, found ${typeof found === "string" ? found : JSON.stringify(found)}.`),
    code && h("div", { class: "quiet" }, code, retry ? `, try again in ${retry} s` : ""), h("p", {}, h("button", { type: "button", onclick: () => draw() }, "Try again")))];
}

function begin(page) {
  main.setAttribute("aria-busy", "true");
  for (const anchor of document.querySelectorAll("#navigation a")) {
    if (anchor.dataset.path === page.path) anchor.setAttribute("aria-current", "page");
    else anchor.removeAttribute("aria-current");
  }
}

async function draw() {
  clearTimeout(timer);
  due = Infinity;
  drawn = Date.now();
  drawing = true;
  stale = false;
  current.abort();
  current = new AbortController();
  const { signal } = current;
  const { page: path, id, query: filters } = here();
  const page = PAGES.find((candidate) => candidate.path === path) ?? PAGES[0];
  const show = id !== null && page.detail ? page.detail : page.show;
  const place = `${page.path}/${id ?? ""}`, moved = shown !== place;
  if (moved) begin(page);
  let content;
  try {
    content = await show({ id, query: filters, signal, again: draw });
  } catch (error) {
    if (signal.aborted) return;
    if (error instanceof Problem && error.problem.status === 401) {
      main.removeAttribute("aria-busy");
      leave();
      return render(main, signIn(draw)); // Not drawn again by itself: somebody types there.
    }
    content = problem(error);
  }
  if (signal.aborted) return;
  if (moved) main.replaceChildren();
  render(main, content);
  main.removeAttribute("aria-busy");
  document.title = `${id ?? page.name} · ControlPlane`;
  if (moved && shown !== null) { main.focus({ preventScroll: true }); scrollTo(0, 0); }
  shown = place;
  const seconds = id !== null && page.detail ? page.detailSeconds : page.everySeconds;
  const asks = seconds && !filters.get("cursor");
  follow(asks && !paused && !document.hidden ? page.about(id, filters) : null, soon, () => tell(asks && seconds));
  drawing = false;
  tell(asks && seconds);
  if (stale) soon(0);
}

function tell(seconds) {
  const live = document.getElementById("live"), streamed = Boolean(seconds) && following();
  live.dataset.by = streamed ? "stream" : "asking";
  live.title = streamed ? "The log tells what happens" : seconds ? `Asks every ${seconds} s` : "This page does not change by itself";
  if (seconds) within(seconds * 1000 * (streamed ? SELDOM : 1));
}

function within(milliseconds) {
  if (Date.now() + milliseconds >= due) return;
  clearTimeout(timer);
  due = Date.now() + milliseconds;
  timer = setTimeout(refresh, milliseconds);
}

function soon(milliseconds) {
  if (drawing) stale = true; // Drawing again now would end what is being asked.
  else within(Math.max(milliseconds, drawn + DRAWN_APART - Date.now()));
}

function refresh() {
  // A page that nobody looks at asks nothing.
  if (document.hidden || paused || document.querySelector("dialog[open]")) timer = setTimeout(refresh, 500);
  else draw();
}

function live(wanted) {
  paused = !wanted;
  const toggle = document.getElementById("live");
  toggle.setAttribute("aria-pressed", String(wanted));
  toggle.textContent = wanted ? "Live" : "Paused";
  if (wanted) refresh();
  else leave();
}

function find(text) {
  if (!text) return;
  if (/^[\w.-]+\/\d+\/\d+$/.test(text)) go("events", text.startsWith("controlplane.") ? text : `controlplane.${text}`);
  else if (text.includes(":") || text.includes("*")) go("truths", text);
  else if (/^[0-9a-f]{8}-[0-9a-f-]{27}$/.test(text)) go("jobs", text);
  else go("jobs", null, { search: text });
}

function help() {
  const dialog = document.getElementById("dialog");
  const keys = [["/", "Find a job, a subject or a record"], ["p", "Pause, go on"], ["?", "These keys"], ...PAGES.map((page) => [`g ${page.key}`, page.name]), ["← → ↑ ↓", "Walk a graph, read a chart"]];
  dialog.replaceChildren(h("h2", { id: "dialog-title" }, "Keys"), h("dl", { class: "facts keys" }, keys.map(([key, what]) => [h("dt", {}, key.split(" ").map((one) => h("kbd", {}, one))), h("dd", {}, what)])),
    h("form", { method: "dialog", class: "row end" }, h("button", { class: "main" }, "Close")));
  dialog.showModal();
}

let before = "";
function pressed(event) {
  if (event.target.closest("input, select, textarea, dialog") || event.ctrlKey || event.metaKey || event.altKey) return;
  const page = before === "g" && PAGES.find((candidate) => candidate.key === event.key);
  before = event.key === "g" ? "g" : "";
  if (page) location.hash = link(page.path).slice(1);
  else if (event.key === "/") { event.preventDefault(); document.getElementById("query").focus(); }
  else if (event.key === "?") help();
  else if (event.key === "p") live(paused);
}

function themed(theme) {
  document.documentElement.dataset.theme = theme;
  try { localStorage.setItem("theme", theme); } catch { /* Private windows may refuse; the theme then lasts for the visit. */ }
}

function wished() {
  try { return localStorage.getItem("theme"); } catch { return null; }
}

function menu(open) {
  document.getElementById("menu").setAttribute("aria-expanded", String(open));
  document.getElementById("navigation").classList.toggle("open", open);
}

document.getElementById("navigation").append(...PAGES.map((page) => h("a", { href: link(page.path), "data-path": page.path, onclick: () => menu(false) }, icon(page.icon ?? page.path), page.name)));
document.getElementById("search").addEventListener("submit", (event) => { event.preventDefault(); find(new FormData(event.target).get("query").trim()); });
document.getElementById("theme").addEventListener("click", () => themed(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
document.getElementById("keys").addEventListener("click", help);
document.getElementById("live").addEventListener("click", () => live(paused));
document.getElementById("menu").addEventListener("click", (event) => menu(event.currentTarget.getAttribute("aria-expanded") !== "true"));
document.addEventListener("keydown", pressed);
document.addEventListener("visibilitychange", () => { if (document.hidden) leave(); else refresh(); }); // Browsers hold few connections to one host.
addEventListener("hashchange", draw);
addEventListener("moved", draw);
onReflects(({ lag_records: records, lag_seconds: seconds }) => {
  sample("lag", records);
  document.getElementById("freshness").textContent = records ? `${number(records)} ${records === 1 ? "record" : "records"} behind the log, ${duration(seconds * 1000)}` : "Up to date with the log";
});
themed(wished() ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
showWho();
draw();
