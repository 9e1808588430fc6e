// Runners: who is there, what they can do, how full they are, and which of them are not trusted with work at the moment.

import { get } from "../api.js";
import { h } from "../dom.js";
import { card, grid, lead, meter, mono, note, since, table, tag, title } from "../parts.js";
import { link } from "../router.js";
import { number, percent, plural } from "../words.js";

const SILENT_SECONDS = 6;

function slots(runner) {
  // Each slot as a square while they can be counted at a glance, otherwise a bar.
  const words = `${number(runner.in_flight)} of ${plural(runner.slots, "slot")} busy`;
  if (runner.slots > 64) return [meter(runner.in_flight / runner.slots, `Slots of ${runner.name}`, { words }), words];
  return [h("div", { class: "slots", role: "img", "aria-label": words }, Array.from({ length: runner.slots }, (_, index) => h("i", { class: index < runner.in_flight ? "busy" : "" }))), h("span", { class: "quiet" }, words)];
}

function breakersOf(runner, breakers) {
  return Object.entries(breakers).filter(([subject, one]) => one.state !== "CLOSED" && (subject.includes(runner.runner_id) || subject.includes(runner.name)));
}

function shownRunner(runner, breakers) {
  const silent = runner.state === "REGISTERED" && Date.now() - new Date(runner.last_heartbeat_at ?? runner.registered_at) > SILENT_SECONDS * 1000;
  return h("section", { class: "card runner", "data-key": runner.runner_id },
    h("h2", {}, runner.name, " ", silent ? tag("silent", "bad") : tag(runner.state)), h("p", { class: "mono quiet" }, runner.runner_id), slots(runner),
    breakersOf(runner, breakers).map(([subject, one]) => note(tag(`breaker ${one.state}`, "bad"), ` ${subject}: ${one.reason}`)),
    h("ul", { class: "chips" }, runner.capabilities.map((name) => h("li", {}, h("a", { href: link("jobs", null, { job_type: name.split("@")[0] }) }, name)))),
    h("p", { class: "quiet" }, `pool ${runner.pool}`, Object.entries(runner.labels).map(([name, value]) => [" · ", mono(`${name}=${value}`)]), " · seen ", since(runner.last_heartbeat_at ?? runner.registered_at)));
}

export async function runners({ signal }) {
  const [{ runners: all }, controls] = await Promise.all([get("/v1/runners", {}, signal), get("/v1/controls", {}, signal)]);
  const here = all.filter((one) => one.state !== "LEFT").sort((a, b) => a.name.localeCompare(b.name) || a.runner_id.localeCompare(b.runner_id));
  const left = all.filter((one) => one.state === "LEFT");
  const takes = here.filter((one) => one.state === "REGISTERED"), total = takes.reduce((sum, one) => sum + one.slots, 0), busy = takes.reduce((sum, one) => sum + one.in_flight, 0);
  const breakers = Object.entries(controls.breakers);
  return [
    title("Runners"), lead(`${plural(takes.length, "runner")} take${takes.length === 1 ? "s" : ""} work; ${number(busy)} of ${plural(total, "slot")} busy${total ? `, ${percent(busy / total)}` : ""}.`),
    here.length ? grid(here.map((one) => shownRunner(one, controls.breakers))) : note("No runner is there. ", mono("controlplane runner package.module:runner"), " starts one."),
    card("Circuit breakers", breakers.length ? table(["What", "State", "Opened", "Why"], breakers.map(([subject, one]) => [mono(subject), tag(one.state), plural(one.openings, "time"), one.reason]), { caption: "Circuit breakers", keys: breakers.map(([subject]) => subject) }) : h("p", { class: "quiet" }, "All closed: no runner fails so often that work is kept from it.")),
    left.length > 0 && h("details", { class: "card" }, h("summary", {}, `${plural(left.length, "runner")} left`), table(["Runner", "Process", "Last seen"], left.slice(0, 100).map((one) => [one.name, mono(one.runner_id), since(one.last_heartbeat_at)]), { caption: "Runners that left", keys: left.slice(0, 100).map((one) => one.runner_id) })),
  ];
}
