"""A slip in a log line fails no job: the handlers of the standard library raise nothing into the code that logs, and ours is one of them."""

import logging

import pytest

from controlplane.events.types import LogLine
from controlplane.runner import JobContext, Runner
from controlplane.runner.joblogs import HANDLER_LOG, JobLogHandler
from controlplane.runner.testing import run_handler


class Wordless(Exception):
    def __str__(self) -> str:
        raise LookupError("no words")

    __repr__ = __str__


@pytest.fixture
def log() -> logging.Logger:
    """A logger whose lines go to the job alone, beside the tree of others: pytest's own handlers do raise."""
    found = logging.Logger("a.library", logging.INFO)  # noqa: LOG001 -- beside the tree, on purpose
    found.addHandler(JobLogHandler())
    return found


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("%(x)s", ({"y": 1},), "'%(x)s' could not be formatted: KeyError: 'x'"),
        ("%d", ("one",), "'%d' could not be formatted: TypeError: %d format: a real number is required, not str"),
        ("%s %s", (1,), "'%s %s' could not be formatted: TypeError: not enough arguments for format string"),
        ("%s", (Wordless(),), "'%s' could not be formatted: LookupError: no words"),
    ],
)
def test_a_line_that_cannot_be_formatted_says_so(
    log: logging.Logger, text: str, arguments: tuple[object, ...], message: str
) -> None:
    runner = Runner("logs", slots=1)

    @runner.capability("logs")
    def logs(_: None, job: JobContext) -> str:
        log.info(text, *arguments)
        return "done"

    run = run_handler(runner, "logs")
    assert (run.outcome, run.result) == ("succeeded", "done")
    assert [line.message for line in run.logs] == [message]


def test_an_exception_without_words_is_named(log: logging.Logger) -> None:
    lines: list[LogLine] = []
    token = HANDLER_LOG.set(lines.append)
    try:
        raise Wordless
    except Wordless:
        log.exception("it failed")
    finally:
        HANDLER_LOG.reset(token)
    assert [line.message for line in lines] == ["it failed (Wordless: (its message could not be made: LookupError))"]


@pytest.mark.parametrize("text", ["well", Wordless()])
def test_what_cannot_be_taken_goes_to_standard_error(
    log: logging.Logger, capsys: pytest.CaptureFixture[str], text: object
) -> None:
    def take(_: LogLine) -> None:
        raise OSError("the runner is gone")

    token = HANDLER_LOG.set(take)
    try:
        log.warning(text)
    finally:
        HANDLER_LOG.reset(token)
    assert "--- Logging error ---" in capsys.readouterr().err
