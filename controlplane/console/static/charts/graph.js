// A graph of records: causes on the left, effects on the right. It is walked with the arrow keys or the pointer; the page shows what is chosen.

import { h, svg } from "../dom.js";
import { recall, remember } from "../memory.js";

const COLUMN = 212;
const LINE = 52;
const BOX = { width: 182, height: 38 };
const TITLE_CHARACTERS = 24;
const SUB_CHARACTERS = 31;
const EDGE = 6;

const short = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

export function layout(nodes, edges) {
  // Columns by the longest way from a start; in a column, each node beside what it follows from.
  const out = new Map(nodes.map((one) => [one.id, []])), into = new Map(nodes.map((one) => [one.id, []]));
  for (const [from, to] of edges) {
    if (!out.has(from) || !out.has(to) || from === to) continue;
    out.get(from).push(to);
    into.get(to).push(from);
  }
  const column = new Map(), open = new Set();
  const depth = (id) => {
    if (column.has(id)) return column.get(id);
    if (open.has(id)) return 0; // A circle: some edge of it has to point back.
    open.add(id);
    const found = Math.max(0, ...into.get(id).map((from) => depth(from) + 1));
    open.delete(id);
    column.set(id, found);
    return found;
  };
  nodes.forEach((one) => depth(one.id));
  for (const { id } of nodes) {
    // What begins somewhere stands just before what it leads to.
    if (!into.get(id).length && out.get(id).length) column.set(id, Math.max(0, Math.min(...out.get(id).map((to) => column.get(to))) - 1));
  }
  const columns = [];
  for (const { id } of nodes) (columns[column.get(id)] ??= []).push(id);
  const line = new Map(), mean = (ids) => ids.reduce((sum, id) => sum + line.get(id), 0) / ids.length;
  const spread = () => {
    for (const ids of columns) {
      const wished = new Map(ids.map((id) => [id, into.get(id).some((from) => line.has(from)) ? mean(into.get(id).filter((from) => line.has(from))) : line.get(id) ?? 0]));
      ids.sort((a, b) => wished.get(a) - wished.get(b));
      let free = 0;
      for (const id of ids) {
        line.set(id, Math.max(free, Math.round(wished.get(id))));
        free = line.get(id) + 1;
      }
    }
  };
  spread();
  for (const { id } of nodes) if (!into.get(id).length && out.get(id).length) line.set(id, mean(out.get(id)));
  spread();
  const least = Math.min(...line.values());
  for (const [id, at] of line) line.set(id, at - least);
  return { out, into, column, line };
}

export function graph({ id, label, nodes, edges, start, chosen: wanted }, choose) {
  const { out, into, column, line } = layout(nodes, edges);
  const by = new Map(nodes.map((one) => [one.id, one]));
  const remembered = recall(`graph:${id}`, wanted ?? start);
  const chosen = by.has(remembered) ? remembered : start;
  const x = (one) => column.get(one) * COLUMN + EDGE, y = (one) => line.get(one) * LINE + EDGE;
  const width = Math.max(...nodes.map((one) => x(one.id))) + BOX.width + EDGE, height = Math.max(...nodes.map((one) => y(one.id))) + BOX.height + EDGE;

  const pick = (from, to, { focus = true } = {}) => {
    const picture = from.closest("svg");
    const found = [...picture.querySelectorAll("[data-node]")].find((one) => one.getAttribute("data-node") === to);
    if (!found) return;
    remember(`graph:${id}`, to);
    for (const one of picture.querySelectorAll("[data-node]")) {
      one.setAttribute("tabindex", one === found ? "0" : "-1");
      one.setAttribute("aria-pressed", String(one === found));
    }
    for (const one of picture.querySelectorAll("[data-edge]")) one.classList.toggle("near", one.getAttribute("data-edge").split(" → ").includes(to));
    if (focus) found.focus({ preventScroll: true });
    found.scrollIntoView({ block: "nearest", inline: "nearest" });
    choose(by.get(to));
  };
  const neighbour = (from, step) => {
    // The next one of the same column, by line.
    const same = nodes.map((one) => one.id).filter((one) => column.get(one) === column.get(from)).sort((a, b) => line.get(a) - line.get(b));
    return same[same.indexOf(from) + step];
  };
  const pressed = (event) => {
    const from = event.currentTarget.getAttribute("data-node");
    const to = { ArrowRight: () => out.get(from)[0], ArrowLeft: () => into.get(from)[0], ArrowDown: () => neighbour(from, 1), ArrowUp: () => neighbour(from, -1), Home: () => start, Enter: () => from, " ": () => from }[event.key];
    if (!to) return;
    event.preventDefault();
    const found = to();
    if (found !== undefined) pick(event.currentTarget, found);
  };

  const wire = ([from, to, words]) => {
    const begin = [x(from) + BOX.width, y(from) + BOX.height / 2], end = [x(to), y(to) + BOX.height / 2];
    const bend = Math.max(24, (end[0] - begin[0]) / 2);
    return svg("path", { class: `edge${from === chosen || to === chosen ? " near" : ""}`, "data-edge": `${from} → ${to}`, d: `M${begin} C${begin[0] + bend} ${begin[1]} ${end[0] - bend} ${end[1]} ${end}` }, words && svg("title", {}, words));
  };
  const box = (one) => {
    const causes = into.get(one.id).length, effects = out.get(one.id).length;
    return svg("g", { class: `node ${one.kind}`, "data-node": one.id, "data-key": one.id, role: "button", tabindex: one.id === chosen ? 0 : -1, "aria-pressed": String(one.id === chosen), transform: `translate(${x(one.id)} ${y(one.id)})`,
      "aria-label": `${one.title}, ${one.sub}. ${causes ? `Caused by ${by.get(into.get(one.id)[0])?.title}` : "From outside"}. ${effects} ${effects === 1 ? "effect" : "effects"}.`,
      onclick: (event) => pick(event.currentTarget, one.id), onkeydown: pressed },
      svg("rect", { width: BOX.width, height: BOX.height, rx: 7 }), svg("rect", { class: "edge-mark", width: 4, height: BOX.height - 12, x: 6, y: 6, rx: 2 }),
      svg("svg", { x: 18, width: BOX.width - 22, height: BOX.height }, svg("text", { class: "title", y: 16 }, short(one.title, TITLE_CHARACTERS)), svg("text", { class: "sub", y: 30 }, short(one.sub, SUB_CHARACTERS))), svg("title", {}, `${one.title}\n${one.sub}`));
  };
  return h("div", { class: "graph", "data-key": `graph-${id}` },
    h("div", { class: "canvas", tabindex: 0, role: "region", "aria-label": `${label}: ${nodes.length} nodes` },
      svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": label }, edges.filter(([from, to]) => by.has(from) && by.has(to)).map(wire), nodes.map(box))),
    h("p", { class: "quiet hint" }, h("kbd", {}, "←"), " cause ", h("kbd", {}, "→"), " effect ", h("kbd", {}, "↑"), h("kbd", {}, "↓"), " beside ", h("kbd", {}, "Home"), " start; or click."));
}

export const chosenIn = (id, otherwise) => recall(`graph:${id}`, otherwise);
