"""The change feed of truths as an iterator: server-sent events, taken up again where they broke off."""

import time
from collections.abc import Callable, Generator, Iterator, Mapping
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


def follow(
    http: httpx.Client, query: Mapping[str, Any], after: str | None, idle: Callable[[str], bool] | None = None
) -> Generator[TruthChangeTold, None, None]:
    """Yield changes as they come, for ever; what breaks the connection off is waited out, and nothing is missed or told twice.

    `idle` is called with the place whenever all is told that there is; when it returns true, the feed ends.

    Raises:
        ControlPlaneError: the request was refused, and repeating it does not help.
    """
    attempt = 0
    while True:
        try:
            for kind, place, data in _events(http, query, after):
                attempt, after = 0, place or after
                if kind == "change":
                    yield TruthChangeTold.model_validate(data)
                elif kind == "problem":
                    raise ControlPlaneError(data)
                elif idle is not None and data["lag_records"] == 0 and after is not None and idle(after):
                    return
            fault = calls.no_answer(http.base_url, ConnectionError("the feed ended"))
        except httpx.TransportError as error:
            fault = calls.no_answer(http.base_url, error)
        except ControlPlaneError as error:
            fault = error
        attempt += 1
        pause = calls.pause_before(attempt, fault)
        if pause is None:
            raise fault
        time.sleep(max(pause, AGAIN_SECONDS))


def _events(http: httpx.Client, query: Mapping[str, Any], after: str | None) -> Iterator[tuple[str, str | None, Any]]:
    headers = {"accept": "text/event-stream"} | ({"last-event-id": after} if after else {})
    parameters = calls.Call(method="GET", path=PATH, read=bytes, query=query).parameters()
    with http.stream("GET", PATH, params=parameters, headers=headers, timeout=SILENT_SECONDS) as answer:
        if not answer.is_success:
            content = answer.read()
            raise calls.refusal_of(answer.status_code, answer.reason_phrase, content, answer.headers.get("retry-after"))
        fields: dict[str, str] = {}
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            if line:
                fields[name] = value
            elif fields:
                yield fields.get("event", "message"), fields.get("id"), from_json(fields.get("data", "null"))
                fields = {}
