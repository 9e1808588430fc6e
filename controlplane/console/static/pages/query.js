// Questions in SQL over what the log says, read-only.

import { post } from "../api.js";
import { h } from "../dom.js";
import { recall, remember } from "../memory.js";
import { card, lead, note, table, title } from "../parts.js";
import { changed } from "../router.js";
import { plural } from "../words.js";

const EXAMPLES = [
  ["Slowest types", "SELECT job_type, count(*) AS jobs,\n  quantile_cont(epoch_ms(concluded_at) - epoch_ms(submitted_at), 0.95) AS p95_ms\nFROM jobs WHERE concluded_at IS NOT NULL GROUP BY ALL ORDER BY p95_ms DESC"],
  ["Failures by code", "SELECT job_type, error_code, count(*) AS jobs, max(error_message) AS example\nFROM jobs WHERE phase = 'FAILED' GROUP BY ALL ORDER BY jobs DESC"],
  ["Sources and what they say", "SELECT source, predicate, count(*) AS assertions, avg(confidence) AS sure\nFROM assertions GROUP BY ALL ORDER BY assertions DESC"],
  ["Records by type", "SELECT event_type, count(*) AS records, max(log_time) AS newest FROM events GROUP BY ALL ORDER BY records DESC"],
  ["Tables", "SELECT table_name, column_name, data_type FROM information_schema.columns ORDER BY table_name, ordinal_position"],
];

export async function query({ query: filters }) {
  const text = filters.get("sql") ?? recall("sql", EXAMPLES[0][1]);
  const answer = filters.get("sql") ? await post("/v1/sql", { sql: text, limit_rows: 1000 }) : null;
  const run = (event) => {
    event.preventDefault();
    const asked = new FormData(event.currentTarget).get("sql");
    remember("sql", asked);
    const target = changed({ sql: asked });
    if (location.hash === target) dispatchEvent(new Event("moved"));
    else location.hash = target.slice(1);
  };
  const keys = (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) event.currentTarget.form.requestSubmit(); };
  return [
    title("Query"), lead("One read-only SELECT over the projected tables, in DuckDB's SQL."),
    h("form", { class: "card", onsubmit: run }, h("label", { for: "sql" }, "SQL"), h("textarea", { id: "sql", name: "sql", rows: 7, class: "mono", spellcheck: "false", onkeydown: keys, "data-key": `sql ${text}` }, text),
      h("div", { class: "row" }, h("button", { class: "main" }, "Run"), h("span", { class: "quiet" }, h("kbd", {}, "Ctrl"), " ", h("kbd", {}, "Enter")), h("span", { class: "spread" }), EXAMPLES.map(([words, sql]) => h("a", { href: changed({ sql }), "data-key": words }, words)))),
    answer && card(plural(answer.rows.length, "row"), table(answer.columns, answer.rows.map((cells) => cells.map((cell) => (cell === null ? h("span", { class: "quiet" }, "null") : typeof cell === "object" ? JSON.stringify(cell) : String(cell)))), { caption: "Rows", empty: "No row." }), answer.truncated && note("There are more rows; these are the first.")),
  ];
}
