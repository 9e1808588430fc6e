"""An old log stays readable: the golden records of every released version, read by today's code into today's projection."""

import json
from typing import Any

import msgspec
import pytest

from controlplane.events.codec import decode
from controlplane.truthcore_projector.digest import MODULUS
from tests.golden.projection import digests, projected
from tests.golden.records import EXPECTED, FILLINGS, file_of, golden_log, plain, released


@pytest.fixture(scope="module")
def expected() -> dict[str, dict[str, str]]:
    kept: dict[str, dict[str, str]] = json.loads(EXPECTED.read_text())
    return kept


def test_every_released_version_has_its_golden_records(expected: dict[str, dict[str, str]]) -> None:
    versions = [(event, version) for event, version, _ in released()]
    missing = [
        str(file_of(*one, filling)) for one in versions for filling in FILLINGS if not file_of(*one, filling).exists()
    ]
    assert missing == [], "make release-schemas keeps them"
    assert set(expected) == {f"{event} v{version}" for event, version in versions}


def _held(read: Any, written: Any) -> bool:
    """Say whether everything that was written is in what was read; fields that came later may be there as well."""
    if isinstance(written, dict):
        return isinstance(read, dict) and all(name in read and _held(read[name], one) for name, one in written.items())
    if isinstance(written, list):
        return isinstance(read, list) and len(read) == len(written) and all(map(_held, read, written))
    return bool(read == written)


@pytest.mark.parametrize("record", golden_log(), ids=lambda one: f"{one.event}-v{one.partition}-{one.offset % 2}")
def test_a_golden_record_says_today_what_was_written(record: Any) -> None:
    event = decode(record.value)
    assert type(event).__name__ == record.event
    read = plain(msgspec.to_builtins(event, builtin_types=(bytes,)))
    assert _held(read, record.written), (read, record.written)


def test_golden_records_have_the_rows_in_todays_projection_that_are_expected(
    expected: dict[str, dict[str, str]],
) -> None:
    """Where a table was changed on purpose, `make release-schemas` writes what is expected anew."""
    assert projected() == expected


def test_all_versions_in_one_log_have_the_rows_that_each_has_by_itself(expected: dict[str, dict[str, str]]) -> None:
    sums: dict[str, int] = {}
    for tables in expected.values():
        for table, one in tables.items():
            sums[table] = (sums.get(table, 0) + int(one, 16)) % MODULUS
    assert digests(golden_log()) == {table: f"{total:064x}" for table, total in sums.items()}
