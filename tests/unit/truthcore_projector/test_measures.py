"""What TruthCore puts aside is counted, from 0 for each reason: a series that is born at 1 has no increase and raises no alert."""

import inspect
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from controlplane.log.connection import LogConnection
from controlplane.truthcore_projector import decode
from controlplane.truthcore_projector.measures import LETTER_CODES, ProjectionMeasures
from controlplane.truthcore_projector.projector import Projector
from controlplane.truthcore_projector.store import Store

COUNTS = {"controlplane.jobs": 1, "controlplane.progress": 1, "controlplane.deadletters": 1}
LETTERS = "controlplane_dead_letters_total"


@pytest.fixture
def projector(tmp_path: Path) -> Iterator[Projector]:
    store = Store(tmp_path / "core.duckdb")
    projector = Projector(LogConnection(bootstrap="127.0.0.1:1"), store, COUNTS)
    yield projector
    projector.close()
    store.close()


def refused(topic: str, code: str) -> decode.Refused:
    record: Any = SimpleNamespace(topic=topic, partition=0, offset=7, timestamp=1, key=b"k", value=b"garbage")
    return decode.Refused(record=record, code=code, reason="Expected an event, but found garbage.")


async def test_what_is_put_aside_is_counted_by_whoever_does_it(
    projector: Projector, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def sent(records: Sequence[object]) -> None:
        del records

    monkeypatch.setattr(projector._producer, "send", sent)
    registry = CollectorRegistry()
    ProjectionMeasures(registry).watch(projector)
    assert {code: registry.get_sample_value(LETTERS, {"code": code}) for code in LETTER_CODES} == dict.fromkeys(
        LETTER_CODES, 0
    )
    one = refused("controlplane.jobs", "event_unexpected")
    of_jobforge = refused("controlplane.progress", "record_undecodable")
    await projector._send_letters([one, of_jobforge])
    assert registry.get_sample_value(LETTERS, {"code": "event_unexpected"}) == 1
    assert registry.get_sample_value(LETTERS, {"code": "record_undecodable"}) == 0, "JobForge puts it aside."


def test_the_reasons_are_all_there_are() -> None:
    default = decode.Refused.__struct_defaults__
    named = set(re.findall(r'\bcode="(\w+)"', inspect.getsource(decode)))
    assert named | {one for one in default if isinstance(one, str)} == set(LETTER_CODES)
