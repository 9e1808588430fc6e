"""The Idempotency-Key header: the same key again is the same write, and gets the first answer.

Two layers. Ids follow from the key (`identity_of`), so that a repeat at another gateway, or after a crash between the log and the
answer, appends a record with the same event id, which every projection absorbs. And this process remembers its answers, so that
a repeat here appends nothing and a key that is used for something else is refused. Of a bulk request, which is read line by line, it remembers
the contents of the lines: a line with another content is refused alone.

Source of the header: IETF draft-ietf-httpapi-idempotency-key-header.
"""

import asyncio
import hashlib
from collections import OrderedDict
from typing import Annotated, Final

from fastapi import Header, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from controlplane.api.problems import problem_response, refused
from controlplane.events.identity import name_based_id, random_id
from controlplane.gateway.callers import CALLER
from controlplane.gateway.limits import again, header_in, read_body

ANSWERS_REMEMBERED: Final = 20_000
LINES_REMEMBERED: Final = 50_000
"""Of bulk requests: some 200 bytes each."""
_DIGEST_BYTES: Final = 16
KEY_PATTERN: Final = r"^[\x21-\x7e]{1,200}$"
WRITES: Final = frozenset({"POST", "PUT", "DELETE"})
ACCEPTED: Final = 202

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key", pattern=KEY_PATTERN,
        description="Of the client's choice: the same key again is the same write and gets the first answer.",
    ),
]  # fmt: skip


async def declared(idempotency_key: IdempotencyKey = None) -> None:
    """Take the header, so that it is checked and documented on every write of a router."""


def identity_of(request: Request, ordinal: int = 0) -> str:
    """Return the id of the event that a request writes: the same for the same key, client, method and path."""
    key = request.headers.get("idempotency-key")
    if not key:
        return random_id()
    return name_based_id(_name(request.scope, key) + (f"/{ordinal}" if ordinal else ""))


def _name(scope: Scope, key: str) -> str:
    caller = CALLER.get()
    return f"{caller.tenant}/{caller.name}/{scope['method']}/{scope['path']}/{key}"


class _Remembered:
    """What became of a write: its answer, once there is one."""

    __slots__ = ("content", "done", "parts")

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.done = asyncio.Event()
        self.parts: list[Message] = []


class LinesSeen:
    """With which content the lines of bulk requests came under their keys, as far as this process remembers."""

    def __init__(self) -> None:
        """Know of none."""
        self._contents: OrderedDict[str, bytes] = OrderedDict()

    def another(self, identity: str, line: bytes) -> bool:
        """Say whether a line, by the id that follows from its key and number, came with another content before; note it if it did not come at all."""
        content = hashlib.blake2b(line.strip(), digest_size=_DIGEST_BYTES).digest()
        if (known := self._contents.setdefault(identity, content)) is not content:
            return known != content
        if len(self._contents) > LINES_REMEMBERED:
            self._contents.popitem(last=False)
        return False

    def forget(self, identity: str) -> None:
        """Let a line come with another content: it was not accepted."""
        self._contents.pop(identity, None)


class Idempotency:
    """Answer a repeated write with the first answer (ASGI middleware); only accepted ones are remembered."""

    def __init__(self, app: ASGIApp, streaming_paths: frozenset[str] = frozenset()) -> None:
        """Wrap an application; bodies that are read line by line are judged by line, where they are read."""
        self._app = app
        self._streaming = streaming_paths
        self._answers: OrderedDict[str, _Remembered] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        key = header_in(scope, b"idempotency-key") if scope["type"] == "http" else None
        if not key or scope["method"] not in WRITES or scope["path"] in self._streaming:
            await self._app(scope, receive, send)
            return
        body = await read_body(receive)
        if body is None:
            return
        name, content = _name(scope, key), hashlib.sha256(body).digest()
        while (known := self._answers.get(name)) is not None:
            if known.content != content:
                text = f"Expected the Idempotency-Key {key[:200]!r} with the content that it came with first, but found another."
                fault = refused("duplicate_with_other_content", text, field="Idempotency-Key", found=key)
                await problem_response(fault.error, fault.status, scope["path"])(scope, receive, send)
                return
            await known.done.wait()
            if known.parts:
                for part in known.parts:
                    await send(part)
                return
        await self._first(name, _Remembered(content), scope, again(body, receive), send)

    async def _first(self, name: str, write: _Remembered, scope: Scope, receive: Receive, send: Send) -> None:
        self._answers[name] = write
        parts: list[Message] = []

        async def noted(message: Message) -> None:
            parts.append(message)
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            if parts and parts[0].get("status") == ACCEPTED and not parts[-1].get("more_body", False):
                write.parts = parts
                if len(self._answers) > ANSWERS_REMEMBERED:
                    self._answers.popitem(last=False)
            else:
                self._answers.pop(name, None)  # It was refused: the same key may be tried again.
            write.done.set()
