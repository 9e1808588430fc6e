"""Shards together, and a replica, answer every question as one TruthCore does: same rows, same order, same pages."""

import asyncio
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from controlplane.log.positions import position_text
from controlplane.truthcore_projector.cursors import Gathered
from controlplane.truthcore_projector.shards import Shard, ShardInvalid, shard_of
from controlplane.truthcore_projector.store import ShardDiffers, Store
from tests.unit.truthcore_projector.worlds import COUNTS, START_SECONDS, World, answering

Question = tuple[str, dict[str, Any]]
SQL = (
    "SELECT phase, count(*) AS n FROM jobs GROUP BY ALL ORDER BY ALL",
    "SELECT job_id, phase FROM unfinished_jobs ORDER BY ALL",
    "SELECT topic, partition, next_offset FROM positions ORDER BY ALL",
    "SELECT a.subject, s.reliability FROM assertions a JOIN sources s USING (source) ORDER BY ALL LIMIT 50",
)


def questions(world: World) -> Iterator[Question]:
    """Yield every kind of question that there is, about what is in the world."""
    chance = random.Random(len(world.records))
    jobs = [name for name, _ in world.jobs][:4]
    subjects = sorted({subject for subject, _, _ in world.assertions})
    places = [
        f"{one.topic}/{one.partition}/{one.offset}" for one in chance.sample(world.records, min(6, len(world.records)))
    ]
    then = datetime.fromtimestamp(START_SECONDS + len(world.records) // 4, UTC).isoformat()
    yield "/v1/jobs", {"limit": 3}
    yield "/v1/jobs", {"phase": "COMPLETED", "limit": 2}
    yield "/v1/jobs", {"job_type": "weigh"}
    yield "/v1/events", {"limit": 7}
    yield "/v1/events", {"topic": "controlplane.routing", "limit": 5}
    yield "/v1/events", {"event_type": "TruthAsserted", "limit": 4}
    yield "/v1/deadletters", {"limit": 2}
    yield "/v1/runners", {}
    yield "/v1/digest", {}
    for place in places:
        yield f"/v1/events/{place}", {}
        yield "/v1/causation", {"event": place}
        yield "/v1/lineage", {"event": place, "limit": 4}
    for job in jobs:
        yield f"/v1/jobs/{job}", {}
        yield f"/v1/jobs/{job}/events", {}
        yield "/v1/causation", {"job": job}
        yield "/v1/lineage", {"job": job, "limit": 3}
    yield "/v1/truths", {"limit": 2}
    yield "/v1/truths", {"subject": "thing:*", "predicate": "m*", "min_confidence": 0.5}
    yield "/v1/truths", {"source": "e*", "conflict": True, "limit": 3}
    yield "/v1/truths", {"as_of": then, "limit": 3}
    yield "/v1/truths/diff", {"from": then, "limit": 3}
    for subject, identity, position in world.assertions[:3]:
        yield "/v1/causation", {"assertion": identity}
        yield "/v1/truths", {"subject": subject, "as_of": position_text(position)}
        yield "/v1/truths/diff", {"from": position_text(position), "limit": 2}
        yield "/v1/lineage", {"assertion": identity, "limit": 3, "direction": "up"}
        yield "/v1/lineage", {"assertion": identity, "as_of": then}
    for subject in subjects[:3]:
        for axis in ("believed", "valid"):
            yield "/v1/truths/history", {"subject": subject, "predicate": "free", "axis": axis, "limit": 2}
        yield "/v1/lineage", {"subject": subject, "predicate": "one"}
    for source in ("eye", "hand"):
        yield "/v1/impact", {"source": source, "limit": 2}
        yield "/v1/lineage", {"source": source, "limit": 5}
    yield "/v1/jobs/job-0/events", {"limit": 3}
    yield "/v1/jobs/job-0/events", {"limit": 1, "event_type": ["TruthAsserted", "JobCompleted"]}
    yield "/v1/jobs/never-seen", {}
    yield "/v1/jobs", {"cursor": "nonsense"}


async def answers(app: FastAPI, asked: list[Question]) -> list[Any]:
    """Return every page of every answer, without what says who answered."""
    found: list[Any] = []
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://core") as client:
        for path, query in asked:
            cursor: str | None = None
            for _ in range(100):
                answer = await client.get(path, params={**query, **({"cursor": cursor} if cursor else {})})
                found.append((path, query, cursor, answer.status_code, plain(answer.json())))
                cursor = answer.json().get("next_cursor")
                if cursor is None:
                    break
        for sql in SQL:
            answer = await client.post("/v1/sql", json={"sql": sql})
            assert answer.status_code == 200, answer.text
            found.append((sql, plain(answer.json())))
    return found


def plain(answer: dict[str, Any]) -> Any:
    if "error_id" in answer:
        return answer["code"], answer["message"]
    answer.get("reflects", {}).pop("answered_by", None)
    return answer


@pytest.mark.parametrize(("seed", "steps", "shards"), [(1, 1, 2), (2, 25, 2), (3, 25, 3)])
def test_shards_together_and_replicas_answer_as_one(seed: int, steps: int, shards: int) -> None:
    # Each question is several statements to several databases: few worlds, and everything asked of each.
    world, chance = World(seed, steps), random.Random(seed)
    asked = list(questions(world))
    with answering(world) as single:
        expected = asyncio.run(answers(single, asked))
    with answering(world, chance=chance) as replica:
        assert asyncio.run(answers(replica, asked)) == expected
    with answering(world, shards, at=chance.randrange(shards)) as sharded:
        assert asyncio.run(answers(sharded, asked)) == expected


def test_every_record_is_in_exactly_one_shard_and_a_jobs_rows_in_the_same() -> None:
    world = World(7, 60)
    homes: dict[bytes, set[int]] = {}
    for record in world.records:
        place = (record.topic, record.partition)
        kept = [
            number for number in range(3)
            if (shard := Shard(number=number, of=3)).reads(place) and shard.keeps(record.topic, record.key, COUNTS["controlplane.jobs"])
        ]  # fmt: skip
        assert len(kept) == 1
        if record.key.startswith(b"job-"):
            homes.setdefault(record.key, set()).update(kept)
    assert {len(some) for some in homes.values()} == {1}


@pytest.mark.parametrize("text", ["", "2/2", "1", "a/b", "-1/2", "0/0", "0/2 "])
def test_a_shard_is_written_one_way(text: str) -> None:
    assert shard_of("1/2") == Shard(number=1, of=2)
    with pytest.raises(ShardInvalid, match="Expected a shard like 0/2"):
        shard_of(text)


def test_a_file_is_not_opened_for_another_shard(tmp_path: Any) -> None:
    Store(tmp_path / "core.duckdb", shard=Shard(number=1, of=2)).close()
    with pytest.raises(ShardDiffers, match=r"Expected .* to hold shard 0/1, but it holds 1/2"):
        Store(tmp_path / "core.duckdb")
    Store(tmp_path / "core.duckdb", shard=Shard(number=1, of=2)).close()


def test_a_statement_that_orders_by_itself_is_not_asked_of_shards() -> None:
    with pytest.raises(ValueError, match="Expected order and limit as `tail`"):
        Gathered([]).found("SELECT * FROM events ORDER BY log_time LIMIT 3", (), "", "SELECT * FROM parts", ())
