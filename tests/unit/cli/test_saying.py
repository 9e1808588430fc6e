"""Commands that say or limit something, and what their exit codes promise."""

import csv
import io
import json
from typing import Any

import httpx
import pytest

from tests.unit.cli.answers import REFLECTS, Commands

ACKNOWLEDGED = {"job_id": None, "event_id": "a-1", "position": "controlplane.truth/0/1", "correlation_id": "a-1"}
VIEW = {
    "job_id": "job-1", "job_type": "t", "phase": "RUNNING", "pool": "default", "priority": 5, "tenant": "default",
    "correlation_id": "job-1", "submitted_at": None, "concluded_at": None,
}  # fmt: skip


@pytest.mark.parametrize(
    "argv", [["truth", "assert", "tower:eiffel", "height", "330"], ["truth", "retract", "a-1", "tower:eiffel"]]
)
def test_who_asks_is_who_says_it_unless_somebody_is_named(commands: Commands, argv: list[str]) -> None:
    assert commands.run(*argv, answer=ACKNOWLEDGED).exit_code == 0
    assert commands.bodies[0]["source"] is None  # The gateway knows who asks.
    assert commands.run(*argv, "--source", "survey", answer=ACKNOWLEDGED).exit_code == 0
    assert commands.bodies[0]["source"] == "survey"


def test_a_limit_is_removed_only_by_the_command_for_that(commands: Commands) -> None:
    for options in ([], ["--period", "60"]):
        done = commands.run("limit", "set", "type:t", *options)
        assert (done.exit_code, commands.seen) == (2, [])
        assert "Expected --max-running or --starts, but found neither" in done.stderr
    done = commands.run("limit", "set", "type:t", "--max-running", "0", answer=ACKNOWLEDGED)
    assert (done.exit_code, commands.bodies[0]["max_running"]) == (0, 0)


def rows(count: int, *, truncated: bool) -> dict[str, Any]:
    return {"columns": ["n"], "rows": [[n] for n in range(count)], "truncated": truncated, "reflects": REFLECTS}


def test_a_table_that_was_cut_does_not_pass_for_a_whole_one(commands: Commands) -> None:
    whole = commands.run("sql", "SELECT 1", "--csv", answer=rows(3, truncated=False))
    assert (whole.exit_code, whole.stderr) == (0, "")
    cut = commands.run("sql", "SELECT 1", "--csv", answer=rows(1_000, truncated=True))
    assert cut.exit_code == 1
    assert cut.stderr == "controlplane: Expected all rows, but there are more than the 1,000 of --limit (at most 10,000).\n"  # fmt: skip
    assert len(list(csv.reader(io.StringIO(cut.stdout)))) == 1_001  # Nothing but rows on stdout.


def test_one_form_is_asked_for_at_a_time(commands: Commands) -> None:
    done = commands.run("sql", "SELECT 1", "--csv", "--json")
    assert (done.exit_code, commands.seen) == (2, [])
    assert "Expected one of --csv and --json" in done.stderr


@pytest.mark.parametrize("as_json", [False, True])
def test_what_takes_too_long_did_not_come_true(commands: Commands, as_json: bool) -> None:
    """2 says that the command itself was wrong."""

    def answer(request: httpx.Request) -> Any:
        if request.method == "POST":
            return httpx.Response(202, json={**ACKNOWLEDGED, "job_id": "job-1"})
        return {"job": VIEW, "reflects": REFLECTS}

    argv = ["submit", "t", "--anyway", "--wait", "--timeout", "0", *(["--json"] if as_json else [])]
    done = commands.run(*argv, answer=answer)
    expected = "Expected job job-1 to conclude within 0 s, but it is RUNNING."
    assert done.exit_code == 1
    if as_json:
        assert json.loads(done.stdout) == {"error": {"message": expected}}
    else:
        assert done.stderr == f"controlplane: {expected}\n"
