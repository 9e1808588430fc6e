// One subject: what is true of it, how sure, who says otherwise, where it came from, and what was known at another moment.

import { get, orNothing } from "../api.js";
import { chosenIn, graph } from "../charts/graph.js";
import { steps, wordsOf } from "../charts/steps.js";
import { h, render } from "../dom.js";
import { card, facts, job, json, lead, meter, mono, note, position, quiet, row, share, shown, subject as subjectLink, table, tag, time, title, wide } from "../parts.js";
import { changed, link } from "../router.js";
import { clock, percent, plural } from "../words.js";
import { sure, truths } from "./truths.js";

const HISTORIES = 12;
const NODES = 120;

// Moments

function moments(histories) {
  // When anything of the subject changed, oldest first; a property may be declared long before something is said with it.
  const known = histories.map((one) => one.intervals.slice(one.intervals.findIndex((each) => each.value !== null)));
  const all = known.flatMap((intervals) => intervals.flatMap((each) => [each.since, each.until])).filter(Boolean).map((text) => +new Date(text));
  return [...new Set(all)].sort((a, b) => a - b);
}

function slider(stops, asOf) {
  // One stop before anything was known, one at each change, one for now: so that a step of the keyboard is a step of the history.
  const now = stops.length + 1;
  const index = asOf === null ? now : stops.filter((moment) => moment <= +new Date(asOf)).length;
  const words = (at) => (at >= now ? "now" : at === 0 ? `before ${clock(stops[0], { exact: true })}` : `${clock(stops[at - 1], { exact: true })}, change ${at} of ${stops.length}`);
  const asked = (at) => (at >= now ? null : new Date(at === 0 ? stops[0] - 1 : stops[at - 1]).toISOString());
  const moved = (event) => {
    const at = Number(event.currentTarget.value);
    event.currentTarget.setAttribute("aria-valuetext", words(at));
    event.currentTarget.closest(".slider").querySelector("output").textContent = words(at);
    clearTimeout(slider.timer);
    slider.timer = setTimeout(() => { history.replaceState(null, "", changed({ as_of: asked(at) })); dispatchEvent(new Event("moved")); }, 120);
  };
  return h("div", { class: "card slider", "data-key": "slider" }, h("label", { for: "moment" }, "What was known"), h("output", { for: "moment" }, words(index)),
    h("input", { id: "moment", type: "range", min: 0, max: now, step: 1, value: index, "aria-valuetext": words(index), disabled: !stops.length, oninput: moved }),
    h("div", { class: "ends", "aria-hidden": "true" }, h("span", {}, "before"), h("span", {}, "now")));
}

// What is true

function votes(candidate) {
  return table(["Source", "Sure", "Weight", "When", "Because of"], candidate.votes.map((vote) => [
    h("a", { href: link("truths", null, { source: vote.source }) }, vote.source), share(vote.confidence), share(vote.reliability), time(vote.log_time), [vote.job_id && [job(vote.job_id, { brief: true }), " "], position(vote.position)]]),
  { caption: `Votes for ${JSON.stringify(candidate.value)}`, keys: candidate.votes.map((vote) => vote.assertion_id) });
}

function candidates(truth) {
  return truth.candidates.map((one) => h("details", { class: "candidate", "data-key": one.text, open: truth.candidates.length < 4 },
    h("summary", {}, h("span", { class: "value" }, shown(one.value, one.unit)), meter(one.probability, `Probability of ${one.text}`, { kind: one.text === truth.candidates[0].text ? "ok" : "bad" }), h("b", {}, percent(one.probability)), quiet(plural(one.votes.length, "source"))), votes(one)));
}

function truthCard(truth, told, span, asOf) {
  const many = Array.isArray(truth.value);
  return h("section", { class: "card truth", "data-key": `truth ${truth.predicate}` },
    h("h2", {}, truth.predicate, " ", truth.conflict && tag("conflict")),
    h("p", { class: "answer" }, many ? plural(truth.value.length, "value") : shown(truth.value, truth.unit)), sure(truth.confidence, `How sure ${truth.predicate} is`),
    h("p", { class: "quiet" }, truth.explanation), candidates(truth),
    truth.ignored.length > 0 && h("p", { class: "bad" }, `${plural(truth.ignored.length, "assertion")} break the contract and do not count: ${truth.ignored[0].reason}`),
    told && [steps(told.intervals, { ...span, at: asOf === null ? null : +new Date(asOf), label: `History of ${truth.predicate}` }),
      h("details", {}, h("summary", {}, `History, ${plural(told.intervals.length, "step")}`), table(["Since", "Value", "Sure", "Said by", "Cause"], [...told.intervals].reverse().map((each) => [time(each.since, { exact: true }), wordsOf(each), percent(each.confidence), each.sources.join(", "), each.cause ? position(each.cause) : quiet("time")]), { caption: `History of ${truth.predicate}` }))],
    row(h("a", { href: changed({ lineage: truth.predicate }) }, "Where it comes from")));
}

