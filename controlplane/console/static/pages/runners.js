// Runners: who is there, what they can do, how full they are.

import { get } from "../api.js";
import { card, h, number, table, tag, time } from "../dom.js";

export async function runners({ signal }) {
  const { runners: all } = await get("/v1/runners", {}, signal);
  const order = ["REGISTERED", "DRAINING", "LEFT"];
  all.sort((a, b) => order.indexOf(a.state) - order.indexOf(b.state) || a.name.localeCompare(b.name));
  const rows = all.map((runner) => {
    const bar = h("i", {});
    bar.style.width = `${100 * Math.min(1, runner.in_flight / Math.max(1, runner.slots))}%`;
    return [h("div", {}, h("b", {}, runner.name), h("div", { class: "mono quiet" }, runner.runner_id)), tag(runner.state), runner.pool,
      h("div", {}, h("div", { class: "bar", role: "meter", "aria-valuemin": 0, "aria-valuemax": runner.slots, "aria-valuenow": runner.in_flight, "aria-label": `Slots of ${runner.name}` }, bar), `${number(runner.in_flight)} of ${number(runner.slots)}`),
      runner.capabilities.map((capability) => h("div", { class: "mono" }, capability)), Object.entries(runner.labels).map(([name, value]) => h("div", { class: "mono quiet" }, `${name}=${value}`)), time(runner.last_heartbeat_at)];
  });
  return [h("h1", {}, "Runners"), h("p", { class: "lead" }, `${all.filter((runner) => runner.state === "REGISTERED").length} take work.`), card(null, table(["Runner", "State", "Pool", "Slots", "Capabilities", "Labels", "Last heartbeat"], rows, "Runners"))];
}
