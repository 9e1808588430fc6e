// Pictures of numbers and of causes, as SVG.

import { duration, h, kindOf, number, svg } from "./dom.js";

const COLOURS = { ok: "var(--ok)", run: "var(--run)", wait: "var(--wait)", bad: "var(--bad)", other: "var(--other)" };

export function series(points, { label, unit = "", height = 130 }) {
  // points: [{ x: milliseconds, y: number }], in order of x
  const width = 640, left = 44, bottom = 18, top = 8;
  if (points.length < 2) return h("p", { class: "quiet" }, "Too little has happened to draw a line yet.");
  const most = Math.max(...points.map((point) => point.y), 1);
  const [first, last] = [points[0].x, points.at(-1).x];
  const x = (value) => left + ((value - first) / Math.max(1, last - first)) * (width - left - 6);
  const y = (value) => top + (1 - value / most) * (height - top - bottom);
  const line = points.map((point, index) => `${index ? "L" : "M"}${x(point.x).toFixed(1)} ${y(point.y).toFixed(1)}`).join(" ");
  const clock = (value) => new Date(value).toLocaleTimeString();
  return svg("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${label}: from ${number(points[0].y)} to ${number(points.at(-1).y)} ${unit}, at most ${number(most)}` },
    svg("line", { class: "axis", x1: left, x2: width, y1: height - bottom, y2: height - bottom }),
    svg("line", { class: "axis", x1: left, x2: width, y1: top, y2: top }),
    svg("text", { x: left - 6, y: top + 8, "text-anchor": "end" }, number(Math.round(most * 100) / 100)), svg("text", { x: left - 6, y: height - bottom, "text-anchor": "end" }, "0"),
    svg("text", { x: left, y: height - 4 }, clock(first)), svg("text", { x: width - 4, y: height - 4, "text-anchor": "end" }, clock(last)),
    svg("path", { d: `${line} L${x(last)} ${height - bottom} L${x(first)} ${height - bottom} Z`, fill: "var(--accent)", "fill-opacity": ".14" }),
    svg("path", { d: line, fill: "none", stroke: "var(--accent)", "stroke-width": 2, "stroke-linejoin": "round" }));
}

export function gantt(job) {
  // One row per attempt: waiting for the runner, then running; coloured by how it ended.
  const instants = [job.submitted_at, job.concluded_at, ...job.attempts.flatMap((attempt) => [attempt.routed_at, attempt.started_at, attempt.ended_at])].filter(Boolean).map((text) => +new Date(text));
  if (!instants.length) return null;
  const open = job.concluded_at ? Math.max(...instants) : Math.max(Date.now(), ...instants);
  const first = Math.min(...instants), span = Math.max(1, open - first);
  const width = 720, left = 120, row = 26, height = row * (job.attempts.length + 1) + 22;
  const x = (text) => left + ((text ? +new Date(text) : open) - first) / span * (width - left - 10);
  const box = (from, to, line, kind, words, soft) => svg("rect", { x: x(from), y: line * row + 5, height: row - 10, width: Math.max(2, x(to) - x(from)), rx: 3, fill: COLOURS[kind], "fill-opacity": soft ? ".28" : "1" }, svg("title", {}, words));
  const rows = job.attempts.map((attempt, index) => {
    const line = index + 1, words = `attempt ${attempt.attempt_number} on ${attempt.runner_id}: ${attempt.phase.toLowerCase()}`;
    return [svg("text", { x: 0, y: line * row + 17 }, `attempt ${attempt.attempt_number}`),
      attempt.routed_at && box(attempt.routed_at, attempt.started_at ?? attempt.ended_at, line, "wait", `${words}, handed over`, true),
      attempt.started_at && box(attempt.started_at, attempt.ended_at, line, kindOf(attempt.phase), words)];
  });
  return svg("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${job.attempts.length} attempts in ${duration(span)}` },
    svg("text", { x: 0, y: 17 }, "job"), box(job.submitted_at, job.concluded_at, 0, kindOf(job.phase), `${job.phase.toLowerCase()}, ${duration(span)}`, true), rows,
    svg("line", { class: "axis", x1: left, x2: width - 10, y1: height - 20, y2: height - 20 }),
    svg("text", { x: left, y: height - 6 }, "0"), svg("text", { x: width - 10, y: height - 6, "text-anchor": "end" }, duration(span)));
}

export function causation(node, choose, chosen) {
  // A tree from left to right: each record beside its effects. Nodes are links, so that it can be walked with the keyboard.
  const columnWidth = 210, rowHeight = 44, boxWidth = 176, boxHeight = 32;
  const boxes = [], edges = [];
  let rows = 0;
  const place = (at, depth) => {
    const children = at.effects.map((effect) => place(effect, depth + 1));
    const line = children.length ? (children[0].line + children.at(-1).line) / 2 : rows++;
    const box = { event: at.event, depth, line };
    boxes.push(box);
    edges.push(...children.map((child) => [box, child]));
    return box;
  };
  place(node, 0);
  const depth = Math.max(...boxes.map((box) => box.depth));
  const width = depth * columnWidth + boxWidth + 4, height = Math.max(1, rows) * rowHeight + 4;
  const left = (box) => box.depth * columnWidth + 2, top = (box) => box.line * rowHeight + 6;
  const kind = (name) => (/Completed|Succeeded|Accepted/.test(name) ? "ok" : /Failed|Lost|Rejected|Refused/.test(name) ? "bad" : /Routed|Started|Progressed/.test(name) ? "run" : /Truth/.test(name) ? "wait" : "other");
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Causation graph" }, svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, "aria-label": `${boxes.length} events and what caused them` },
    edges.map(([from, to]) => svg("path", { d: `M${left(from) + boxWidth} ${top(from) + boxHeight / 2} C${left(from) + columnWidth - 10} ${top(from) + boxHeight / 2} ${left(to) - 24} ${top(to) + boxHeight / 2} ${left(to)} ${top(to) + boxHeight / 2}`, fill: "none", stroke: "var(--quiet)", "stroke-opacity": ".6" })),
    boxes.map((box) => svg("a", { href: `#/events/${encodeURIComponent(box.event.position)}`, "aria-label": `${box.event.event_type} at ${box.event.position}`, onclick: choose && ((click) => { click.preventDefault(); choose(box.event); }) },
      svg("rect", { x: left(box), y: top(box), width: boxWidth, height: boxHeight, rx: 7, fill: `var(--${kind(box.event.event_type)}-soft)`, stroke: COLOURS[kind(box.event.event_type)], "stroke-width": box.event.position === chosen ? 2.5 : 1 }),
      svg("text", { x: left(box) + 10, y: top(box) + 21, class: "node" }, box.event.event_type), svg("title", {}, `${box.event.position}\n${box.event.log_time}`)))));
}
