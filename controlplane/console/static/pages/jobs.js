// Jobs: searched, filtered, acted on together.

import { get, of, post } from "../api.js";
import { ask, attempt, say } from "../ask.js";
import { h } from "../dom.js";
import { button, card, choice, field, filters, job, lead, pager, quiet, row, table, tag, time, title } from "../parts.js";
import { changed, go, here, link } from "../router.js";
import { between, duration, number, plural } from "../words.js";

export const PHASES = ["SUBMITTED", "QUEUED", "DELAYED", "ROUTED", "RUNNING", "RETRYING", "COMPLETED", "FAILED", "CANCELLED", "REJECTED"];
export const OVER = new Set(["COMPLETED", "FAILED", "CANCELLED", "REJECTED"]);
const FILTERS = ["search", "job_type", "pool", "tenant", "correlation_id", "parent_job_id"];
const IN_BULK = ["job_type", "pool", "tenant", "phase", "correlation_id"];
// Which phases a command can do something for.
const REACHES = {
  cancel: (phase) => !OVER.has(phase),
  retry: (phase) => phase === "FAILED",
  reprioritise: (phase) => ["SUBMITTED", "QUEUED", "DELAYED", "RETRYING"].includes(phase),
};
const WORDS = { cancel: "Cancel", retry: "Retry", reprioritise: "Change priority" };
const LOOK_MILLISECONDS = 300;

const reason = () => field("Why, for the log", "reason", "", { maxlength: 1000 });
const priority = () => h("label", {}, "Priority, 9 is critical", h("input", { name: "priority", type: "number", min: 0, max: 9, value: 8, required: true }));

export function question(action, whom) {
  return ask({
    title: `${WORDS[action]} ${whom}`, words: WORDS[action], danger: action === "cancel",
    fields: [action === "reprioritise" && priority(), reason(),
      action === "cancel" && h("label", { class: "check" }, h("input", { type: "checkbox", name: "kill" }), "Conclude at once, even if the runner does not answer")],
  });
}

export const body = (action, values) => ({ reason: values.reason, ...(action === "cancel" ? { kill: "kill" in values } : {}), ...(action === "reprioritise" ? { priority: Number(values.priority) } : {}) });

const ticked = () => [...document.querySelectorAll("input[name=chosen]:checked")];

async function together(action, again) {
  const chosen = ticked().map((box) => box.value);
  if (!chosen.length) { say("Tick jobs first, or act on all that match.", "wait"); return; }
  const values = await question(action, plural(chosen.length, "ticked job"));
  if (!values) return;
  const answers = await Promise.allSettled(chosen.map((id) => post(`/v1/jobs/${of(id)}/${action}`, body(action, values))));
  const refused = answers.filter((one) => one.status === "rejected");
  if (refused.length) say(`${refused.length} of ${chosen.length} refused: ${refused[0].reason.message}`, "bad");
  else say(`Asked for ${plural(chosen.length, "job")}; what becomes of each is an event.`);
  for (const box of ticked()) box.checked = false;
  again();
}

async function all(action, query, counts, again) {
  // One command for every job that is like this; first how many those are.
  const filter = Object.fromEntries(IN_BULK.filter((name) => query.get(name)).map((name) => [name, query.get(name)]));
  const found = Object.entries(counts).filter(([phase]) => REACHES[action](phase) && (!filter.phase || filter.phase === phase)).reduce((sum, [, jobs]) => sum + jobs, 0);
  const words = Object.entries(filter).map(([name, value]) => `${name.replaceAll("_", " ")} ${value}`).join(", ") || "any job";
  if (!found) { say(`No job that ${action === "retry" ? "failed" : "is open"} matches: ${words}.`, "wait"); return; }
  const values = await question(action, `all ${plural(found, "job")} like this: ${words}`);
  if (!values) return;
  await attempt(async () => {
    const { correlation_id: id } = await post("/v1/bulk", { action, ...filter, ...body(action, values) });
    for (;;) {
      const progress = await get(`/v1/bulk/${of(id)}`);
      say(`${WORDS[action]}: ${plural(progress.matched, "job")} found, ${number(progress.refused)} of them refused${progress.done ? "." : " so far…"}`);
      if (progress.done) break;
      await new Promise((resolve) => { setTimeout(resolve, LOOK_MILLISECONDS); });
    }
    return id;
  }, () => document.getElementById("said").textContent);
  again();
}

