// Audit: the digest of each projected table, at the log positions that it reflects.

import { get } from "../api.js";
import { card, h, number, table } from "../dom.js";

export async function audit({ signal }) {
  const { tables, reflects } = await get("/v1/digest", {}, signal);
  const positions = Object.entries(reflects.positions).flatMap(([topic, partitions]) => Object.entries(partitions).map(([partition, offset]) => [topic, partition, number(offset)]));
  return [h("h1", {}, "Audit"), h("p", { class: "lead" }, "Two projections that reflect the same positions have the same digests, on any machine, however the records arrived."),
    h("p", { class: "note" }, "To fold the whole log again and compare, run ", h("code", { class: "mono" }, "controlplane audit verify"), "."),
    card("Digests", table(["Table", "Rows", "Digest"], tables.map((one) => [one.table, number(one.rows), h("span", { class: "mono" }, one.digest)]), "Digests")),
    card("Positions", table(["Topic", "Partition", "Next offset"], positions, "Positions"))];
}
