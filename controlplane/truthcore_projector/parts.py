"""Snapshots of this shard that another shard asks: statements in, Arrow out, one snapshot for as long as a question takes.

Only peers ask here; the gateway does not pass it on. What a statement can do is what strangers' SQL can do: read, without files or settings.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import ExitStack
from threading import Lock
from typing import Final

import anyio.to_thread
import duckdb
import msgspec
import pyarrow as pa
from fastapi import FastAPI, Request
from fastapi.responses import Response

from controlplane.api.problems import refused
from controlplane.api.replicas import PartAnswer, PartRequest, Standing
from controlplane.events.identity import random_id
from controlplane.log.positions import Partition
from controlplane.truthcore_projector.cursors import NEAR, Parameters, Snapshot
from controlplane.truthcore_projector.projector import Projector
from controlplane.truthcore_projector.store import Store, positions_in
from controlplane.truthcore_projector.visibility import TENANTS
from controlplane.truthcore_projector.whereabouts import EVERYWHERE

ARROW: Final = "application/vnd.apache.arrow.stream"
IDLE_SECONDS: Final = 60.0
"""A question that sends no statement for so long has gone with whoever asked it."""
PARTS_LIMIT: Final = 256
_POSITIONAL: Final = b"positional"
_QUERY: Final = b"query"
_ABOUT: Final = b"about"


def statement_bytes(query: str, parameters: Parameters, about: Sequence[str]) -> bytes:
    """Return a statement with its parameters as Arrow: their types survive."""
    named = (
        parameters if isinstance(parameters, dict) else {str(place): value for place, value in enumerate(parameters)}
    )
    table = pa.Table.from_pylist([named]) if named else pa.table({})
    positional = b"no" if isinstance(parameters, dict) else b"yes"
    marks = {_QUERY: query.encode(), _POSITIONAL: positional, _ABOUT: msgspec.json.encode(about)}
    return table_bytes(table.replace_schema_metadata(marks))


def read_statement(body: bytes) -> tuple[str, Parameters, list[str]]:
    """Return the statement that some bytes hold, its parameters, and the names that it is about."""
    table = read_table(body)
    marks = table.schema.metadata
    named = table.to_pylist()[0] if table.num_columns else {}
    parameters = list(named.values()) if marks[_POSITIONAL] == b"yes" else named
    return marks[_QUERY].decode(), parameters, msgspec.json.decode(marks.get(_ABOUT, b"[]"), type=list[str])


def table_bytes(table: pa.Table) -> bytes:
    """Return a table as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def read_table(body: bytes) -> pa.Table:
    """Return the table of an Arrow IPC stream."""
    with pa.ipc.open_stream(body) as reader:
        return reader.read_all()


class _Open:
    """One snapshot that a peer asks."""

    def __init__(self, store: Store) -> None:
        self._stack = ExitStack()
        self.cursor = self._stack.enter_context(store.snapshot(TENANTS.get()))
        self.used_at = time.monotonic()
        self._lock = Lock()

    def answer(self, body: bytes) -> bytes:
        query, parameters, about = read_statement(body)
        statements = self.cursor.extract_statements(query.replace(NEAR, EVERYWHERE))
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise refused("request_invalid", f"Expected one SELECT, but found {query[:200]!r}.")
        with self._lock:
            return table_bytes(Snapshot(self.cursor).table(query, parameters, about))

    def close(self) -> None:
        with self._lock:
            self._stack.close()


class _Parts:
    """The snapshots that peers ask now."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._open: dict[str, _Open] = {}

    def open(self) -> tuple[str, dict[Partition, int]]:
        """Open a snapshot; return its name and what it reflects."""
        self.sweep()
        if len(self._open) >= PARTS_LIMIT:
            text = f"Expected at most {PARTS_LIMIT} questions of peers at once, but there are more."
            raise refused("overloaded", text)
        one, name = _Open(self._store), random_id()
        self._open[name] = one
        return name, positions_in(one.cursor)

    def __getitem__(self, name: str) -> _Open:
        one = self._open.get(name)
        if one is None:
            raise refused("not_found", f"Expected an open part, but {name[:100]!r} is none.", found=name)
        one.used_at = time.monotonic()
        return one

    def close(self, name: str) -> None:
        """Close a snapshot, if it is still open."""
        if one := self._open.pop(name, None):
            one.close()

    def sweep(self) -> None:
        """Close what nobody uses any more."""
        for name, one in list(self._open.items()):
            if time.monotonic() - one.used_at > IDLE_SECONDS:
                self.close(name)


def add_parts(app: FastAPI, store: Store, projector: Projector) -> None:
    """Let peers ask this process."""
    parts = _Parts(store)

    @app.get("/v1/standing")
    async def standing() -> Standing:
        return projector.standing()

    @app.post("/v1/parts")
    async def open_part(body: PartRequest) -> PartAnswer:
        await projector.wait_for(body.min_position, body.wait_seconds)
        name, positions = await anyio.to_thread.run_sync(parts.open)
        asyncio.get_running_loop().call_later(IDLE_SECONDS + 1, parts.sweep)
        return PartAnswer(part=name, standing=projector.standing(positions))

    @app.post("/v1/parts/{part}")
    async def statement(part: str, request: Request) -> Response:
        one, body = parts[part], await request.body()
        try:
            return Response(await anyio.to_thread.run_sync(one.answer, body), media_type=ARROW)
        except (pa.ArrowInvalid, KeyError, msgspec.DecodeError, duckdb.Error) as error:
            raise refused(
                "request_invalid", f"Expected a statement that can be run, but: {str(error)[:1000]}"
            ) from error

    @app.delete("/v1/parts/{part}", status_code=204)
    async def close_part(part: str) -> None:
        await anyio.to_thread.run_sync(parts.close, part)
