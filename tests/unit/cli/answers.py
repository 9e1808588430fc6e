"""A gateway in place of a real one: commands run in this process, and every request gets the answer that a test gives."""

import json
from collections.abc import Callable
from typing import Any, Final

import httpx
import pytest
from typer.testing import CliRunner, Result

import controlplane.client
from controlplane.cli.main import app

Answer = Callable[[httpx.Request], Any]
REFLECTS: Final = {"positions": {}, "lag_records": 0, "lag_seconds": 0.0, "answered_by": []}


class Commands:
    """Runs commands; keeps what they asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Stand where the client asks."""
        self.seen: list[httpx.Request] = []
        self._answer: Answer = lambda request: pytest.fail(f"{request.method} {request.url}")
        stock = controlplane.client.Client

        def client(*_: Any, **__: Any) -> controlplane.client.Client:
            return stock("http://gateway", transport=httpx.MockTransport(self._serve))

        monkeypatch.setattr(controlplane.client, "Client", client)

    def _serve(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        answer = self._answer(request)
        return answer if isinstance(answer, httpx.Response) else httpx.Response(200, json=answer)

    def run(self, *argv: str, answer: Answer | Any = None) -> Result:
        """Run a command; requests get this answer."""
        self.seen.clear()
        self._answer = answer if callable(answer) else lambda _: answer
        return CliRunner().invoke(app, list(argv), env={"COLUMNS": "200"})

    @property
    def bodies(self) -> list[Any]:
        """Return what was sent."""
        return [json.loads(request.content) for request in self.seen]
