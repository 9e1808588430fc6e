// Audit: the digest of each projected table, and how much of the log the notary signed.

import { get } from "../api.js";
import { h } from "../dom.js";
import { button, card, figure, json, lead, mono, position, quiet, since, table, tag, title } from "../parts.js";
import { number, percent, plural } from "../words.js";

const CHECKPOINTS = 300;

function signed(events, positions) {
  // Per partition its newest checkpoint, and what the log has beyond it.
  const newest = new Map();
  for (const one of events) if (!newest.has(one.event.origin)) newest.set(one.event.origin, one);
  return Object.entries(positions).filter(([topic]) => topic !== "controlplane.checkpoints").flatMap(([topic, partitions]) => Object.entries(partitions).filter(([, end]) => end > 0).map(([partition, end]) => {
    const checkpoint = newest.get(`${topic}/${partition}`);
    return { place: `${topic}/${partition}`, end, until: checkpoint?.event.end_offset ?? 0, checkpoint };
  }));
}

export async function audit({ signal, again }) {
  const [{ tables, reflects }, { events }] = await Promise.all([get("/v1/digest", {}, signal), get("/v1/events", { event_type: "CheckpointSigned", limit: CHECKPOINTS }, signal)]);
  const places = signed(events, reflects.positions);
  const records = places.reduce((sum, one) => sum + one.end, 0), covered = places.reduce((sum, one) => sum + Math.min(one.until, one.end), 0);
  return [
    h("div", { class: "head" }, h("div", {}, title("Audit"), lead("Two projections that reflect the same positions have the same digests, on any machine, however the records arrived.")), button("Compute again", again)),
    h("div", { class: "grid tiles" },
      figure(number(records), "records on the log"), figure(number(tables.reduce((sum, one) => sum + one.rows, 0)), "rows projected"),
      figure(reflects.lag_records ? number(reflects.lag_records) : "none", "records not projected yet", { kind: reflects.lag_records > 1000 ? "bad" : "" }), figure(records ? percent(covered / records) : "–", "of the log is signed")),
    card("Digests of the projection", table(["Table", "Rows", "Digest"], tables.map((one) => [mono(one.table), number(one.rows), h("span", { class: "mono digest" }, one.digest)]), { caption: "Digests", keys: tables.map((one) => one.table) }),
      h("p", { class: "quiet" }, "To fold the whole log again and compare: ", mono("controlplane audit verify"))),
    card("Checkpoints of the notary", table(["Partition", "Records", "Signed until", "", "Checkpoint", "Signed", "Note"], places.map((one) => [mono(one.place.replace(/^controlplane\./, "")), number(one.end), number(one.until), one.until >= one.end ? tag("signed", "ok") : one.until ? tag(`${plural(one.end - one.until, "record")} to go`, "wait") : tag("not signed yet", "wait"),
      one.checkpoint ? position(one.checkpoint.position) : quiet("–"), one.checkpoint ? since(one.checkpoint.log_time) : "", one.checkpoint && h("details", {}, h("summary", {}, "note"), h("pre", { tabindex: 0, role: "region", "aria-label": `Note of ${one.place}` }, one.checkpoint.event.note))]), { caption: "Checkpoints", keys: places.map((one) => one.place), empty: "No notary signed anything yet." }),
      h("p", { class: "quiet" }, "To hold every record to what was signed: ", mono("controlplane audit checkpoints verify"), ". A proof of one record that anybody can check: ", mono("controlplane audit prove POSITION"))),
    h("details", { class: "card" }, h("summary", {}, "Positions that the projection reflects"), json(reflects.positions, "Positions")),
  ];
}
