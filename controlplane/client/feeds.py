"""The change feed of truths as an iterator: server-sent events, taken up again where they broke off."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping
from typing import Any, Final

import httpx
from pydantic_core import from_json

from controlplane.api.truths import TruthChangeTold
from controlplane.client import calls
from controlplane.client.errors import ControlPlaneError

PATH: Final = "/v1/truths/changes"
SILENT_SECONDS: Final = 40.0
"""The server speaks at least every ten seconds: a connection that is silent for so long is gone."""
AGAIN_SECONDS: Final = 0.2
_CHANGE: Final = calls.call("GET", PATH, TruthChangeTold.model_validate_json)
_OTHER: Final = calls.call("GET", PATH, from_json)

Idle = Callable[[str], bool]
"""Called with the place whenever all is told that there is; when it returns true, the feed ends."""


def follow(
    http: httpx.Client, query: Mapping[str, Any], after: str | None, idle: Idle | None = None
) -> Generator[TruthChangeTold, None, None]:
    """Yield changes as they come, for ever; what breaks the connection off is waited out, and nothing is missed or told twice.

    Raises:
        ControlPlaneError: the request was refused, and repeating it does not help.
    """
    reading = _Reading(query, after, idle)
    while True:
        try:
            with http.stream("GET", PATH, **reading.request()) as answer:
                if not answer.is_success:
                    raise _refusal(answer, answer.read())
                for part in answer.iter_bytes():
                    for line in reading.lines(part):
                        if (change := reading.take(line)) is not None:
                            yield change
                        if reading.over:
                            return
            fault = calls.no_answer(http.base_url, ConnectionError("the feed ended"))
        except httpx.TransportError as error:
            fault = calls.no_answer(http.base_url, error)
        except ControlPlaneError as error:
            fault = error
        time.sleep(reading.pause(fault))


async def follow_awaited(
    http: httpx.AsyncClient, query: Mapping[str, Any], after: str | None, idle: Idle | None = None
) -> AsyncGenerator[TruthChangeTold, None]:
    """Yield changes as `follow` does, awaited.

    Raises:
        ControlPlaneError: the request was refused, and repeating it does not help.
    """
    reading = _Reading(query, after, idle)
    while True:
        try:
            async with http.stream("GET", PATH, **reading.request()) as answer:
                if not answer.is_success:
                    raise _refusal(answer, await answer.aread())
                async for part in answer.aiter_bytes():
                    for line in reading.lines(part):
                        if (change := reading.take(line)) is not None:
                            yield change
                        if reading.over:
                            return
            fault = calls.no_answer(http.base_url, ConnectionError("the feed ended"))
        except httpx.TransportError as error:
            fault = calls.no_answer(http.base_url, error)
        except ControlPlaneError as error:
            fault = error
        await asyncio.sleep(reading.pause(fault))


def _refusal(answer: httpx.Response, content: bytes) -> ControlPlaneError:
    return calls.refusal_of(answer.status_code, answer.reason_phrase, content, answer.headers.get("retry-after"))


class _Reading:
    """Where a reader of the feed stands, and what the lines of the server mean."""

    def __init__(self, query: Mapping[str, Any], after: str | None, idle: Idle | None) -> None:
        self._query = query
        self._after = after
        self._idle = idle
        self._attempt = 0
        self._fields: dict[str, str] = {}
        self._begun = b""
        self.over = False
        """Whether `idle` ended it."""

    def request(self) -> dict[str, Any]:
        """Return how to ask for what follows."""
        self._fields, self._begun = {}, b""
        headers = {"accept": "text/event-stream"} | ({"last-event-id": self._after} if self._after else {})
        parameters = calls.Call(method="GET", path=PATH, read=bytes, query=self._query).parameters()
        return {"params": parameters, "headers": headers, "timeout": SILENT_SECONDS}

    def lines(self, part: bytes) -> Iterator[str]:
        """Take some bytes of the answer; yield the lines that end in them.

        Only a line feed ends a line, and a carriage return before it is part of that end: U+2028, U+2029 and U+0085, which `iter_lines` takes
        for ends as well, may stand in a value.
        """
        *ended, self._begun = (self._begun + part).split(b"\n")
        for line in ended:
            yield line.removesuffix(b"\r").decode(errors="replace")

    def take(self, line: str) -> TruthChangeTold | None:
        """Take a line of the answer; return the change that it completes, if it completes one.

        Raises:
            ControlPlaneError: it says that the server cannot go on, or it is none that this client knows.
        """
        if line:
            name, _, value = line.partition(": ")
            self._fields[name] = value
            return None
        fields, self._fields = self._fields, {}
        if not fields:
            return None
        self._attempt, self._after = 0, fields.get("id") or self._after
        kind, text = fields.get("event", "message"), fields.get("data", "null").encode()
        if kind == "change":
            return calls.read_answer(_CHANGE, text)
        data = calls.read_answer(_OTHER, text)
        if kind == "problem":
            raise ControlPlaneError(data)
        if self._idle is not None and data["lag_records"] == 0 and self._after is not None:
            self.over = self._idle(self._after)
        return None

    def pause(self, fault: ControlPlaneError) -> float:
        """Return how long to wait before asking again, in seconds.

        Raises:
            ControlPlaneError: asking again does not help.
        """
        self._attempt += 1
        pause = calls.pause_before(self._attempt, fault)
        if pause is None:
            raise fault
        return max(pause, AGAIN_SECONDS)
