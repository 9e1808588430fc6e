// Truths: what is known of a subject, how sure, who says otherwise, and what was known at another time.

import { get } from "../api.js";
import { card, h, job, percent, position, shown, subject, table, time } from "../dom.js";

export async function truths({ query, signal }) {
  const pattern = query.get("subject") ?? "", least = query.get("min_confidence") ?? "";
  const { truths: found, next_cursor: next } = await get("/v1/truths", { subject: pattern, predicate: query.get("predicate"), min_confidence: least, cursor: query.get("cursor"), limit: 100 }, signal);
  const form = h("form", { class: "filters" }, h("label", {}, "Subject", h("input", { name: "subject", value: pattern, placeholder: "module:json*" })), h("label", {}, "Predicate", h("input", { name: "predicate", value: query.get("predicate") ?? "", placeholder: "lines" })),
    h("label", {}, "At least this sure", h("input", { name: "min_confidence", type: "number", min: 0, max: 1, step: 0.05, value: least })), h("button", { class: "main" }, "Find"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    location.hash = `#/truths?${new URLSearchParams([...new FormData(form)].filter(([, value]) => value))}`;
  });
  return [h("h1", {}, "Truths"), h("p", { class: "lead" }, "What follows from everything that was asserted, by a stated rule."), form,
    card(null, table(["Subject", "Predicate", "Value", "Sure", "Rule"], found.map((truth) => [subject(truth.subject), truth.predicate, [shown(truth.value), truth.unit && ` ${truth.unit}`], [percent(truth.confidence), truth.conflict && [" ", h("span", { class: "tag bad" }, "conflict")]], truth.rule.toLowerCase()]), "Truths"),
      next && h("p", {}, h("a", { href: `#/truths?${new URLSearchParams([...[...query].filter(([name]) => name !== "cursor"), ["cursor", next]])}` }, "More truths")))];
}

function votes(candidate) {
  return table(["Says", "Sure", "Weight", "When", "Job"], candidate.votes.map((vote) => [h("a", { href: `#/events/${encodeURIComponent(vote.position)}` }, vote.source), percent(vote.confidence), percent(vote.reliability), time(vote.log_time), vote.job_id ? job(vote.job_id) : "–"]), "Votes");
}

function truthCard(truth) {
  return card(null, h("h2", {}, truth.predicate, " ", truth.conflict && h("span", { class: "tag bad" }, "conflict")),
    h("p", {}, h("b", {}, shown(truth.value), truth.unit && ` ${truth.unit}`), ` is ${percent(truth.confidence)} sure by the rule ${truth.rule.toLowerCase()}.`),
    truth.candidates.map((candidate) => {
      const bar = h("i", {});
      bar.style.width = `${100 * candidate.probability}%`;
      return h("details", { open: truth.conflict }, h("summary", {}, shown(candidate.value), candidate.unit && ` ${candidate.unit}`, ` ${percent(candidate.probability)}, ${candidate.votes.length} ${candidate.votes.length === 1 ? "source" : "sources"}`, h("div", { class: "bar", "aria-hidden": "true" }, bar)), votes(candidate));
    }));
}

export async function subjectPage({ id, query, signal }) {
  const asOf = query.get("as_of");
  const { truths: found } = await get("/v1/truths", { subject: id, as_of: asOf, limit: 200 }, signal);
  if (id.includes("*")) return truths({ query: new URLSearchParams({ subject: id }), signal });
  const seen = found.flatMap((truth) => truth.candidates.flatMap((candidate) => candidate.votes.map((vote) => +new Date(vote.log_time))));
  const remembered = JSON.parse(sessionStorage.getItem(`span:${id}`) ?? "null");
  const [first, last] = remembered ?? [Math.min(...seen), Math.max(...seen)];
  if (!remembered && seen.length) sessionStorage.setItem(`span:${id}`, JSON.stringify([first, last]));
  const slider = h("input", { type: "range", min: 0, max: 1000, value: asOf && last > first ? Math.round(1000 * (new Date(asOf) - first) / (last - first)) : 1000, "aria-label": "Moment of the log", disabled: !(last > first) });
  slider.addEventListener("change", () => {
    const at = Number(slider.value) === 1000 ? null : new Date(first + (last - first) * slider.value / 1000).toISOString();
    location.hash = `#/truths/${encodeURIComponent(id)}${at ? `?as_of=${encodeURIComponent(at)}` : ""}`;
  });
  const depends = id.startsWith("job:") ? h("p", {}, "This subject is a job: ", job(id.slice(4))) : null;
  return [h("h1", { class: "mono" }, id), h("p", { class: "lead" }, asOf ? ["As the log knew it at ", time(asOf), ". ", h("a", { href: `#/truths/${encodeURIComponent(id)}` }, "Now")] : "As the log knows it now."), depends,
    h("div", { class: "filters" }, h("label", {}, "What was known when", slider), first && Number.isFinite(first) && h("span", { class: "quiet" }, time(new Date(first).toISOString()), " to ", time(new Date(last).toISOString()))),
    found.length ? h("div", { class: "grid wide" }, found.map(truthCard)) : h("p", { class: "note" }, asOf ? "Nothing was known of it then." : "Nothing is known of it."),
    found.length > 0 && card("Where it comes from", table(["Predicate", "Assertion", "Source"], found.flatMap((truth) => truth.candidates.flatMap((candidate) => candidate.votes.map((vote) => [truth.predicate, position(vote.position), vote.source]))), "Assertions"))].filter(Boolean);
}
