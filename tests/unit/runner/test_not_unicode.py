"""Text that is no Unicode, as names of files are, ends an attempt like any other text: it is told, and its lease and slot are free."""

import asyncio
import logging
from collections.abc import Iterator

import pytest

from controlplane.events.errors import envelope
from controlplane.events.texts import valid_text
from controlplane.events.types import AttemptFailed, AttemptSucceeded
from controlplane.events.values import ValueInvalid, typed_value
from controlplane.runner import ClaimInvalid, JobContext, Runner
from controlplane.runner.processes import WorkerProcesses
from controlplane.runner.reports import JobFacts, Report
from controlplane.runner.testing import run_handler
from controlplane.telemetry.logs import JsonFormatter
from tests.unit.runner.leasing import Kept, attempts_of, lease

NAME = "caf\udce9.txt"
"""What `os.listdir` returns for the bytes `caf\xe9.txt`."""
runner = Runner("files", slots=2)
in_processes = Runner("files", slots=2)


@pytest.fixture(autouse=True)
def unreported(request: pytest.FixtureRequest) -> Iterator[None]:
    """Leave the logs out of pytest's own reports: a worker of xdist cannot send such text."""
    plugin = request.config.pluginmanager.get_plugin("logging-plugin")
    assert plugin is not None
    handler = plugin.report_handler

    def nothing(_: logging.LogRecord) -> bool:
        return False

    handler.addFilter(nothing)
    yield
    handler.removeFilter(nothing)


def says(how: str, job: JobContext) -> str:
    match how:
        case "log":
            job.log.info("reading %s", NAME)
        case "logger":
            logging.getLogger(NAME).warning("%s", NAME * 4_000)
        case "raise":
            raise ValueError(f"cannot read {NAME}")
        case "subject":
            job.claim(f"file:{NAME}", "size", 3)
        case "progress":
            job.progress(0.5, NAME * 1_000)
        case "child":
            job.submit("part", required_labels={"file": NAME})
    return how


@runner.capability("loop")
async def on_the_loop(how: str, job: JobContext) -> str:
    return says(how, job)


runner.capability("thread")(says)
in_processes.capability("process", executor="process")(says)


@pytest.mark.parametrize("executor", ["loop", "thread"])
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("log", None),
        ("logger", None),
        ("progress", None),
        ("raise", r"ValueError: cannot read caf\udce9.txt"),
        ("subject", r"Expected a subject that is valid Unicode, but found 'file:caf\udce9.txt'."),
        ("child", "Expected a child job like controlplane's JobRequest"),
    ],
)
def test_an_attempt_ends_whatever_it_says(executor: str, how: str, message: str | None) -> None:
    run = run_handler(runner, executor, how)
    if message is None:
        assert (run.outcome, run.error) == ("succeeded", None)
        assert all(line.message.startswith(("reading caf\\udce9", "caf\\udce9")) for line in run.logs)
        assert all(told.startswith("caf\\udce9.txt") for _, told in run.progress)
        assert len(run.logs) + len(run.progress) == 1
    else:
        assert run.error is not None
        assert run.error.message.startswith(message)


async def test_a_worker_process_ends_its_attempt_whatever_it_says() -> None:
    sink, processes = Kept(), WorkerProcesses("tests.unit.runner.test_not_unicode:in_processes")
    attempts = attempts_of(in_processes, sink, processes)
    told = []
    try:
        for how in ("log", "raise", "subject", "progress"):
            lease(attempts, "process", how)
            await asyncio.wait_for(attempts.idle(), 30)
            last = sink.events[-1]
            told.append(last.error.message if isinstance(last, AttemptFailed) else "succeeded")
    finally:
        processes.close()
    assert told == [
        "succeeded", r"ValueError: cannot read caf\udce9.txt",
        r"Expected a subject that is valid Unicode, but found 'file:caf\udce9.txt'.", "succeeded",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("subject", "predicate", "options"),
    [
        (NAME, "p", {}),
        ("s", NAME, {}),
        ("s", "p", {"unit": NAME}),
        ("s", "p", {"inputs": ["an assertion", NAME]}),
    ],
)
def test_every_text_of_a_claim_is_checked(subject: str, predicate: str, options: dict[str, object]) -> None:
    def receive(_: Report) -> None: ...

    facts = JobFacts(
        job_id="j", job_type="t", attempt_id="a", attempt_number=1, correlation_id="c", tenant="t", pool="p", priority=5
    )
    job = JobContext(facts, receive)
    with pytest.raises(ClaimInvalid, match="valid Unicode"):
        job.claim(subject, predicate, 1, **options)  # type: ignore[arg-type]
    assert job.claims == ()


def test_what_is_no_unicode_is_written_out() -> None:
    assert (valid_text(NAME), valid_text("café"), valid_text("😀")) == ("caf\\udce9.txt", "café", "😀")
    found = envelope("payload_invalid", NAME, field=NAME, expected=NAME, found=NAME)
    assert {found.message, found.field, found.expected, found.found} == {"caf\\udce9.txt"}
    with pytest.raises(ValueInvalid, match="valid Unicode"):
        typed_value(1, unit=NAME)


def test_the_runner_s_own_log_keeps_the_line() -> None:
    record = logging.LogRecord("controlplane.runner", logging.WARNING, "", 0, "cannot read %s", (NAME,), None)
    assert "cannot read caf\\\\udce9.txt" in JsonFormatter("runner").format(record)


async def test_what_cannot_be_written_for_any_reason_is_the_attempt_s_failure() -> None:
    sink = Kept(AttemptSucceeded)
    attempts = attempts_of(runner, sink)
    lease(attempts, "loop", "well")
    await asyncio.wait_for(attempts.idle(), 10)
    assert sink.names == ["AttemptStarted", "AttemptFailed"]
    assert sink.events[-1].error.message == "KeyError: 'no encoder'"
    assert (attempts.held, attempts.busy_slots) == ({}, 0)


async def test_a_lease_of_which_nothing_can_be_told_is_renewed_no_longer() -> None:
    attempts = attempts_of(runner, Kept(AttemptSucceeded, AttemptFailed))
    lease(attempts, "thread", "well")
    await asyncio.wait_for(attempts.idle(), 10)
    assert (attempts.held, attempts.busy_slots) == ({}, 0)
