// One job: where it stands, its attempts in time, what its handler logs, its events and what caused what.

import { get, of, orNothing, post } from "../api.js";
import { attempt } from "../ask.js";
import { causation } from "../charts/causation.js";
import { gantt } from "../charts/gantt.js";
import { h } from "../dom.js";
import { button, card, facts, job, json, lead, meter, mono, pager, position, quiet, row, shown, table, tag, time, title, wide } from "../parts.js";
import { changed, link } from "../router.js";
import { between, clock, duration, gist, number, percent, plural, valueOf } from "../words.js";
import { body, OVER, question } from "./jobs.js";

const TABS = [["", "Summary"], ["log", "Log"], ["events", "Events"], ["graph", "Causation"]];
const LINES = 1000;
const LINES_AT_MOST = 5000;
const EVENTS = 500;
const TRUTHS = 1000;

function actions(one, again) {
  const act = async (action, whom) => {
    const values = await question(action, whom);
    if (values && await attempt(() => post(`/v1/jobs/${of(one.job_id)}/${action}`, body(action, values)), (answer) => `Asked for it, on the log at ${answer.position}.`)) setTimeout(again, 400);
  };
  const open = !OVER.has(one.phase);
  return row(open && button("Cancel", () => act("cancel", one.job_id)), (one.phase === "FAILED" || one.phase === "RETRYING") && button("Retry", () => act("retry", one.job_id)),
    open && one.phase !== "RUNNING" && one.phase !== "ROUTED" && button("Change priority", () => act("reprioritise", one.job_id)));
}

function attempts(one) {
  return table(["Attempt", "Runner", "Ended as", "Ran", "Progress", "What happened"], one.attempts.map((each) => [
    String(each.attempt_number), mono(each.runner_id), tag(each.phase), duration(each.started_at ? (each.ended_at ? between(each.started_at, each.ended_at) : Date.now() - new Date(each.started_at)) : null),
    each.fraction === null ? quiet("–") : h("div", { class: "progress" }, meter(each.fraction, `Progress of attempt ${each.attempt_number}`, { kind: each.ended_at ? "" : "moving" }), h("span", {}, `${percent(each.fraction)} ${each.message ?? ""}`)),
    [each.error && h("div", { class: "bad" }, each.error.message), quiet(each.routing_reason)]]), { caption: "Attempts", keys: one.attempts.map((each) => each.attempt_id), empty: "It was not handed to a runner yet." });
}

async function allLines(path, signal) {
  // Page by page: a handler may log more than one answer holds.
  const lines = [];
  let cursor = null, page;
  do {
    page = await get(`${path}/logs`, { limit: LINES, cursor }, signal);
    lines.push(...page.lines);
    cursor = page.next_cursor;
  } while (page.lines.length === LINES && lines.length < LINES_AT_MOST);
  return { lines, dropped: page.dropped };
}

function log({ lines, dropped }, one) {
  const several = one.attempts.length > 1, attempt = new Map(one.attempts.map((each) => [each.attempt_id, each.attempt_number]));
  return card(h("span", {}, "Log of the handler ", !OVER.has(one.phase) && tag("live", "run")),
    lines.length ? h("div", { class: "log", role: "log", tabindex: 0, "aria-label": "Log lines" }, h("ol", {}, lines.map((line, index) => h("li", { class: line.level, "data-key": `${line.position}/${index}` },
      h("time", { title: line.at }, clock(line.at, { exact: true })), h("b", {}, line.level), several && h("i", {}, `#${attempt.get(line.attempt_id) ?? "?"}`), h("span", {}, line.message))))) : h("p", { class: "quiet" }, "Its handler logged nothing."),
    dropped > 0 && h("p", { class: "quiet" }, `${plural(dropped, "more line")} were not kept.`));
}

function history({ events, next_cursor: next }, query) {
  return card("Events", table(["Log time", "Event", "Says", "Position", "Caused by"], events.map((event) => [
    time(event.log_time, { exact: true }), h("details", {}, h("summary", {}, event.event_type), json(event.event, `Fields of ${event.event_type}`)), gist(event), position(event.position), event.causation ? position(event.causation) : quiet("outside")]),
  { caption: "Events of the job", keys: events.map((event) => event.position) }), pager(query, next, "Later", "First"));
}

function said({ events, next_cursor: next }) {
  const truths = events.filter((event) => event.event_type === "TruthAsserted");
  return truths.length > 0 && card("What is known because of it", table(["Subject", "Property", "Value", "Sure"], truths.map(({ event }) => [shown(event.subject), event.predicate, valueOf(event.object), percent(event.confidence)]), { caption: "Assertions of the job", keys: truths.map((event) => event.position) }), next && h("p", { class: "quiet" }, `These are the first ${number(truths.length)}; its events have the others.`));
}

