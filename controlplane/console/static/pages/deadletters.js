// Dead letters: records that nobody could use, with their bytes and the reason; sent again, or given up.

import { get, post } from "../api.js";
import { ask, attempt } from "../ask.js";
import { h } from "../dom.js";
import { button, card, field, json, lead, mono, pager, position, quiet, row, table, time, title } from "../parts.js";
import { number } from "../words.js";

function actions(letter, again) {
  const [partition, offset] = letter.position.split("/").slice(-2);
  const act = async (action, words, text) => {
    const values = await ask({ title: `${words} ${partition}/${offset}`, text, words, danger: action === "purge", fields: [field("Why, for the log", "reason", "", { maxlength: 1000 })] });
    if (values && await attempt(() => post(`/v1/deadletters/${partition}/${offset}/${action}`, values), (answer) => `Done, on the log at ${answer.position}.`)) setTimeout(again, 500);
  };
  return row(button("Redrive", () => act("redrive", "Redrive", "The record is sent again, to the partition of its key.")), button("Give up", () => act("purge", "Give up", "It is no longer listed; the log keeps it.")));
}

export async function deadLetters({ query, signal, again }) {
  const { events, next_cursor: next } = await get("/v1/deadletters", { cursor: query.get("cursor"), limit: 50 }, signal);
  const letters = events.filter((one) => one.event_type === "RecordRefused" || one.event.undecodable);
  return [
    title("Dead letters"), lead("Records that could not be used. Nothing was lost: their bytes are kept, and the partition went on."),
    letters.length === 0 && card(null, h("p", { class: "quiet" }, "None: every record could be used.")),
    letters.length > 0 && card(null, table(["Letter", "Log time", "Refused record", "By", "Why", ""], letters.map((letter) => {
      const { position: at, consumer, error, value_size_bytes: size } = letter.event;
      return [position(letter.position), time(letter.log_time), at && position(`${at.topic}/${at.partition}/${at.offset}`), consumer, h("details", {}, h("summary", {}, error ? [mono(error.code), " ", error.message] : letter.event.undecodable), size !== undefined && quiet(`${number(size)} bytes`), json(letter.event, "The dead letter")), actions(letter, again)];
    }), { caption: "Dead letters", keys: letters.map((letter) => letter.position) }), pager(query, next)),
  ];
}
