"""The command as people and programs use it, against the system with a history."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from controlplane.cli.main import app
from controlplane.settings import settings
from tests.acceptance.waiting import WAIT_SECONDS, until

pytestmark = [pytest.mark.xdist_group("studio"), pytest.mark.timeout(300)]


def run(work: SimpleNamespace, *arguments: str) -> tuple[int, str]:
    """Run a command in this process; returns its exit code and all that it said."""
    settings.cache_clear()  # A process reads its variables once, but this one runs many commands.
    done = CliRunner().invoke(app, [*arguments, "--gateway", work.url], env=work.stack.environment())
    settings.cache_clear()
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
    return done.exit_code, done.output


def started(work: SimpleNamespace, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    """Start a command of its own process."""
    environment = {
        "PATH": "/usr/bin:/bin",
        "TERM": "xterm-256color",
        "COLUMNS": "120",
        "LINES": "40",
        **work.stack.environment(),
    }
    argv = [sys.executable, "-m", "controlplane.cli.main", *arguments]
    # Where these tests run in the background, Ctrl-C is ignored, and a child would inherit that.
    heard = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
    return subprocess.Popen(argv, env=environment, cwd=Path.cwd(), text=True, preexec_fn=heard, **options)  # noqa: PLW1509 -- no threads here


def test_top_shows_one_picture_of_queue_rates_and_runners(work: SimpleNamespace) -> None:
    code, text = run(work, "top", "--once", "--window", "3600")
    assert code == 0
    for word in ("waiting", "submitted", "completed", "image.measure", "feed.import", "studio@", "0/6"):
        assert word in text
    code, text = run(work, "top", "--json", "--window", "3600")
    found = json.loads(text)
    assert found["activity"]["concluded"]["COMPLETED"] >= 4
    assert [one["name"] for one in found["runners"]] == ["studio"]


def test_top_draws_again_and_again_until_it_is_interrupted(work: SimpleNamespace) -> None:
    ours, theirs = pty.openpty()
    process = started(work, "top", "--interval", "0.2", stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    try:
        text, give_up_at = "", time.monotonic() + WAIT_SECONDS
        while len(re.findall("ControlPlane", text)) < 3:
            assert time.monotonic() < give_up_at, text[-2000:]
            if select.select([ours], [], [], 1.0)[0]:
                text += os.read(ours, 65536).decode(errors="replace")
        assert "studio@" in text
        process.send_signal(signal.SIGINT)
        while select.select([ours], [], [], 5.0)[0]:
            try:
                if not os.read(ours, 65536):
                    break
            except OSError:  # A pseudo-terminal whose other side is closed ends with EIO.
                break
        assert process.wait(WAIT_SECONDS) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_the_log_is_followed_as_it_comes(work: SimpleNamespace) -> None:
    process = started(
        work, "events", "tail", "--last", "200", "--type", "JobCompleted", "--json", stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        seen = json.loads(process.stdout.readline())
        assert seen["event_type"] == "JobCompleted"
        work.client.submit("image.guess", {"image": "image:tail"}, job_id="tail-1").wait(WAIT_SECONDS)
        keys = []
        while "tail-1" not in keys:
            keys.append(json.loads(process.stdout.readline())["key"])
        assert len(keys) == len(set(keys)), "each record is told once"
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_SECONDS) == 0
    finally:
        process.kill()
        process.communicate()


def test_records_are_listed_filtered_and_shown(work: SimpleNamespace) -> None:
    code, text = run(work, "events", "list", "--topic", "jobs", "--type", "JobFailed", "--type", "JobRejected")
    assert (code, text.count("\n")) == (0, 1)
    assert "JobFailed" in text
    assert "Expected a feed at feed:none" in text
    code, text = run(work, "events", "list", "--job", "report-1", "--json", "--limit", "2000")
    records = [json.loads(line) for line in text.splitlines()]
    assert {"JobSubmitted", "JobRetryScheduled", "JobCompleted"} <= {one["event_type"] for one in records}
    code, text = run(work, "events", "show", records[0]["position"].removeprefix("controlplane."))
    assert (code, "report-1" in text) == (0, True)
    code, text = run(work, "events", "show", "nonsense")
    assert (code, "Expected topic/partition/offset" in text) == (2, True)


def test_an_unknown_type_names_similar_ones_and_nothing_is_submitted(work: SimpleNamespace) -> None:
    code, text = run(work, "submit", "image.mesure", "--job-id", "typo-1")
    assert code == 2
    assert "Did you mean image.measure" in text
    code, text = run(work, "job", "typo-1")
    assert (code, "does not know it" in text) == (1, True)
    code, text = run(work, "submit", "image.guess", "--payload", '{"image": "image:cli"}', "--wait", "--json")
    assert (code, json.loads(text)["result"]) == (0, {"width": 640})


def test_a_bulk_command_counts_before_it_does_anything(work: SimpleNamespace) -> None:
    code, text = run(work, "bulk", "retry", "--tenant", "acme", "--dry-run", "--json")
    assert (code, json.loads(text)) == (0, {"jobs": 1, "phases": {"FAILED": 1}})
    assert work.client.job("feed-1").retried_as is None
    assert run(work, "bulk", "destroy")[0] == 2


def test_what_is_asserted_is_true_until_it_is_retracted(work: SimpleNamespace) -> None:
    assert run(work, "truth", "declare", "height", "--cardinality", "SINGLE", "--unit", "m")[0] == 0
    code, text = run(
        work, "truth", "assert", "tower:cli", "height", "330", "--unit", "m", "--source", "survey", "--json"
    )
    assertion = json.loads(text)
    assert code == 0
    until(lambda: work.client.truths("tower:cli", min_position=assertion["position"]))
    code, text = run(work, "truth", "tower:cli", "height")
    assert "330" in text
    code, text = run(work, "sql", "SELECT subject, number FROM assertions WHERE subject = 'tower:cli'", "--csv")
    assert text.splitlines() == ["subject,number", "tower:cli,330.0"]
    code, text = run(work, "truth", "retract", assertion["event_id"], "tower:cli", "--source", "survey", "--json")
    until(lambda: not work.client.truths("tower:cli", min_position=json.loads(text)["position"]))


def test_jobs_are_searched(work: SimpleNamespace) -> None:
    code, text = run(work, "jobs", "--search", "there is none", "--json")
    assert (code, [one["job_id"] for one in json.loads(text)]) == (0, ["feed-1"])
