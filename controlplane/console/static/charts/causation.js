// From the gateway's causation tree to a graph: records that repeat (progress, log lines) are one node until somebody looks.

import { h, render } from "../dom.js";
import { link } from "../router.js";
import { facts, job, json, position, row, table, tag, time } from "../parts.js";
import { between, clock, duration, gist, kindOfEvent, plural } from "../words.js";
import { chosenIn, graph } from "./graph.js";

const ALIKE_AT_MOST = 2;

export function flatten(tree, chain = []) {
  const nodes = [], edges = [], begun = tree.event.log_time;
  const add = (event, from, members) => {
    const id = event.position;
    const title = members ? `${event.event_type} × ${members.length}` : event.event_type;
    const sub = members ? `${clock(members[0].log_time)} to ${clock(members.at(-1).log_time)}` : `+${duration(between(begun, event.log_time))} ${gist(event)}`;
    nodes.push({ id, title, sub, kind: kindOfEvent(event.event_type), event, members });
    if (from) edges.push([from, id]);
  };
  chain.forEach((event, index) => add(event, index ? chain[index - 1].position : null, null));
  const grow = (node, from) => {
    add(node.event, from, null);
    const leaves = new Map();
    for (const effect of node.effects) if (!effect.effects.length) leaves.set(effect.event.event_type, [...(leaves.get(effect.event.event_type) ?? []), effect.event]);
    const told = new Set();
    for (const effect of node.effects) {
      const type = effect.event.event_type, alike = effect.effects.length ? [] : leaves.get(type);
      if (alike.length <= ALIKE_AT_MOST) grow(effect, node.event.position);
      else if (!told.has(type)) { told.add(type); add(alike[0], node.event.position, alike); }
    }
  };
  grow(tree, chain.length ? chain.at(-1).position : null);
  return { nodes, edges };
}

export function record(event) {
  // One decoded record, with what it leads to.
  const { header, ...fields } = event.event;
  return [h("div", {}, h("h3", {}, event.event_type, " ", tag(event.producer, "other")),
    facts([["Position", position(event.position)], ["Log time", time(event.log_time, { exact: true })], ["Caused by", event.causation ? position(event.causation) : "from outside"],
      ["Job", event.event.job_id && job(event.event.job_id)], ["Key", h("span", { class: "mono" }, event.key)]]),
    row(h("a", { href: link("events", event.position) }, "Open this record"))), json({ ...fields, header }, `Fields of ${event.event_type}`)];
}

function panel(node) {
  if (!node.members) return record(node.event);
  return [h("div", {}, h("h3", {}, node.title), h("p", { class: "quiet" }, `${plural(node.members.length, "record")} of one cause.`)),
    table(["Log time", "Position", "Says"], node.members.map((one) => [time(one.log_time, { exact: true }), position(one.position), gist(one)]), { caption: node.title, keys: node.members.map((one) => one.position) })];
}

export function causation(id, tree, { chain = [], chosen } = {}) {
  const { nodes, edges } = flatten(tree, chain);
  const start = chosen ?? nodes[0].id;
  const at = nodes.find((one) => one.id === chosenIn(id, start)) ?? nodes.find((one) => one.id === start) ?? nodes[0];
  const aside = h("div", { class: "aside", "aria-live": "polite", role: "region", "aria-label": "The chosen record" }, panel(at));
  return h("div", { class: "walk" }, graph({ id, label: "Causation graph", nodes, edges, start: nodes[0].id, chosen: start }, (node) => {
    render(document.querySelector(`[data-key="graph-${CSS.escape(id)}"]`).parentElement.querySelector(".aside"), panel(node));
  }), aside);
}
