"""Schemathesis against a gateway, all checks on; `python -m tests.acceptance.fuzzing --requests 20000 --seed 7` starts a stack for it."""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from controlplane.cli.stack import SystemStack
from controlplane.client import Client
from controlplane.settings import Settings
from tests.acceptance.waiting import until

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
GIVE_UP_SECONDS = 3600


class Fuzzed(NamedTuple):
    """How many requests were sent, and what was found."""

    requests: int
    failed: bool
    report: str


def fuzz(stack: SystemStack, folder: Path, *arguments: str, seed: int) -> Fuzzed:
    """Send what follows from a seed to a gateway, and judge every answer."""
    told = folder / f"fuzzed-{seed}.ndjson"
    tls = stack.tls()
    shown = (
        ("--tls-verify", str(tls.ca), "--request-cert", str(tls.certificate), "--request-cert-key", str(tls.key))
        if tls
        else ()
    )
    command = [
        sys.executable, "-m", "schemathesis.cli", "--config-file", str(FOLDER / "schemathesis.toml"), "run", f"{stack.gateway_url}/openapi.json",
        "--seed", str(seed), "--report", "ndjson", "--report-ndjson-path", str(told), *shown, *arguments,
    ]  # fmt: skip
    done = subprocess.run(  # noqa: S603 -- our own
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=GIVE_UP_SECONDS,
    )
    lines = [json.loads(line) for line in told.read_text().splitlines()] if told.exists() else []
    ended = [line["ScenarioFinished"]["recorder"] for line in lines if "ScenarioFinished" in line]
    return Fuzzed(sum(len(one.get("interactions", ())) for one in ended), done.returncode != 0, done.stdout)


def prepare(client: Client) -> None:
    """Give the examples of the contract something to find: a job of theirs that concluded, and a truth."""
    client.submit("test.nap", {"seconds": 0}, job_id="thumbnail-7").wait(60)
    client.assert_truth("module:json", "width", 1)
    until(lambda: client.truths("module:json", "width"))


def main() -> int:
    """Fuzz a stack until so many requests were answered; 1 as soon as anything is found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1, help="Of the first round; each round takes the next.")
    parser.add_argument("--examples", type=int, default=50, help="Of each operation in a round.")
    wanted = parser.parse_args()
    sent, seed = 0, wanted.seed
    with (
        tempfile.TemporaryDirectory(prefix="controlplane-fuzz-") as name,
        SystemStack(Settings(), Path(name), free_ports=True) as stack,
        stack.client() as client,
    ):
        stack.add_runner("runner", "tests.acceptance.handlers:runner")
        until(lambda: client.runners().runners)
        prepare(client)
        while sent < wanted.requests:
            found = fuzz(stack, Path(name), "--max-examples", str(wanted.examples), seed=seed)
            sent += found.requests
            print(f"Seed {seed}: {found.requests:,} requests, {sent:,} of {wanted.requests:,} in all.", flush=True)
            if found.failed or not found.requests:
                print(found.report)
                return 1
            seed += 1
    print("Nothing was found.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
