// What is going on now: counts, rates, who works, what needs somebody.

import { get, sql } from "../api.js";
import { series } from "../charts.js";
import { card, duration, figure, h, job, number, table, tag, time } from "../dom.js";

const PHASES = "SELECT phase, count(*) AS jobs FROM jobs GROUP BY phase ORDER BY phase";
const RATES = `SELECT epoch_ms(date_trunc('second', concluded_at)) AS x, count(*) AS y FROM jobs
  WHERE concluded_at > (SELECT max(concluded_at) FROM jobs) - INTERVAL 2 MINUTE GROUP BY 1 ORDER BY 1`;
const LATENCY = `SELECT quantile_cont(epoch_ms(concluded_at) - epoch_ms(submitted_at), 0.5) AS p50,
  quantile_cont(epoch_ms(concluded_at) - epoch_ms(submitted_at), 0.99) AS p99 FROM jobs
  WHERE concluded_at > (SELECT max(concluded_at) FROM jobs) - INTERVAL 2 MINUTE`;

const everySecond = (rows) => {
  // Seconds in which nothing ended are part of the picture.
  const counts = new Map(rows.map((row) => [Number(row.x), Number(row.y)]));
  const seconds = [...counts.keys()];
  if (!seconds.length) return [];
  const points = [];
  for (let second = Math.min(...seconds); second <= Math.max(...seconds); second += 1000) points.push({ x: second, y: counts.get(second) ?? 0 });
  return points;
};

export async function overview({ signal }) {
  const [phases, rates, [latency], { runners }, { jobs }] = await Promise.all([
    sql(PHASES), sql(RATES), sql(LATENCY), get("/v1/runners", {}, signal), get("/v1/jobs", { limit: 10 }, signal),
  ]);
  const count = Object.fromEntries(phases.map((row) => [row.phase, Number(row.jobs)]));
  const sum = (...names) => names.reduce((total, name) => total + (count[name] ?? 0), 0);
  const alive = runners.filter((runner) => runner.state === "REGISTERED");
  const slots = alive.reduce((total, runner) => total + runner.slots, 0), busy = alive.reduce((total, runner) => total + runner.in_flight, 0);
  return [
    h("h1", {}, "Overview"), h("p", { class: "lead" }, "What the log knows at this moment."),
    h("div", { class: "grid" },
      figure(number(sum("SUBMITTED", "QUEUED", "DELAYED", "RETRYING")), "waiting"), figure(number(sum("ROUTED", "RUNNING")), "running"),
      figure(number(sum("COMPLETED")), "completed"), figure(number(sum("FAILED", "REJECTED")), "failed or rejected"),
      figure(`${number(busy)} / ${number(slots)}`, `slots busy, ${alive.length} runners`), figure(latency?.p50 === null || !latency ? "–" : duration(Number(latency.p50)), `median to conclusion, p99 ${latency?.p99 ? duration(Number(latency.p99)) : "–"}`)),
    h("div", { class: "grid wide" },
      card("Conclusions per second", series(everySecond(rates), { label: "Conclusions per second", unit: "a second" })),
      card("Newest jobs", table(["Job", "Type", "Phase", "Submitted"], jobs.map((one) => [job(one.job_id), one.job_type, tag(one.phase), time(one.submitted_at)]), "Newest jobs"))),
  ];
}
