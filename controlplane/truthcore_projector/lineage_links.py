"""What touches a node of the lineage graph: for each kind of node one query up, to what it came from, and one down, to what came from it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from controlplane.api.lineage import Relation
from controlplane.events.catalog import SUBMISSIONS, TOPICS, TRUTH
from controlplane.log.positions import Partition, PositionInvalid, parse_position
from controlplane.truthcore_projector.cursors import DISTINCT, WHOLE, Cursor, rows, tuples
from controlplane.truthcore_projector.moments import condition
from controlplane.truthcore_projector.views import STAGE_RANK

NODES_LIMIT: Final = 5_000
FIRST: Final = f'row(log_time, {STAGE_RANK}, topic, partition, "offset")'
"""Orders stages of an attempt; those of one moment by what comes first, so that every reader finds the same."""

Node = tuple[str, str]
"""(kind, name); the name of an event is its position."""
Row = dict[str, Any]


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """One node came from, or rests on, another."""

    subject: Node
    relation: Relation
    object: Node


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What one look at some nodes of a kind brings: what they are, and the links that touch them."""

    details: dict[Node, Row] = {}
    links: list[Link] = []


class Looker:
    """Looks nodes up, in what the log knew."""

    def __init__(self, cursor: Cursor, ends: Mapping[Partition, int]) -> None:
        """Take a cursor and the first offsets that were not known yet."""
        self._cursor = cursor
        self._known = condition(ends)
        self._look: dict[tuple[str, bool], Callable[[list[str]], Found]] = {
            ("assertion", True): self._assertions, ("assertion", False): self._derived,
            ("attempt", True): self._attempts, ("attempt", False): self._claims,
            ("job", True): self._jobs, ("job", False): self._parts,
            ("event", True): self._events, ("event", False): self._effects,
            ("source", False): self._said, ("runner", False): self._ran,
        }  # fmt: skip

    def look(self, kind: str, up: bool, names: list[str]) -> Found:
        """Return what some nodes of one kind came from, or what came from them."""
        look = self._look.get((kind, up))
        return look(names) if look else Found()

    def rows(self, query: str, names: Sequence[str], *, tail: str = "", gather: str = WHOLE) -> list[Row]:
        """Return the rows of a query in which `{known}` is what the log knew and `$names` are names."""
        return rows(
            self._cursor, query.replace("{known}", self._known), {"names": list(names)}, tail=tail, gather=gather
        )

    # What they came from

    def _assertions(self, names: list[str]) -> Found:
        query = """SELECT * FROM assertions WHERE {known} AND assertion_id IN (SELECT unnest($names)) {first}"""
        first = 'QUALIFY row_number() OVER (PARTITION BY assertion_id ORDER BY topic, partition, "offset") = 1'
        found = self.rows(query.replace("{first}", first), names, gather=f"{WHOLE} {first}")
        details: dict[Node, Row] = {}
        links: list[Link] = []
        for row in found:
            node = ("assertion", row["assertion_id"])
            details[node] = row
            links.append(Link(subject=node, relation="wasAttributedTo", object=("source", row["source"])))
            if row["attempt_id"]:
                links.append(Link(subject=node, relation="wasGeneratedBy", object=("attempt", row["attempt_id"])))
            elif row["job_id"]:
                links.append(Link(subject=node, relation="wasGeneratedBy", object=("job", row["job_id"])))
            if row["supersedes"]:
                links.append(Link(subject=node, relation="wasRevisionOf", object=("assertion", row["supersedes"])))
        inputs = self._inputs([one for row in found for one in row["inputs"] or ()])
        links += [
            Link(subject=("assertion", row["assertion_id"]), relation="wasDerivedFrom", object=inputs[one])
            for row in found
            for one in row["inputs"] or ()
        ]
        query = """SELECT *, topic || '/' || partition || '/' || "offset" AS place FROM retractions
          WHERE {known} AND assertion_id IN (SELECT unnest($names))"""
        links += [
            Link(
                subject=("assertion", row["assertion_id"]), relation="wasInvalidatedBy", object=("event", row["place"])
            )
            for row in self.rows(query, names)
        ]
        return Found(details=details, links=links)

    def _inputs(self, references: Iterable[str]) -> dict[str, Node]:
        """Return the node that each input names: an assertion by its id or position, else a record."""
        places = {one for one in references if _is_position(one)}
        query = """SELECT assertion_id, topic || '/' || partition || '/' || "offset" AS place FROM assertions
          WHERE {known} AND (topic, partition, "offset") IN (SELECT (string_split(one, '/')[1], string_split(one, '/')[2]::INTEGER,
            string_split(one, '/')[3]::BIGINT) FROM (SELECT unnest($names) AS one))"""
        there = {row["place"]: row["assertion_id"] for row in self.rows(query, sorted(places))} if places else {}
        return {
            one: ("assertion", there.get(one, one)) if one in there or one not in places else self.record(one)
            for one in references
        }

    def _attempts(self, names: list[str]) -> Found:
        query = f"""SELECT attempt_id, any_value(job_id) AS job_id, max(attempt_number) AS attempt_number, max(runner_id) AS runner_id,
            min_by(topic || '/' || partition || '/' || "offset", {FIRST}) AS place, min(log_time) AS log_time,
            min(log_time) FILTER (stage = 'STARTED') AS started_at,
            min(log_time) FILTER (stage IN ('SUCCEEDED', 'FAILED', 'CANCELLED', 'LOST')) AS ended_at,
            min_by(stage, {FIRST}) FILTER (stage IN ('SUCCEEDED', 'FAILED', 'CANCELLED', 'LOST')) AS outcome,
            min_by(message, {FIRST}) FILTER (stage IN ('FAILED', 'LOST')) AS error
          FROM attempt_events WHERE {{known}} AND attempt_id IN (SELECT unnest($names)) GROUP BY attempt_id"""
        details: dict[Node, Row] = {}
        links: list[Link] = []
        for row in self.rows(query, names):
            node = ("attempt", row["attempt_id"])
            details[node] = row
            links.append(Link(subject=node, relation="wasInformedBy", object=("job", row["job_id"])))
            if row["runner_id"]:
                links.append(Link(subject=node, relation="wasAssociatedWith", object=("runner", row["runner_id"])))
        query = """SELECT attempt_id, unnest(inputs) AS input FROM assertions
          WHERE {known} AND len(inputs) > 0 AND attempt_id IN (SELECT unnest($names))"""
        found = self.rows(query, names)
        inputs = self._inputs([row["input"] for row in found])
        links += [
            Link(subject=("attempt", row["attempt_id"]), relation="used", object=inputs[row["input"]]) for row in found
        ]
        return Found(details=details, links=links)

    def _jobs(self, names: list[str]) -> Found:
        query = """SELECT *, topic || '/' || partition || '/' || "offset" AS place FROM submissions
          WHERE {known} AND job_id IN (SELECT unnest($names)) QUALIFY row_number() OVER (PARTITION BY job_id ORDER BY "offset") = 1"""
        found = self.rows(query, names)
        links = [
            Link(subject=("job", row["job_id"]), relation="wasInformedBy", object=("job", row["parent_job_id"]))
            for row in found
            if row["parent_job_id"]
        ]
        return Found(details={("job", row["job_id"]): row for row in found}, links=links)

    def _events(self, names: list[str]) -> Found:
        query = """SELECT topic, partition, "offset", log_time, event_type, event_id, producer, actor, cause_topic,
            topic || '/' || partition || '/' || "offset" AS place, cause_topic || '/' || cause_partition || '/' || cause_offset AS cause
          FROM events WHERE {known} AND (topic, partition, "offset") IN (SELECT (string_split(one, '/')[1],
            string_split(one, '/')[2]::INTEGER, string_split(one, '/')[3]::BIGINT) FROM (SELECT unnest($names) AS one))"""
        found = self.rows(query, names)
        links = [
            Link(subject=("event", row["place"]), relation="wasDerivedFrom", object=self.record(row["cause"]))
            for row in found
            if row["cause"]
        ]
        return Found(details={("event", row["place"]): row for row in found}, links=links)

    def record(self, place: str) -> Node:
        """Return the node of a record: an assertion or a job where it is one, else the record itself."""
        position = parse_position(place)
        table, column = {TRUTH.name: ("assertions", "assertion_id"), SUBMISSIONS.name: ("submissions", "job_id")}.get(
            position.topic, ("", "")
        )
        if table:
            query = f'SELECT {column} FROM {table} WHERE {self._known} AND topic = ? AND partition = ? AND "offset" = ?'
            for row in tuples(self._cursor, query, [position.topic, position.partition, position.offset]):
                return ("assertion" if table == "assertions" else "job", row[0])
        return ("event", place)

    # What came from them

    def _derived(self, names: list[str]) -> Found:
        # An input names an assertion by its id or by its position.
        query = """SELECT assertion_id, topic || '/' || partition || '/' || "offset" AS place FROM assertions
          WHERE assertion_id IN (SELECT unnest($names))"""
        places = self.rows(query, names)
        named = {row["place"]: row["assertion_id"] for row in places} | {
            row["assertion_id"]: row["assertion_id"] for row in places
        }
        query = """SELECT DISTINCT assertion_id, input FROM (
            SELECT assertion_id, unnest(inputs) AS input FROM assertions WHERE {known} AND len(inputs) > 0)
          WHERE input IN (SELECT unnest($names))"""
        links = [
            Link(
                subject=("assertion", row["assertion_id"]),
                relation="wasDerivedFrom",
                object=("assertion", named[row["input"]]),
            )
            for row in self.rows(query, list(named), tail="ORDER BY ALL", gather=DISTINCT)
        ]
        query = """SELECT DISTINCT assertion_id, supersedes FROM assertions WHERE {known} AND supersedes IN (SELECT unnest($names))"""
        links += [
            Link(
                subject=("assertion", row["assertion_id"]),
                relation="wasRevisionOf",
                object=("assertion", row["supersedes"]),
            )
            for row in self.rows(query, names, tail="ORDER BY ALL", gather=DISTINCT)
        ]
        return Found(links=links)

    def _claims(self, names: list[str]) -> Found:
        query = """SELECT DISTINCT assertion_id, attempt_id FROM assertions WHERE {known} AND attempt_id IN (SELECT unnest($names))"""
        return self._pairs(query, names, "assertion", "wasGeneratedBy", "attempt")

    def _said(self, names: list[str]) -> Found:
        query = (
            "SELECT DISTINCT assertion_id, source FROM assertions WHERE {known} AND source IN (SELECT unnest($names))"
        )
        return self._pairs(query, names, "assertion", "wasAttributedTo", "source")

    def _ran(self, names: list[str]) -> Found:
        query = """SELECT DISTINCT attempt_id, runner_id FROM attempt_events WHERE {known} AND runner_id IN (SELECT unnest($names))
          AND attempt_id IS NOT NULL"""
        return self._pairs(query, names, "attempt", "wasAssociatedWith", "runner")

    def _parts(self, names: list[str]) -> Found:
        query = """SELECT DISTINCT attempt_id, job_id FROM attempt_events WHERE {known} AND attempt_id IS NOT NULL
          AND job_id IN (SELECT unnest($names))"""
        attempts = self._pairs(query, names, "attempt", "wasInformedBy", "job")
        query = "SELECT DISTINCT job_id, parent_job_id FROM submissions WHERE {known} AND parent_job_id IN (SELECT unnest($names))"
        children = self._pairs(query, names, "job", "wasInformedBy", "job")
        query = """SELECT DISTINCT assertion_id, job_id FROM assertions WHERE {known} AND attempt_id IS NULL
          AND job_id IN (SELECT unnest($names))"""
        return Found(
            links=[
                *attempts.links,
                *children.links,
                *self._pairs(query, names, "assertion", "wasGeneratedBy", "job").links,
            ]
        )

    def _effects(self, names: list[str]) -> Found:
        query = """SELECT topic || '/' || partition || '/' || "offset" AS place, cause_topic || '/' || cause_partition || '/' || cause_offset AS cause
          FROM events WHERE {known} AND (cause_topic, cause_partition, cause_offset) IN (SELECT (string_split(one, '/')[1],
            string_split(one, '/')[2]::INTEGER, string_split(one, '/')[3]::BIGINT) FROM (SELECT unnest($names) AS one))"""
        links = [
            Link(subject=self.record(row["place"]), relation="wasDerivedFrom", object=("event", row["cause"]))
            for row in self.rows(query, names, tail="ORDER BY ALL")
        ]
        query = """SELECT DISTINCT assertion_id, input FROM (SELECT assertion_id, unnest(inputs) AS input FROM assertions WHERE {known} AND len(inputs) > 0)
          WHERE input IN (SELECT unnest($names))"""
        return Found(links=[*links, *self._pairs(query, names, "assertion", "wasDerivedFrom", "event").links])

    def _pairs(self, query: str, names: list[str], kind: str, relation: Relation, of: str) -> Found:
        limit = f"ORDER BY ALL LIMIT {NODES_LIMIT + 1}"
        return Found(
            links=[
                Link(subject=(kind, one), relation=relation, object=(of, other))
                for one, other in (row.values() for row in self.rows(query, names, tail=limit, gather=DISTINCT))
            ]
        )


def _is_position(text: str) -> bool:
    """Say whether an input names a record; anything else that a stranger wrote there is taken for an assertion's id."""
    try:
        place = parse_position(text)
    except PositionInvalid:
        return False
    return text.isascii() and place.topic in TOPICS and place.partition < 2**31 and place.offset < 2**63
