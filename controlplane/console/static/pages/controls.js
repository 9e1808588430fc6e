// Controls: what governs routing now, and what operators change: pauses, limits, shares, schedules.

import { get, of, put, remove } from "../api.js";
import { ask, attempt } from "../ask.js";
import { h } from "../dom.js";
import { button, card, choice, field, job, lead, mono, note, quiet, row, table, tag, time, title, wide } from "../parts.js";
import { number, plural } from "../words.js";

const inPath = (subject) => subject.split("/").map(encodeURIComponent).join("/");

async function change(question, work, again) {
  const values = await ask(question);
  if (values && await attempt(() => work(values), (answer) => `Declared, on the log at ${answer.position}.`)) again();
}

const pause = (again) => change({ title: "Pause routing", words: "Pause", text: "What runs goes on; nothing new is handed out.", fields: [field("pool:NAME or type:JOB_TYPE", "subject", "", { required: true, pattern: "(pool|type):.+" }), field("Why", "reason", "")] },
  ({ subject, reason }) => put(`/v1/pauses/${inPath(subject)}`, { reason }), again);

const limit = (again) => change({ title: "Limit", words: "Limit", text: "How much runs at once, or how often it starts.", fields: [field("key:TENANT/NAME, type:JOB_TYPE or tenant:NAME; a name may end in *", "subject", "", { required: true, pattern: "(key|type|tenant):.+" }), field("At once", "max_running", "", { type: "number", min: 0 }), field("Starts in each period", "starts", "", { type: "number", min: 1 }), field("Period, in seconds", "period_seconds", "1", { type: "number", min: 0.001, step: "any" })] },
  ({ subject, max_running: most, starts, period_seconds: period }) => put(`/v1/limits/${inPath(subject)}`, { max_running: most === "" ? null : Number(most), starts: starts === "" ? null : Number(starts), period_seconds: Number(period) }), again);

const share = (again) => change({ title: "Give a tenant a weight", words: "Declare", text: "Relative to the others, which have 1 unless declared.", fields: [field("Tenant", "tenant", "", { required: true }), field("Weight", "weight", "1", { type: "number", min: 0.000001, step: "any", required: true })] },
  ({ tenant, weight }) => put(`/v1/shares/${of(tenant)}`, { weight: Number(weight) }), again);

const schedule = (again) => change({ title: "Schedule a job", words: "Schedule", fields: [field("Name", "name", "", { required: true }), field("Cron, five fields", "cron", "0 6 * * 1-5", { required: true }), field("Time zone", "time_zone", "UTC"), field("Job type", "job_type", "", { required: true }), h("label", {}, "Payload, as JSON", h("textarea", { name: "payload", rows: 4, class: "mono", spellcheck: "false" }, "null")), choice("While the job before runs", "overlap", "true", [["true", "submit all the same"], ["false", "leave it out"]])] },
  ({ name, cron, time_zone: zone, job_type: type, payload, overlap }) => put(`/v1/schedules/${of(name)}`, { cron, time_zone: zone, overlap: overlap === "true", job: { job_type: type, payload: JSON.parse(payload || "null") } }), again);

const end = (words, path, again) => button(words, () => attempt(() => remove(path), (answer) => `Done, on the log at ${answer.position}.`).then((done) => done && again()));

export async function controls({ signal, again }) {
  const [now, { limits }, { schedules }] = await Promise.all([get("/v1/controls", {}, signal), get("/v1/limits", {}, signal), get("/v1/schedules", {}, signal)]);
  const pauses = Object.entries(now.pauses), shares = Object.entries(now.shares);
  const says = (one) => [one.max_running !== null && `${number(one.max_running)} at once`, one.starts !== null && `${plural(one.starts, "start")} in ${number(one.period_seconds)} s`].filter(Boolean).join(", ");
  return [
    title("Controls"), lead("What governs routing now. Each change is a record on the log."),
    now.admission.open ? null : note(tag("admission closed", "bad"), ` New submissions are refused: ${now.admission.reason}`),
    wide(
      card("Pauses", table(["What", "Why", ""], pauses.map(([subject, reason]) => [mono(subject), reason, end("Resume", `/v1/pauses/${inPath(subject)}`, again)]), { caption: "Pauses", keys: pauses.map(([subject]) => subject), empty: "Nothing is paused." }), row(button("Pause…", () => pause(again)))),
      card("Limits", table(["What", "Says", "Running", "Waiting", ""], limits.map((one) => [mono(one.subject), says(one), number(one.running), number(one.queued + one.retrying + one.delayed), one.declared === one.subject ? end("Remove", `/v1/limits/${inPath(one.subject)}`, again) : one.declared ? quiet("by ", mono(one.declared)) : quiet("by its key")]), { caption: "Limits", keys: limits.map((one) => one.subject), empty: "Nothing is limited." }), row(button("Limit…", () => limit(again)))),
      card("Shares of tenants", table(["Tenant", "Weight"], shares.map(([tenant, weight]) => [tenant, number(weight)]), { caption: "Shares", keys: shares.map(([tenant]) => tenant), empty: "All tenants have the same weight." }), row(button("Give a weight…", () => share(again))))),
    card("Schedules", table(["Schedule", "Cron", "Zone", "Type", "Last", "Next", ""], schedules.map((one) => [mono(one.schedule_id), mono(one.cron), one.time_zone, one.job_type, one.last_job_id ? [time(one.last_at), " ", job(one.last_job_id)] : quiet("–"), one.paused ? tag("paused") : one.next_at.length ? time(one.next_at[0]) : quiet("never"), end("Remove", `/v1/schedules/${of(one.schedule_id)}`, again)]), { caption: "Schedules", keys: schedules.map((one) => one.schedule_id), empty: "No schedule is declared." }), row(button("Schedule…", () => schedule(again)))),
  ];
}
