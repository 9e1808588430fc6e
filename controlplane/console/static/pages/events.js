// The topics as they are: every record, decoded, with its cause and its effects.

import { get } from "../api.js";
import { causation } from "../charts.js";
import { card, facts, h, job, json, position, table, time } from "../dom.js";

const TOPICS = ["submissions", "jobs", "routing", "progress", "runners", "truth", "deadletters", "joblogs"];

export async function events({ query, signal }) {
  const topic = query.get("topic") ?? "";
  const { events: page, next_cursor: next } = await get("/v1/events", { topic, event_type: query.get("event_type"), cursor: query.get("cursor"), limit: 50 }, signal);
  const form = h("form", { class: "filters" }, h("label", {}, "Topic", h("select", { name: "topic" }, h("option", { value: "" }, "all"), TOPICS.map((name) => h("option", { value: `controlplane.${name}`, selected: topic === `controlplane.${name}` }, name)))),
    h("label", {}, "Event", h("input", { name: "event_type", value: query.get("event_type") ?? "", placeholder: "JobCompleted" })), h("button", { class: "main" }, "Show"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    location.hash = `#/events?${new URLSearchParams([...new FormData(form)].filter(([, value]) => value))}`;
  });
  return [h("h1", {}, "Topics"), h("p", { class: "lead" }, "The log itself. Everything else on these pages follows from it."), form,
    card(null, table(["Position", "Log time", "Event", "Key", "Producer"], page.map((event) => [position(event.position), time(event.log_time), h("details", {}, h("summary", {}, event.event_type), json(event.event)), h("span", { class: "mono" }, event.key), event.producer]), "Records"),
      next && h("p", {}, h("a", { href: `#/events?${new URLSearchParams([...[...query].filter(([name]) => name !== "cursor"), ["cursor", next]])}` }, "More records")))];
}

export async function eventPage({ id, signal }) {
  const { chain, tree } = await get("/v1/causation", { event: id }, signal);
  const { event } = tree;
  return [h("h1", {}, event.event_type), h("p", { class: "lead mono" }, event.position),
    card("Why: the chain up to where it began", chain.length > 1 ? table(["Position", "Event", "Log time"], chain.map((step) => [position(step.position), step.event_type, time(step.log_time)]), "Causes") : h("p", { class: "quiet" }, "It came from outside: nothing on the log caused it.")),
    card("What followed from it", causation(tree, null, event.position)),
    h("div", { class: "grid wide" },
      card("Facts", facts([["Event id", h("span", { class: "mono" }, event.event_id)], ["Log time", time(event.log_time)], ["Made at", time(event.occurred_at)], ["Producer", event.producer], ["Key", h("span", { class: "mono" }, event.key)], ["Job", event.event.job_id && job(event.event.job_id)],
        ["Correlation", h("span", { class: "mono" }, event.correlation_id)], ["Caused by", event.causation ? position(event.causation) : "from outside"]])),
      card("Content", json(event.event)))];
}
