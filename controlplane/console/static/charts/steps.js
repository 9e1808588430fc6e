// A truth over time: how sure it was and what it said, from one change to the next.

import { h, svg } from "../dom.js";
import { clock, number, percent } from "../words.js";

const WIDTH = 1000;
const HEIGHT = 60;

export const wordsOf = (interval) => (interval.value === null ? "nothing" : `${typeof interval.value === "number" ? number(interval.value) : JSON.stringify(interval.value)}${interval.unit ? ` ${interval.unit}` : ""}`);

export function steps(intervals, { from, to, at = null, label }) {
  // Each interval is a block as high as it was sure; values that differ have different tones.
  const span = Math.max(1, to - from);
  const x = (moment) => (Math.max(0, Math.min(span, moment - from)) / span) * WIDTH;
  const tones = [...new Set(intervals.map((one) => JSON.stringify(one.value)))];
  const blocks = intervals.filter((one) => one.value !== null).map((one) => {
    const begin = x(+new Date(one.since)), end = one.until ? x(+new Date(one.until)) : WIDTH, high = one.confidence * (HEIGHT - 2);
    return svg("rect", { class: `tone${tones.indexOf(JSON.stringify(one.value)) % 5}`, x: begin, width: Math.max(2, end - begin), y: HEIGHT - high, height: high },
      svg("title", {}, `${wordsOf(one)}, ${percent(one.confidence)} from ${clock(one.since)} on`));
  });
  const told = intervals.map((one) => `${wordsOf(one)}, ${percent(one.confidence)}, from ${clock(one.since)}`).join("; ");
  return h("div", { class: "steps" },
    svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": `${label}: ${told}` },
      svg("line", { class: "rule", x1: 0, x2: WIDTH, y1: HEIGHT - 1, y2: HEIGHT - 1 }), blocks,
      at !== null && svg("line", { class: "now", x1: x(at), x2: x(at), y1: 0, y2: HEIGHT })),
    h("div", { class: "ends", "aria-hidden": "true" }, h("span", {}, clock(from)), h("span", {}, clock(to))));
}