function content(one, name) {
  // What is encrypted, or too large for the log, is there all the same.
  const kept = one[`${name}_reference`];
  if (one.encrypted_with && (name === "payload" || one.phase === "COMPLETED")) {
    return h("p", { class: "quiet" }, "Encrypted with ", mono(one.encrypted_with), ". While that key is kept, ", mono(`controlplane secrets open ${one.job_id}`), " shows it.");
  }
  if (kept) return h("p", {}, h("a", { href: `/v1/contents/${kept.sha256}?${new URLSearchParams({ job: one.job_id })}`, download: `${one.job_id} ${name}.json` }, `Download the ${name}`), quiet(`, ${number(kept.size_bytes)} bytes: too large for the log.`));
  if (name === "result" && one.result === null) return h("p", { class: "quiet" }, OVER.has(one.phase) ? "None." : "Not yet.");
  return json(one[name], name === "result" ? "Result" : "Payload");
}

async function histories(path, tab, cursor, signal) {
  // A job of many records has its events in pages, and its truths are asked for apart. It is a job without events while it is none.
  const none = { events: [], next_cursor: null }, ask = (query) => orNothing(get(`${path}/events`, { limit: EVENTS, ...query }, signal), none);
  const first = await ask({});
  if (first.next_cursor === null) return { first, shown: first };
  if (tab === "events") return { first, shown: cursor ? await ask({ cursor }) : first };
  return { first, shown: tab === "" ? await ask({ event_type: "TruthAsserted", limit: TRUTHS }) : first };
}

function summary(one, truths) {
  return [
    card("Attempts in time", gantt(one), attempts(one)),
    wide(
      card("Facts", facts([["Submitted", time(one.submitted_at)], ["Concluded", one.concluded_at && time(one.concluded_at)], ["Took", duration(one.concluded_at ? between(one.submitted_at, one.concluded_at) : Date.now() - new Date(one.submitted_at))], ["Pool", one.pool], ["Priority", String(one.priority)], ["Tenant", one.tenant],
        ["Chain", h("a", { class: "mono", href: link("jobs", null, { correlation_id: one.correlation_id }) }, one.correlation_id)], ["Parent", one.parent_job_id && job(one.parent_job_id)], ["Retried as", one.retried_as && job(one.retried_as)], ["Children", h("a", { href: link("jobs", null, { parent_job_id: one.job_id }) }, "jobs that it submitted")]])),
      card("Payload and result", h("h3", {}, "Payload"), content(one, "payload"), h("h3", {}, "Result"), content(one, "result"))),
    said(truths),
  ];
}

export async function jobPage({ id, query, signal, again }) {
  const path = `/v1/jobs/${of(id)}`, tab = query.get("tab") ?? "";
  const [{ job: one }, { first, shown: chosen }, graph, logs] = await Promise.all([get(path, {}, signal), histories(path, tab, query.get("cursor"), signal), tab === "graph" ? get("/v1/causation", { job: id }, signal) : null, tab === "log" ? allLines(path, signal) : null]);
  const running = one.attempts.find((each) => !each.ended_at && each.fraction !== null);
  const parts = { "": () => summary(one, chosen), log: () => log(logs, one), events: () => history(chosen, query), graph: () => card("What caused what", causation(`job ${id}`, graph.tree)) };
  const logged = first.events.filter((event) => event.event_type === "JobLogged").reduce((sum, event) => sum + event.event.lines.length, 0);
  const more = first.next_cursor === null ? "" : "+", counts = { log: logged || !more ? `${logged}${more}` : undefined, events: `${first.events.length}${more}` };
  return [
    h("div", { class: "head" }, h("div", {}, title(mono(one.job_id), " ", tag(one.phase)), lead(h("a", { href: link("jobs", null, { job_type: one.job_type }) }, one.job_type), one.waiting_for && `: ${one.waiting_for}`)), actions(one, again)),
    one.error && h("div", { class: "problem" }, h("b", {}, one.error.code), " ", one.error.message),
    running && h("div", { class: "progress whole" }, meter(running.fraction, "Progress", { kind: "moving" }), h("span", {}, `${percent(running.fraction)} ${running.message ?? ""}`)),
    h("nav", { class: "tabs", "aria-label": "Parts of the job" }, TABS.map(([name, words]) => h("a", { href: changed({ tab: name, cursor: null }), "aria-current": tab === name ? "true" : null }, words, counts[name] !== undefined && [" ", quiet(counts[name])]))),
    (parts[tab] ?? parts[""])(),
  ];
}
