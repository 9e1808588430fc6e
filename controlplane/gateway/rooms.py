"""Answers that stay open: how many there may be at once, of everybody and of one tenant, and giving back what each holds."""

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Final

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from controlplane.api.problems import refused
from controlplane.gateway.callers import CALLER

MEDIA_TYPE: Final = "text/event-stream"
STREAMS_AT_MOST: Final = 256
STREAMS_OF_A_TENANT: Final = 64
WAITS_AT_MOST: Final = 256
WAITS_OF_A_TENANT: Final = 128

assert STREAMS_OF_A_TENANT < STREAMS_AT_MOST  # Nobody keeps all others out.
assert WAITS_OF_A_TENANT < WAITS_AT_MOST


class Room:
    """Places for answers of one kind. Belongs to the event loop."""

    def __init__(self, what: str, *, at_most: int, of_a_tenant: int, again_seconds: float) -> None:
        """Make room for so many of what a person calls this, and of one tenant for so many; whoever finds none may ask again so much later."""
        self._what = what
        self._at_most = at_most
        self._of_a_tenant = of_a_tenant
        self._again_seconds = again_seconds
        self._by_tenant: Counter[str] = Counter()

    @property
    def taken(self) -> int:
        """Return how many places are taken."""
        return self._by_tenant.total()

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place for whoever makes the request at hand; who answers for all tenants has no limit but that of all.

        Raises:
            Refused: there is none.
        """
        caller = CALLER.get()
        if self.taken >= self._at_most:
            raise self._full(self._at_most, "")
        if not caller.of_all_tenants and self._by_tenant[caller.tenant] >= self._of_a_tenant:
            raise self._full(self._of_a_tenant, f" of {caller.tenant}")
        self._by_tenant[caller.tenant] += 1
        try:
            yield
        finally:
            self._by_tenant[caller.tenant] -= 1
            self._by_tenant += Counter()  # Lets tenants go that have none.

    def _full(self, limit: int, whose: str) -> Exception:
        text = f"Expected at most {limit} {self._what}{whose} at this gateway, but all are taken."
        return refused("overloaded", text, expected=f"at most {limit}", retry_after_seconds=self._again_seconds)


def room_for_streams() -> Room:
    """Return the room of a gateway for live streams, whether it reads them from the log itself or passes TruthCore's on."""
    return Room("live streams", at_most=STREAMS_AT_MOST, of_a_tenant=STREAMS_OF_A_TENANT, again_seconds=5.0)


def room_for_waits() -> Room:
    """Return the room of a gateway for reads that wait for something to happen."""
    return Room("reads that wait", at_most=WAITS_AT_MOST, of_a_tenant=WAITS_OF_A_TENANT, again_seconds=1.0)


class LiveAnswer(StreamingResponse):
    """A stream, and what has to be given back when it ends, however it does."""

    media_type = MEDIA_TYPE

    def __init__(
        self, parts: AsyncIterator[bytes], held: contextlib.AsyncExitStack, *, status_code: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:  # fmt: skip
        """Take the parts and what they need."""
        own = {"cache-control": "no-store", "x-accel-buffering": "no"}
        super().__init__(parts, status_code, headers=own | dict(headers or {}))
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the parts until the stream ends or the client left."""
        async with self._held:
            await super().__call__(scope, receive, send)