async function submit(again) {
  const { runners } = await get("/v1/runners");
  const types = [...new Set(runners.filter((one) => one.state === "REGISTERED").flatMap((one) => one.capabilities.map((name) => name.split("@")[0])))].sort();
  const values = await ask({ title: "Submit a job", words: "Submit", fields: [
    h("label", {}, "Type", h("input", { name: "job_type", required: true, list: "types", autocomplete: "off", spellcheck: "false" }), h("datalist", { id: "types" }, types.map((name) => h("option", { value: name })))),
    h("label", {}, "Payload, as JSON", h("textarea", { name: "payload", rows: 6, spellcheck: "false", class: "mono" }, "{}")),
    h("label", {}, "Priority, 9 is critical", h("input", { name: "priority", type: "number", min: 0, max: 9, value: 5 })),
    field("Tenant", "tenant", "default", { required: true })] });
  if (!values) return;
  await attempt(async () => {
    let payload;
    try { payload = JSON.parse(values.payload || "null"); } catch (error) { throw new Error(`Expected JSON as payload, but: ${error.message}.`); }
    return post("/v1/jobs", { job_type: values.job_type, payload, priority: Number(values.priority), tenant: values.tenant });
  }, (answer) => { go("jobs", answer.job_id); return `Submitted ${answer.job_id}.`; });
  again();
}

function phases(query, counts, found) {
  // The phases as tabs, each with how many jobs it has under the other filters.
  const now = query.get("phase") ?? "";
  const tab = (phase, jobs) => h("a", { href: changed({ phase }), "aria-current": now === phase ? "true" : null, "data-key": `phase-${phase}` }, phase ? tag(phase) : "all", " ", quiet(number(jobs)));
  return h("nav", { class: "tabs", "aria-label": "Phase" }, tab("", found), PHASES.filter((phase) => counts[phase] || phase === now).map((phase) => tab(phase, counts[phase] ?? 0)));
}

export async function jobs({ query, signal, again }) {
  const wanted = Object.fromEntries([...FILTERS, "phase", "cursor"].map((name) => [name, query.get(name)]));
  const others = { ...wanted, phase: null, cursor: null };
  const [{ jobs: page, next_cursor: next }, { phases: counts, total }] = await Promise.all([get("/v1/jobs", { ...wanted, limit: 50 }, signal), get("/v1/job-counts", others, signal)]);
  const narrow = FILTERS.slice(1).some((name) => query.get(name));
  const toggle = (event) => { for (const box of document.querySelectorAll("input[name=chosen]")) box.checked = event.currentTarget.checked; };
  const inBulk = !query.get("search") && !query.get("parent_job_id");
  const actions = Object.keys(WORDS);
  return [
    h("div", { class: "head" }, h("div", {}, title("Jobs"), lead(`${plural(total, "job")} ${narrow || query.get("search") ? "match" : "on the log"}.`)), button("Submit a job", () => submit(again), { class: "main" })),
    filters([field("Search", "search", query.get("search"), { type: "search", placeholder: "id, type, error" }), field("Type", "job_type", query.get("job_type"), { size: 14 }), field("Tenant", "tenant", query.get("tenant"), { size: 9 }), field("Pool", "pool", query.get("pool"), { size: 9 }),
      (narrow || query.get("correlation_id")) && field("Correlation", "correlation_id", query.get("correlation_id"), { size: 14 }), query.get("phase") && h("input", { type: "hidden", name: "phase", value: query.get("phase") })], "#/jobs"),
    phases(query, counts, total),
    card(null,
      row(actions.map((action) => button(`${WORDS[action]} ticked`, () => together(action, again))),
        inBulk && h("details", { class: "menu" }, h("summary", {}, "All that match…"), h("div", { class: "sheet" }, actions.map((action) => button(`${WORDS[action]} all`, (event) => { event.currentTarget.closest("details").open = false; all(action, here().query, counts, again); }))))),
      table([h("input", { type: "checkbox", "aria-label": "Tick all of this page", onchange: toggle }), "Job", "Type", "Phase", "Priority", "Attempts", "Tenant", "Submitted", "Took"], page.map((one) => [
        h("input", { type: "checkbox", name: "chosen", value: one.job_id, "aria-label": `Tick ${one.job_id}` }), job(one.job_id), h("a", { href: changed({ job_type: one.job_type }), class: "plain" }, one.job_type), tag(one.phase), String(one.priority), String(one.attempts.length), one.tenant, time(one.submitted_at),
        one.concluded_at ? duration(between(one.submitted_at, one.concluded_at)) : quiet(duration(Math.round((Date.now() - new Date(one.submitted_at)) / 1000) * 1000))]), { caption: "Jobs", keys: page.map((one) => one.job_id), empty: "No job matches." }),
      pager(query, next)),
  ];
}
