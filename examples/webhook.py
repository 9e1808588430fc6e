"""Post each conclusion to a URL: `python webhook.py https://... positions.json`; each at least once, in order, also across restarts."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import httpx

from controlplane.client import Conclusion, ControlPlaneError, LogClient
from controlplane.settings import settings

MOST_SECONDS = 30.0


def told(one: Conclusion) -> dict[str, Any]:
    """Return what is posted; a result that is large or encrypted stays where it is, and `kept` says so."""
    body = {"job_id": one.job_id, "outcome": one.outcome, "result": None}
    if one.outcome == "completed":
        try:
            body["result"] = one.result()
        except ControlPlaneError as error:
            body["kept"] = str(error)
    return body


async def deliver(http: httpx.AsyncClient, url: str, one: Conclusion) -> None:
    """Post until it is taken. The receiver tells repeats by `job_id`: the first conclusion of a job counts."""
    body = told(one)
    pause = 0.2
    while True:
        try:
            answer = await http.post(url, json=body)
            if answer.is_success:
                return
            why = f"{answer.status_code} {answer.reason_phrase}"
        except httpx.TransportError as error:
            why = str(error) or type(error).__name__
        print(f"{one.job_id} again in {pause:g} s: {why}", file=sys.stderr, flush=True)
        await asyncio.sleep(pause)
        pause = min(2 * pause, MOST_SECONDS)


def remembered(positions: Path) -> list[int]:
    if not positions.exists():
        return [0] * settings().partitions_jobs
    since: list[int] = json.loads(positions.read_text())
    return since


def remember(positions: Path, since: list[int]) -> None:
    fresh = positions.with_suffix(".new")
    fresh.write_text(json.dumps(since))
    fresh.replace(positions)  # Half a file would be none.


async def main(url: str, positions: Path) -> None:
    """Go on where the file says, from the beginning without one."""
    bootstrap = settings().kafka_bootstrap
    assert bootstrap is not None, "Expected CONTROLPLANE_KAFKA_BOOTSTRAP, but it is not set."
    since = remembered(positions)
    async with LogClient(bootstrap) as client, httpx.AsyncClient(timeout=10) as http:
        async for batch in client.conclusions(since=since):
            for one in batch:
                await deliver(http, url, one)
                since[one.position.partition] = one.position.offset + 1
            if batch:
                remember(positions, since)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
