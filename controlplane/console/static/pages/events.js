// The topics as they are: every record, decoded, with its cause and its effects.

import { get, of } from "../api.js";
import { causation } from "../charts/causation.js";
import { h } from "../dom.js";
import { card, choice, facts, field, filters, job, json, lead, mono, pager, position, quiet, table, tag, time, title, wide } from "../parts.js";
import { changed, link } from "../router.js";
import { gist } from "../words.js";

const TOPICS = ["submissions", "jobs", "routing", "progress", "runners", "truth", "joblogs", "controls", "checkpoints", "deadletters"];

export async function events({ query, signal }) {
  const topic = query.get("topic") ?? "";
  const { events: page, next_cursor: next } = await get("/v1/events", { topic, event_type: query.get("event_type"), correlation_id: query.get("correlation_id"), cursor: query.get("cursor"), limit: 50 }, signal);
  const tab = (name, words) => h("a", { href: changed({ topic: name && `controlplane.${name}` }), "aria-current": topic === (name && `controlplane.${name}`) ? "true" : null }, words);
  return [
    title("Topics"), lead("The log itself: each record as it was written, newest first. Everything else on these pages follows from it."),
    h("nav", { class: "tabs", "aria-label": "Topic" }, tab("", "all"), TOPICS.map((name) => tab(name, name))),
    filters([field("Event", "event_type", query.get("event_type"), { placeholder: "JobCompleted" }), field("Correlation", "correlation_id", query.get("correlation_id"), { size: 36 }), topic && h("input", { type: "hidden", name: "topic", value: topic })], link("events", null, { topic })),
    card(null, table(["Position", "Log time", "Event", "Key", "By", "Says"], page.map((one) => [position(one.position), time(one.log_time, { exact: true }), h("details", {}, h("summary", {}, one.event_type), json(one.event, `Fields of ${one.event_type}`)), mono(one.key), one.producer, quiet(gist(one))]),
      { caption: "Records", keys: page.map((one) => one.position), empty: "No record matches." }), pager(query, next)),
  ];
}

export async function eventPage({ id, signal }) {
  const { chain, tree } = await get("/v1/causation", { event: id }, signal);
  const { event } = tree;
  const [topic, partition, offset] = event.position.split(/\/(?=\d+\/\d+$)|\/(?=\d+$)/);
  const beside = (by, words) => Number(offset) + by >= 0 && h("a", { class: "button", href: link("events", `${topic}/${partition}/${Number(offset) + by}`) }, words);
  return [
    h("div", { class: "head" }, h("div", {}, title(event.event_type, " ", tag(event.producer, "other")), lead(mono(event.position))), h("div", { class: "row" }, beside(-1, "‹ Previous record"), beside(1, "Next record ›"))),
    card("What led to it, and what followed", causation(`event ${event.position}`, tree, { chain: chain.slice(0, -1), chosen: event.position })),
    wide(
      card("Facts", facts([["Position", mono(event.position)], ["Log time", time(event.log_time, { exact: true })], ["Made at", time(event.occurred_at, { exact: true })], ["Key", mono(event.key)], ["Event id", mono(event.event_id)], ["Job", event.event.job_id && job(event.event.job_id)],
        ["Correlation", h("a", { class: "mono", href: link("events", null, { correlation_id: event.correlation_id }) }, event.correlation_id)], ["Caused by", event.causation ? position(event.causation) : "from outside"]])),
      card("Content", json(event.event, `Fields of ${event.event_type}`))),
  ];
}
