// Lines over time: a picture that says its figures, to the pointer, to the keyboard and to a screen reader.

import { h, svg } from "../dom.js";
import { recall, remember } from "../memory.js";
import { clock, number } from "../words.js";

const HEIGHT = 100;
const WIDTH = 600;

function scale(most) {
  // The next round number above: 1, 2, 5, 10, 20, ...
  if (!(most > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= most * 0.999);
}

function path(values, top, { area = false } = {}) {
  const x = (index) => (index / Math.max(1, values.length - 1)) * WIDTH;
  const y = (value) => HEIGHT - (value / top) * (HEIGHT - 4);
  let drawn = "", begun = null;
  values.forEach((value, index) => {
    if (value === null || value === undefined) { if (area && begun !== null) drawn += `L${x(index - 1)} ${HEIGHT}L${begun} ${HEIGHT}Z`; begun = null; return; }
    drawn += `${begun === null ? "M" : "L"}${x(index).toFixed(1)} ${y(value).toFixed(1)}`;
    if (begun === null) { begun = x(index); if (values[index + 1] === null || index === values.length - 1) drawn += `l.01 0`; }
  });
  if (area && begun !== null) drawn += `L${WIDTH} ${HEIGHT}L${begun} ${HEIGHT}Z`;
  return drawn;
}

export function lines({ id, moments, series, unit = number, label, stacked = false }) {
  // moments: instants; series: [{ name, kind, values: [number or null] }]
  const known = series.flatMap((one) => one.values).filter((value) => value !== null && value !== undefined);
  const top = scale(Math.max(0, ...known));
  const last = moments.length - 1;
  const say = (index) => `${clock(moments[index])}: ${series.map((one) => `${one.name} ${one.values[index] === null || one.values[index] === undefined ? "–" : unit(one.values[index])}`).join(", ")}`;
  const newest = (one) => [...one.values].reverse().find((value) => value !== null && value !== undefined) ?? null;
  const at = Math.min(last, recall(`chart:${id}`, -1));

  const read = (figure, index) => {
    remember(`chart:${id}`, index);
    const cursor = figure.querySelector(".cursor"), readout = figure.querySelector(".readout");
    cursor.hidden = index < 0;
    cursor.style.left = `${(100 * Math.max(0, index)) / Math.max(1, last)}%`;
    readout.textContent = index < 0 ? "" : say(index);
  };
  const pointed = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    read(event.currentTarget.closest("figure"), Math.max(0, Math.min(last, Math.round(((event.clientX - box.left) / box.width) * last))));
  };
  const pressed = (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -last, End: last }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    const from = recall(`chart:${id}`, -1);
    read(event.currentTarget.closest("figure"), Math.max(0, Math.min(last, (from < 0 ? last : from) + step)));
  };
  const summary = `${label}. ${series.map((one) => `${one.name}: now ${newest(one) === null ? "nothing" : unit(newest(one))}, at most ${unit(Math.max(0, ...one.values.filter((value) => value !== null && value !== undefined)))}`).join("; ")}. Arrow keys read single moments.`;

  return h("figure", { class: "chart", "data-key": `chart-${id}` },
    h("figcaption", {}, h("h2", {}, label), h("ul", { class: "legend" }, series.map((one) => h("li", { class: one.kind }, one.name, " ", h("b", {}, newest(one) === null ? "–" : unit(newest(one))))))),
    h("div", { class: "plot" },
      h("span", { class: "most", "aria-hidden": "true" }, unit(top)), h("span", { class: "least", "aria-hidden": "true" }, unit(0)),
      h("div", { class: "area", tabindex: 0, role: "img", "aria-label": summary, onpointermove: pointed, onpointerleave: (event) => read(event.currentTarget.closest("figure"), -1), onkeydown: pressed, onblur: (event) => read(event.currentTarget.closest("figure"), -1) },
        svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" },
          [0, 0.5, 1].map((share) => svg("line", { class: "rule", x1: 0, x2: WIDTH, y1: HEIGHT - share * (HEIGHT - 4), y2: HEIGHT - share * (HEIGHT - 4) })),
          series.map((one, index) => [(stacked || index === 0) && svg("path", { class: `fill ${one.kind}`, d: path(one.values, top, { area: true }) }), svg("path", { class: `line ${one.kind}`, d: path(one.values, top) })])),
        h("i", { class: "cursor", hidden: at < 0, style: { left: `${(100 * Math.max(0, at)) / Math.max(1, last)}%` } })),
      h("div", { class: "ends", "aria-hidden": "true" }, h("span", {}, clock(moments[0])), h("span", {}, clock(moments[last])))),
    h("p", { class: "readout", "aria-live": "polite" }, at < 0 ? "" : say(at)));
}

export function spark(values, kind) {
  const known = values.filter((value) => value !== null && value !== undefined);
  const top = Math.max(...known, 1e-9);
  return svg("svg", { class: "spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("path", { class: `fill ${kind}`, d: path(values, top, { area: true }) }), svg("path", { class: `line ${kind}`, d: path(values, top) }));
}
