// Jobs: found, filtered, acted on together; one job with its attempts, its events and its causes.

import { get, post } from "../api.js";
import { causation, gantt } from "../charts.js";
import { between, card, duration, facts, h, job, json, percent, position, table, tag, time } from "../dom.js";

const PHASES = ["SUBMITTED", "QUEUED", "DELAYED", "ROUTED", "RUNNING", "RETRYING", "COMPLETED", "FAILED", "CANCELLED", "REJECTED"];
const OVER = new Set(["COMPLETED", "FAILED", "CANCELLED", "REJECTED"]);
const FILTERS = [["job_type", "Type"], ["pool", "Pool"], ["tenant", "Tenant"], ["correlation_id", "Correlation"]];

function filters(query) {
  const form = h("form", { class: "filters" },
    h("label", {}, "Phase", h("select", { name: "phase" }, h("option", { value: "" }, "any"), PHASES.map((phase) => h("option", { value: phase, selected: query.get("phase") === phase }, phase.toLowerCase())))),
    FILTERS.map(([name, words]) => h("label", {}, words, h("input", { name, value: query.get(name) ?? "", size: 14 }))),
    h("button", { class: "main" }, "Filter"), h("a", { href: "#/jobs" }, "Clear"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    location.hash = `#/jobs?${new URLSearchParams([...new FormData(form)].filter(([, value]) => value))}`;
  });
  return form;
}

export async function jobs({ query, signal, again }) {
  const { jobs: page, next_cursor: next } = await get("/v1/jobs", { limit: 50, ...Object.fromEntries(query) }, signal);
  const status = h("span", { role: "status", class: "quiet" });
  const boxes = page.map((one) => h("input", { type: "checkbox", value: one.job_id, "aria-label": `Choose ${one.job_id}` }));
  const cancel = h("button", { type: "button", onclick: async () => {
    const chosen = boxes.filter((box) => box.checked).map((box) => box.value);
    if (!chosen.length) { status.textContent = "Choose jobs first."; return; }
    const answers = await Promise.allSettled(chosen.map((id) => post(`/v1/jobs/${encodeURIComponent(id)}/cancel`, { reason: "cancelled in the console" })));
    const refused = answers.filter((one) => one.status === "rejected");
    status.textContent = refused.length ? `${refused.length} of ${chosen.length} refused: ${refused[0].reason.message}` : `Asked for ${chosen.length} to be cancelled.`;
    for (const box of boxes) box.checked = false;
    again();
  } }, "Cancel chosen");
  return [
    h("h1", {}, "Jobs"), filters(query),
    card(null, h("div", { class: "filters" }, cancel, status),
      table(["", "Job", "Type", "Phase", "Priority", "Attempts", "Submitted", "Took"], page.map((one, index) => [
        OVER.has(one.phase) ? "" : boxes[index], job(one.job_id), one.job_type, tag(one.phase), String(one.priority), String(one.attempts.length), time(one.submitted_at), duration(between(one.submitted_at, one.concluded_at))]), "Jobs"),
      next && h("p", {}, h("a", { href: `#/jobs?${new URLSearchParams([...[...query].filter(([name]) => name !== "cursor"), ["cursor", next]])}` }, "Older jobs"))),
  ];
}

function attempts(one) {
  return table(["Attempt", "Runner", "Ended as", "Run time", "Progress", "Why there, what happened"], one.attempts.map((attempt) => [
    String(attempt.attempt_number), h("span", { class: "mono" }, attempt.runner_id), tag(attempt.phase), duration(between(attempt.started_at, attempt.ended_at)),
    attempt.fraction === null ? "–" : h("div", {}, h("div", { class: "bar", role: "progressbar", "aria-valuenow": Math.round(100 * attempt.fraction), "aria-label": `attempt ${attempt.attempt_number}` }, h("i", { "data-width": attempt.fraction })), `${percent(attempt.fraction)} ${attempt.message ?? ""}`),
    h("div", {}, attempt.routing_reason, attempt.error && h("div", {}, attempt.error.message))]), "Attempts");
}

function act(one, again) {
  if (OVER.has(one.phase)) return null;
  const status = h("span", { role: "status", class: "quiet" });
  const button = h("button", { type: "button", onclick: async () => {
    button.disabled = true;
    try {
      await post(`/v1/jobs/${encodeURIComponent(one.job_id)}/cancel`, { reason: "cancelled in the console" });
      status.textContent = " asked for";
      setTimeout(again, 800);
    } catch (error) {
      status.textContent = ` ${error.message}`;
      button.disabled = false;
    }
  } }, "Cancel");
  return [button, status];
}

export async function jobPage({ id, signal, again }) {
  const path = `/v1/jobs/${encodeURIComponent(id)}`;
  const [{ job: one }, { events }, graph] = await Promise.all([get(path, {}, signal), get(`${path}/events`, { limit: 500 }, signal), get("/v1/causation", { job: id }, signal)]);
  const content = [
    h("h1", {}, h("span", { class: "mono" }, one.job_id), " ", tag(one.phase)), h("p", { class: "lead" }, one.job_type, one.waiting_for && `: ${one.waiting_for}`, " ", act(one, again)),
    one.error && h("div", { class: "problem" }, h("b", {}, one.error.code), " ", one.error.message),
    card("Timeline", gantt(one), attempts(one)),
    h("div", { class: "grid wide" },
      card("Facts", facts([["Submitted", time(one.submitted_at)], ["Concluded", time(one.concluded_at)], ["Took", duration(between(one.submitted_at, one.concluded_at))], ["Pool", one.pool], ["Priority", String(one.priority)], ["Tenant", one.tenant],
        ["Correlation", h("a", { class: "mono", href: `#/jobs?correlation_id=${encodeURIComponent(one.correlation_id)}` }, one.correlation_id)], ["Parent", one.parent_job_id && job(one.parent_job_id)]])),
      card("Input and output", h("h3", { class: "quiet" }, "Payload"), json(one.payload), h("h3", { class: "quiet" }, "Result"), json(one.result))),
    card("What caused what", causation(graph.tree)),
    card("Events", table(["Log time", "Event", "Position", "Caused by"], events.map((event) => [time(event.log_time), h("details", {}, h("summary", {}, event.event_type), json(event.event)), position(event.position), event.causation ? position(event.causation) : h("span", { class: "quiet" }, "from outside")]), "Events of the job")),
  ];
  for (const bar of content.flatMap((part) => (part instanceof Element ? [...part.querySelectorAll("[data-width]")] : []))) bar.style.width = `${100 * bar.dataset.width}%`;
  return content.filter(Boolean);
}
