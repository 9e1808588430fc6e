// Dead letters: records that nobody could use, with their bytes and the reason.

import { get } from "../api.js";
import { card, h, json, position, table, time } from "../dom.js";

export async function deadLetters({ query, signal }) {
  const { events, next_cursor: next } = await get("/v1/deadletters", { cursor: query.get("cursor"), limit: 50 }, signal);
  return [h("h1", {}, "Dead letters"), h("p", { class: "lead" }, events.length ? "Records that could not be used. Nothing was lost: their bytes are kept." : "Every record could be used."),
    card(null, table(["Letter", "Log time", "Refused record", "By", "Why"], events.map((letter) => {
      const { position: at, consumer, error } = letter.event;
      return [position(letter.position), time(letter.log_time), position(`${at.topic}/${at.partition}/${at.offset}`), consumer, h("details", {}, h("summary", {}, error.message), json(letter.event))];
    }), "Dead letters"), next && h("p", {}, h("a", { href: `#/deadletters?cursor=${encodeURIComponent(next)}` }, "More")))];
}
