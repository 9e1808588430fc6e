// A job's time: when it waited, where each attempt was handed over, ran, and how it ended.

import { h, svg } from "../dom.js";
import { between, clock, duration, kindOf } from "../words.js";

const WIDTH = 1000;
const ROW = 16;

export function gantt(job) {
  const instants = [job.submitted_at, job.concluded_at, ...job.attempts.flatMap((one) => [one.routed_at, one.started_at, one.ended_at])].filter(Boolean).map((text) => +new Date(text));
  if (!instants.length) return null;
  const first = Math.min(...instants), last = job.concluded_at ? Math.max(...instants) : Math.max(Date.now(), ...instants);
  const span = Math.max(1, last - first);
  const x = (moment) => ((moment - first) / span) * WIDTH;
  const at = (text) => (text ? +new Date(text) : last);
  const box = (from, to, kind, words) => svg("rect", { class: kind, x: x(from), y: 1, width: Math.max(2, x(to) - x(from)), height: ROW - 2, rx: 2 }, svg("title", {}, words));
  const line = (name, words, boxes) => h("div", { class: "gantt-row" }, h("span", { class: "name" }, name),
    svg("svg", { viewBox: `0 0 ${WIDTH} ${ROW}`, preserveAspectRatio: "none", role: "img", "aria-label": words }, boxes), h("span", { class: "took" }, words.split(": ").at(-1)));

  const waited = waits(job, last);
  const rows = [line("whole job", `${job.phase.toLowerCase()}: ${duration(span)}`, box(first, last, `${kindOf(job.phase)} soft`, `${job.phase.toLowerCase()} after ${duration(span)}`))];
  if (waited.length) {
    const total = waited.reduce((sum, [from, to]) => sum + to - from, 0);
    rows.push(line("waiting", `waited for a runner: ${duration(total)}`, waited.map(([from, to]) => box(from, to, "wait soft", `waited ${duration(to - from)}`))));
  }
  for (const one of job.attempts) {
    const ended = at(one.ended_at);
    const words = `attempt ${one.attempt_number} on ${one.runner_id}, ${one.phase.toLowerCase()}: ${duration(ended - at(one.started_at ?? one.routed_at))}`;
    rows.push(line(`attempt ${one.attempt_number}`, words, [
      one.routed_at && box(at(one.routed_at), one.started_at ? at(one.started_at) : ended, "wait soft", `handed over to ${one.runner_id} in ${duration(between(one.routed_at, one.started_at ?? one.ended_at))}`),
      one.started_at && box(at(one.started_at), ended, kindOf(one.phase), words),
      one.fraction !== null && !one.ended_at && one.started_at && svg("rect", { class: "ok", x: x(at(one.started_at)), y: ROW - 4, width: Math.max(1, (x(ended) - x(at(one.started_at))) * one.fraction), height: 3 }),
    ]));
  }
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((share) => h("span", {}, share === 0 ? clock(first) : `+${duration(share * span)}`));
  return h("div", { class: "gantt" }, rows, h("div", { class: "gantt-row axis", "aria-hidden": "true" }, h("span", {}), h("div", { class: "ticks" }, ticks), h("span", {})));
}

function waits(job, last) {
  // When nobody worked at it: until its first attempt, and between attempts.
  const found = [];
  let from = job.submitted_at ? +new Date(job.submitted_at) : null;
  for (const one of job.attempts) {
    if (from !== null && one.routed_at && +new Date(one.routed_at) > from) found.push([from, +new Date(one.routed_at)]);
    from = one.ended_at ? +new Date(one.ended_at) : null;
  }
  const end = job.concluded_at ? +new Date(job.concluded_at) : last;
  if (from !== null && end > from && (!job.attempts.length || !job.concluded_at)) found.push([from, end]);
  return found;
}
