// What is going on now: rates, queues, times, who works, what needs somebody.

import { get } from "../api.js";
import { lines, spark } from "../charts/lines.js";
import { h } from "../dom.js";
import { recall } from "../memory.js";
import { card, figure, grid, job, lead, quiet, since, table, tag, time, title, wide } from "../parts.js";
import { changed, link } from "../router.js";
import { duration, number, percent, plural } from "../words.js";

const WINDOWS = [["60", "1 min"], ["300", "5 min"], ["1800", "30 min"], ["21600", "6 h"], ["86400", "24 h"]];
const BUCKETS = 60;

const total = (counts, ...names) => names.reduce((sum, name) => sum + (counts[name] ?? 0), 0);
const seconds = (value) => duration(value * 1000);

function attention(controls, letters, failures, alerts) {
  // What an operator would want to know first.
  const found = [
    !controls.admission.open && [tag("admission closed", "bad"), controls.admission.reason],
    ...Object.entries(controls.breakers).filter(([, one]) => one.state !== "CLOSED").map(([subject, one]) => [h("a", { href: link("runners") }, tag(`breaker ${one.state}`, "bad")), `${subject}: ${one.reason}`]),
    ...Object.entries(controls.pauses).map(([subject, reason]) => [h("a", { href: link("controls") }, tag("paused")), `${subject}${reason ? `: ${reason}` : ""}`]),
    letters > 0 && [h("a", { href: link("deadletters") }, tag("dead letters", "bad")), `${letters > 99 ? "100 or more records" : plural(letters, "record")} could not be used.`],
    ...alerts.map((one) => [tag("alert", "bad"), `${one.event.name ?? one.event.alert_id}: ${one.event.message ?? one.event.reason ?? ""}`]),
  ].filter(Boolean);
  return card("Needs somebody",
    found.length ? h("ul", { class: "plain" }, found.map(([what, words]) => h("li", {}, what, " ", words))) : h("p", { class: "quiet" }, "Nothing: no breaker is open, nothing is paused, no record was refused."),
    failures.length > 0 && [h("h3", {}, "Newest failures"), table(["Job", "Type", "Why", ""], failures.map((one) => [job(one.job_id), one.job_type, one.error?.message ?? "", since(one.concluded_at)]), { caption: "Newest failures", keys: failures.map((one) => one.job_id) })]);
}

async function raised(signal) {
  // Alerts that were raised and not cleared, among the newest.
  const [up, down] = await Promise.all(["AlertRaised", "AlertCleared"].map((name) => get("/v1/events", { event_type: name, limit: 50 }, signal)));
  const cleared = new Map();
  for (const one of down.events) if (!cleared.has(one.key)) cleared.set(one.key, one.log_time);
  const seen = new Set();
  return up.events.filter((one) => !seen.has(one.key) && seen.add(one.key) && !(cleared.get(one.key) >= one.log_time));
}

export async function overview({ query, signal }) {
  const chosen = query.get("window") ?? "300";
  const [figures, controls, letters, failures, runners, alerts] = await Promise.all([
    get("/v1/activity", { seconds: chosen, buckets: BUCKETS }, signal), get("/v1/controls", {}, signal), get("/v1/deadletters", { limit: 100 }, signal),
    get("/v1/jobs", { phase: "FAILED", limit: 5 }, signal), get("/v1/runners", {}, signal), raised(signal),
  ]);
  const { buckets, open, concluded } = figures;
  const moments = buckets.map((one) => one.at), of = (name, scale = 1) => buckets.map((one) => (one[name] === null ? null : one[name] * scale));
  const each = 1 / figures.bucket_seconds, alive = runners.runners.filter((one) => one.state === "REGISTERED");
  const slots = alive.reduce((sum, one) => sum + one.slots, 0), busy = alive.reduce((sum, one) => sum + one.in_flight, 0);
  const done = total(concluded, "COMPLETED"), bad = total(concluded, "FAILED", "REJECTED");
  const lag = recall("lag", []);
  const waiting = total(open, "SUBMITTED", "QUEUED", "DELAYED", "RETRYING"), running = total(open, "ROUTED", "RUNNING");
  return [
    h("div", { class: "head" }, h("div", {}, title("Overview"), lead("What the log knows at this moment.")),
      h("nav", { class: "tabs", "aria-label": "Window" }, WINDOWS.map(([value, words]) => h("a", { href: changed({ window: value === "300" ? null : value }), "aria-current": value === chosen ? "true" : null }, words)))),
    h("div", { class: "grid tiles" },
      figure(number(waiting), "waiting", { href: link("jobs", null, { phase: "QUEUED" }), extra: spark(of("waiting"), "wait") }),
      figure(number(running), "running", { href: link("jobs", null, { phase: "RUNNING" }), extra: spark(of("busy"), "run") }),
      figure(number(done), "completed", { href: link("jobs", null, { phase: "COMPLETED" }), extra: spark(of("completed"), "ok") }),
      figure(number(bad), done + bad ? `failed, ${percent(bad / (done + bad))}` : "failed", { href: link("jobs", null, { phase: "FAILED" }), kind: bad ? "bad" : "", extra: spark(of("failed"), "bad") }),
      figure(figures.median_seconds === null ? "–" : seconds(figures.median_seconds), figures.p99_seconds === null ? "median to conclusion" : `median, p99 ${seconds(figures.p99_seconds)}`, { extra: spark(of("median_seconds"), "run") }),
      figure(`${number(busy)} / ${number(slots)}`, `slots busy, ${plural(alive.length, "runner")}`, { href: link("runners"), extra: spark(of("busy"), "run") })),
    wide(
      card(null, lines({ id: "throughput", label: "Throughput per second", moments, series: [
        { name: "submitted", kind: "other", values: of("submitted", each) }, { name: "completed", kind: "ok", values: of("completed", each) }, { name: "failed", kind: "bad", values: of("failed", each) }] })),
      card(null, lines({ id: "waiting", label: "Jobs waiting", moments, series: [{ name: "waiting", kind: "wait", values: of("waiting") }] })),
      card(null, lines({ id: "latency", label: "From submission to conclusion", moments, unit: seconds, series: [{ name: "median", kind: "run", values: of("median_seconds") }, { name: "p95", kind: "wait", values: of("p95_seconds") }] })),
      card(null, lines({ id: "use", label: "Runner slots", moments, series: [{ name: "busy", kind: "run", values: of("busy") }, { name: "there", kind: "other", values: of("slots") }] })),
      card(null, lag.length > 1 ? lines({ id: "lag", label: "Projection behind the log", moments: lag.map((one) => one.at), series: [{ name: "records behind", kind: "other", values: lag.map((one) => one.value) }] }) : h("p", { class: "quiet" }, "The lag of the projection is drawn from now on.")),
      card("By type", table(["Type", "Waiting", "Running", "Completed", "Failed"], figures.types.slice(0, 12).map((one) => [h("a", { href: link("jobs", null, { job_type: one.job_type }) }, one.job_type), number(one.waiting), number(one.running), number(one.completed), one.failed ? h("a", { class: "bad", href: link("jobs", null, { job_type: one.job_type, phase: "FAILED" }) }, number(one.failed)) : quiet("0")]), { caption: "Jobs by type", keys: figures.types.slice(0, 12).map((one) => one.job_type), empty: "No job is open, and none ended in this window." }))),
    attention(controls, letters.events.length, failures.jobs, alerts),
  ];
}
