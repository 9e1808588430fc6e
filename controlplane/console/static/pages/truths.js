// Truths: what is known, found by subject, property, source, and how sure it is.

import { get } from "../api.js";
import { h } from "../dom.js";
import { card, choice, field, filters, lead, meter, pager, quiet, shown, subject, table, tag, title } from "../parts.js";
import { link } from "../router.js";
import { percent, plural } from "../words.js";

export const sure = (confidence, label) => h("div", { class: "sure" }, meter(confidence, label), h("span", {}, percent(confidence)));

export async function truths({ query, signal }) {
  const wanted = Object.fromEntries(["subject", "predicate", "source", "min_confidence", "conflict", "cursor"].map((name) => [name, query.get(name)]));
  const { truths: found, next_cursor: next } = await get("/v1/truths", { ...wanted, limit: 100 }, signal);
  const sources = (one) => new Set(one.candidates.flatMap((candidate) => candidate.votes.map((vote) => vote.source))).size;
  return [
    title("Truths"), lead("What follows from everything that was asserted, by a stated rule. Contradictions are kept, not overwritten."),
    filters([field("Subject", "subject", query.get("subject"), { placeholder: "image:* " }), field("Property", "predicate", query.get("predicate"), { placeholder: "width", size: 12 }), field("Source", "source", query.get("source"), { placeholder: "studio/*", size: 14 }),
      field("At least so sure", "min_confidence", query.get("min_confidence"), { type: "number", min: 0, max: 1, step: 0.05 }), choice("Conflict", "conflict", query.get("conflict"), [["true", "contradicted"], ["false", "agreed"]], { any: "either" })], link("truths")),
    card(null, table(["Subject", "Property", "Value", "Sure", "By", ""], found.map((one) => [subject(one.subject), one.predicate,
      Array.isArray(one.value) ? h("span", {}, plural(one.value.length, "value")) : shown(one.value, one.unit), sure(one.confidence, `${one.subject} ${one.predicate}`), [one.rule.toLowerCase().replaceAll("_", " "), " ", quiet(plural(sources(one), "source"))], one.conflict && tag("conflict")]),
    { caption: "Truths", keys: found.map((one) => `${one.subject} ${one.predicate}`), empty: "Nothing is known that matches." }), pager(query, next, "More")),
  ];
}
