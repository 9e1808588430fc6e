// Words and numbers: how values become what a person reads.

export function duration(milliseconds) {
  if (milliseconds === null || milliseconds === undefined || Number.isNaN(milliseconds)) return "–";
  const seconds = milliseconds / 1000;
  if (milliseconds === 0) return "0 ms";
  if (milliseconds < 10) return `${milliseconds.toFixed(1)} ms`;
  if (milliseconds < 1000) return `${milliseconds.toFixed(0)} ms`;
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 2 : 1)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
  if (seconds < 172_800) return `${Math.floor(seconds / 3600)} h ${Math.round((seconds % 3600) / 60)} min`;
  return `${Math.round(seconds / 86_400)} days`;
}

export const between = (from, to) => (from && to ? new Date(to) - new Date(from) : null);
export const number = (value) => Number(value).toLocaleString("en", { maximumFractionDigits: 2 });

export function percent(value) {
  // Nearly all is not all, and nearly nothing is not nothing.
  if (value === 0 || value === 1) return `${100 * value} %`;
  return `${(100 * value).toFixed(value > 0.999 || value < 0.001 ? 2 : 1)} %`;
}

export const plural = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;

const pad = (value, digits = 2) => String(value).padStart(digits, "0");

export function clock(instant, { exact = false } = {}) {
  // The time of day, with the date where it is not today.
  const at = new Date(instant);
  const day = at.toDateString() === new Date().toDateString() ? "" : `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())} `;
  return `${day}${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}${exact ? `.${pad(at.getMilliseconds(), 3)}` : ""}`;
}

export function ago(instant) {
  const milliseconds = Date.now() - new Date(instant);
  return milliseconds < 1500 ? "now" : `${duration(Math.round(milliseconds / 1000) * 1000).replace(/\.0+ s/, " s")} ago`;
}

const KINDS = {
  COMPLETED: "ok", SUCCEEDED: "ok", REGISTERED: "ok", CLOSED: "ok", ok: "ok", signed: "ok",
  RUNNING: "run", ROUTED: "run", STARTED: "run", HALF_OPEN: "run",
  QUEUED: "wait", SUBMITTED: "wait", DELAYED: "wait", RETRYING: "wait", DRAINING: "wait", degraded: "wait", WARNING: "wait", paused: "wait",
  FAILED: "bad", REJECTED: "bad", LOST: "bad", OPEN: "bad", down: "bad", conflict: "bad", ERROR: "bad", CRITICAL: "bad",
};
export const kindOf = (word) => KINDS[word] ?? "other";

export function kindOfEvent(name) {
  if (/Completed|Succeeded|Accepted|Cleared/.test(name)) return "ok";
  if (/Failed|Lost|Rejected|Refused|Raised/.test(name)) return "bad";
  if (/Routed|Started|Progressed|Logged/.test(name)) return "run";
  if (/^Truth|Declared|Retr(y|ied)|Cancel/.test(name)) return "wait";
  return "other";
}

const spoken = (value) => (typeof value === "string" ? value : JSON.stringify(value));

export function valueOf(object) {
  // The value of an assertion as its event holds it.
  if (object.number !== null && object.number !== undefined) return `${number(object.number)}${object.unit ? ` ${object.unit}` : ""}`;
  return spoken(object.text);
}

export function gist({ event_type: type, event }) {
  // One line of what a record says; its fields say the rest.
  switch (type) {
    case "JobSubmitted": return `${event.job_type}, priority ${event.priority}`;
    case "JobRouted": return `to ${event.runner_id}: ${event.reason}`;
    case "AttemptProgressed": return `${percent(event.fraction)} ${event.message ?? ""}`;
    case "JobLogged": return plural(event.lines.length, "line");
    case "TruthAsserted": return `${event.subject} ${event.predicate} = ${valueOf(event.object)}, ${percent(event.confidence)} sure`;
    case "BreakerChanged": return `${event.subject} ${event.state.toLowerCase()}`;
    case "RunnerHeartbeat": return `${plural(event.attempt_ids.length, "attempt")} in flight`;
    case "RunnerRegistered": return `${event.name}, ${plural(event.slots, "slot")}`;
    case "CheckpointSigned": return `${event.origin}: ${plural(event.tree_size, "record")}`;
    case "AttemptStarted": return `attempt ${event.attempt_number} on ${event.runner_id}`;
    default: return event.error?.message ?? event.reason ?? event.message ?? event.subject ?? "";
  }
}