// Where it comes from

const KIND = { assertion: "ok", attempt: "run", job: "run", event: "other", runner: "wait", source: "wait" };

function nodeOf(one) {
  const said = one.kind === "assertion" && one.detail.predicate ? `${one.detail.predicate} = ${JSON.stringify(one.detail.value)}` : null;
  const titles = { assertion: said ?? "assertion", attempt: `attempt ${one.detail.attempt_number ?? ""}`, job: one.detail.job_type ?? "job", event: one.detail.event_type ?? "record", runner: "runner", source: "source" };
  return { id: one.id, title: titles[one.kind], sub: one.kind === "assertion" ? one.detail.subject ?? one.name : one.name.replace(/^([0-9a-f]{8})-[0-9a-f-]{27}$/, "$1…"), kind: KIND[one.kind], about: one };
}

function aboutNode({ about: one }) {
  const to = { job: () => job(one.name), runner: () => h("a", { href: link("runners") }, one.name), source: () => h("a", { href: link("truths", null, { source: one.name }) }, one.name) }[one.kind];
  return [h("div", {}, h("h3", {}, one.kind), facts([["Name", to ? to() : mono(one.name)], ["Subject", one.detail.subject && subjectLink(one.detail.subject)], ["Position", one.position && position(one.position)], ["Log time", one.log_time && time(one.log_time, { exact: true })]])),
    Object.keys(one.detail).length > 0 && json(one.detail, "What the log says of it")];
}

function lineage(id, predicate, answer) {
  const nodes = answer.nodes.map(nodeOf), root = answer.roots[0];
  const edges = answer.edges.map((edge) => [edge.object, edge.subject, edge.relation]);
  const at = nodes.find((one) => one.id === chosenIn(`${id} ${predicate}`, root)) ?? nodes[0];
  return h("section", { class: "card", "data-key": "lineage" }, h("h2", {}, `Where ${predicate} comes from, and what rests on it`),
    h("div", { class: "walk" }, graph({ id: `${id} ${predicate}`, label: `Lineage of ${predicate}`, nodes, edges, start: root }, (node) => {
      render(document.querySelector('[data-key="lineage"] .aside'), aboutNode(node));
    }), h("div", { class: "aside", "aria-live": "polite", role: "region", "aria-label": "The chosen node" }, aboutNode(at))),
    answer.truncated && h("p", { class: "quiet" }, "The graph goes on; it is cut here."), row(h("a", { href: changed({ lineage: null }) }, "Close")));
}

export async function subjectPage({ id, query, signal }) {
  if (id.includes("*")) return truths({ query: new URLSearchParams({ subject: id }), signal });
  const asOf = query.get("as_of");
  const [{ truths: now }, { truths: then }] = await Promise.all([get("/v1/truths", { subject: id, limit: 200 }, signal), get("/v1/truths", { subject: id, as_of: asOf, limit: 200 }, signal)]);
  const names = [...new Set([...now, ...then].map((one) => one.predicate))];
  const histories = await Promise.all(names.slice(0, HISTORIES).map((predicate) => orNothing(get("/v1/truths/history", { subject: id, predicate, limit: 500 }, signal), null)));
  const told = new Map(histories.filter(Boolean).map((one) => [one.predicate, one]));
  const stops = moments([...told.values()]);
  const span = { from: stops[0] ?? Date.now(), to: Math.max(Date.now(), stops.at(-1) ?? 0) };
  const chosen = query.get("lineage");
  const graphed = chosen && names.includes(chosen) ? await orNothing(get("/v1/lineage", { subject: id, predicate: chosen, as_of: asOf, max_nodes: NODES, limit: NODES }, signal), null) : null;
  return [
    h("div", { class: "head" }, h("div", {}, title(mono(id)), lead(asOf ? ["As the log knew it at ", time(asOf, { exact: true }), "."] : "As the log knows it now.")), id.startsWith("job:") && h("a", { class: "button", href: link("jobs", id.slice(4)) }, "The job")),
    slider(stops, asOf),
    graphed && lineage(id, chosen, graphed),
    then.length ? wide(then.map((one) => truthCard(one, told.get(one.predicate), span, asOf))) : note(asOf ? "Nothing was known of it then." : "Nothing is known of it."),
  ];
}
