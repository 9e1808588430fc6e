"""The drill of docs/operations/backup.md: what is running is stopped, its folder copied, started elsewhere, and it is the same, provably (G5, issue 7)."""

import asyncio
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from controlplane.api.models import DigestAnswer
from controlplane.cli.stack import SystemStack
from controlplane.client import Client
from controlplane.log.connection import LogConnection
from controlplane.settings import Settings
from controlplane.truthcore_projector.replay import positions_of, rebuild, verify

JOBS = 20
WITHIN_SECONDS = 60.0


def command(stack: SystemStack, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "controlplane.cli.main", *map(str, arguments)],
        env={"PATH": "/usr/bin:/bin", **stack.environment()}, cwd=Path.cwd(), capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def until(look: Callable[[], Any]) -> Any:
    give_up_at = time.monotonic() + WITHIN_SECONDS
    while not (found := look()):
        assert time.monotonic() < give_up_at, "Expected it within the bound, but it did not come."
        time.sleep(0.1)
    return found


def run_jobs(stack: SystemStack, client: Client, name: str) -> None:
    stack.add_runner("runner", "tests.acceptance.handlers:runner")
    until(
        lambda: client.submit("test.nap", {"seconds": 0}).wait(WITHIN_SECONDS).phase == "COMPLETED"
    )  # JobForge knows the runner.
    handles = [client.submit("test.nap", {"seconds": 0.01}, job_id=f"{name}-{number}") for number in range(JOBS)]
    assert [handle.wait(WITHIN_SECONDS).phase for handle in handles] == ["COMPLETED"] * JOBS


def before_the_disaster(folder: Path, anchors: Path, proof: Path) -> DigestAnswer:
    """Run jobs, keep the last checkpoints and a proof elsewhere, stop; returns the digest of what was known."""
    with SystemStack(Settings(), folder, free_ports=True) as stack, stack.client() as client:
        run_jobs(stack, client, "before")
        [concluded] = [one for one in client.job_events("before-7") if one.event_type == "JobCompleted"]
        done = until(
            lambda: (
                done
                if (done := command(stack, "audit", "prove", concluded.event_id, "--output", proof)).returncode == 0
                else None
            )
        )
        assert concluded.position in done.stdout
        done = command(stack, "audit", "checkpoints", "export", anchors)
        assert done.returncode == 0, done.stderr
        digest: DigestAnswer = client.digest()
        return digest


def begun_with_a_copy(stack: SystemStack, name: str, records: int) -> None:
    """A replica that joins has the records of the other without having folded them."""
    context = stack.verification()

    def standing() -> Any:
        found = httpx.get(f"{stack.truthcore_urls[name]}/v1/standing", verify=context).json()
        return found if found["reading"] and found["reflects"]["lag_records"] == 0 else None

    found = until(standing)
    there = sum(end for some in found["reflects"]["positions"].values() for end in some.values())
    assert there - found["folded_records"] >= records > 0


async def folded_again(connection: LogConnection, known: DigestAnswer, file: Path) -> list[Any]:
    tables, _, _ = await rebuild(connection, positions_of(known), file)
    return tables


@pytest.mark.timeout(420)
def test_a_copied_folder_starts_elsewhere_and_knows_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTROLPLANE_CHECKPOINT_SECONDS", "0.5")
    anchors, proof = tmp_path / "anchors.jsonl", tmp_path / "proof.json"
    known = before_the_disaster(tmp_path / "first", anchors, proof)
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    shutil.rmtree(tmp_path / "first")
    with (
        SystemStack(Settings(), tmp_path / "second", replicas=2, free_ports=True) as stack,
        stack.client() as client,
    ):
        begun_with_a_copy(stack, "truthcore-2", sum(positions_of(known).values()))
        connection = stack.connection()
        assert asyncio.run(folded_again(connection, known, tmp_path / "again.duckdb")) == known.tables
        run_jobs(stack, client, "after")
        assert client.job("before-7").phase == "COMPLETED"
        verdict = asyncio.run(verify(connection, client.digest()))
        assert verdict.agrees, verdict
        done = command(stack, "audit", "checkpoints", "verify", "--anchors", anchors, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        found = json.loads(done.stdout)
        assert found["intact"]
        assert found["anchors"] > 0
        checked = subprocess.run(
            [sys.executable, "tools/verify_inclusion.py", str(proof), str(tmp_path / "second" / "notary" / "notary.pub")],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert checked.returncode == 0, checked.stderr
        assert "that the notary signed" in checked.stdout
        unknown = command(stack, "audit", "prove", "controlplane.jobs/0/999999")
        assert unknown.returncode == 1
        assert unknown.stderr.startswith("controlplane: Expected an offset from 0 to ")
