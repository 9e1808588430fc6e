"""The change feed as its bytes come: cut anywhere, with letters that some readers of lines take for ends of lines."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime

import httpx
import pytest

from controlplane.api.models import ContractView, TruthView
from controlplane.api.truths import TruthChangeTold
from controlplane.client import AsyncClient, Client, ControlPlaneError
from controlplane.events.values import canonical_json
from controlplane.truthcore_projector.http_feed import _sent

VALUE = "one\u2028two\u2029three\x85four é"
PLACE = {"lag_records": 0, "lag_seconds": 0.0, "answered_by": []}


def told(value: str) -> TruthChangeTold:
    contract = ContractView(
        value_kind=None, cardinality="SINGLE", rule="BAYES", unit=None, many=False, declared_at=None
    )
    truth = TruthView(
        subject="page:1", predicate="title", value=value, kind="STRING", unit=None, confidence=0.9, rule="BAYES", conflict=False,
        candidates=[], contract=contract, explanation="",
    )  # fmt: skip
    return TruthChangeTold(
        subject="page:1", predicate="title", change="appeared", before=None, after=truth, cause="controlplane.truth/0/0",
        at=datetime(2026, 1, 1, tzinfo=UTC), place="0:1",
    )  # fmt: skip


def as_older_servers_wrote(value: str, end: str) -> bytes:
    """Return a change, and that there is no more, with the letters as they are."""
    change = canonical_json(told(value).model_dump(mode="json"))
    lines = ["event: change", "id: 0:1", f"data: {change}", "", "event: place", "id: 0:1", f"data: {canonical_json(PLACE)}", "", ""]  # fmt: skip
    return end.join(lines).encode()


class Cut(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that comes in parts of so many bytes."""

    def __init__(self, body: bytes, size: int) -> None:
        self._parts = [body[first : first + size] for first in range(0, len(body), size)]

    def __iter__(self) -> Iterator[bytes]:
        yield from self._parts

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self._parts:
            yield part


def server(body: bytes, size: int) -> httpx.MockTransport:
    return httpx.MockTransport(lambda _: httpx.Response(200, stream=Cut(body, size)))


@pytest.mark.parametrize("size", [1, 2, 7, 10_000])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_only_a_line_feed_ends_a_line(end: str, size: int) -> None:
    transport = server(as_older_servers_wrote(VALUE, end), size)
    with Client("http://gateway", transport=transport) as client:
        changes = list(client.truth_changes(idle=lambda _: True))

    async def awaited() -> list[TruthChangeTold]:
        async with AsyncClient("http://gateway", transport=transport) as client:
            return [change async for change in client.truth_changes(idle=lambda _: True)]

    assert changes == asyncio.run(awaited()) == [told(VALUE)]


def test_what_the_server_sends_is_cut_at_no_letter() -> None:
    """Clients from before, which cut at more than line feeds, read it as well."""
    sent = _sent("change", "0:1", told(VALUE).model_dump(mode="json"))
    kind, identity, data, end = sent.decode().splitlines()
    assert (kind, identity, end) == ("event: change", "id: 0:1", "")
    assert TruthChangeTold.model_validate_json(data.removeprefix("data: ")) == told(VALUE)


def test_a_change_that_cannot_be_read_is_an_error_of_the_client() -> None:
    with (
        Client("http://gateway", transport=server(b'event: change\nid: 0:1\ndata: {"subject": \n\n', 100)) as client,
        pytest.raises(ControlPlaneError, match="Expected an answer of GET /v1/truths/changes") as caught,
    ):
        next(client.truth_changes())
    assert caught.value.code == "answer_unknown"
