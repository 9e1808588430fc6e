"""The audit as a user meets it: verified on from a snapshot, replayed into a file, told as a trail, compared."""

import asyncio
import json
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import duckdb
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from controlplane.cli.corpus import questions
from controlplane.cli.stack import SystemStack
from controlplane.client import Client
from controlplane.demo.corpus import PARSER, SCANNER, packages
from controlplane.demo.corpus_writer import write_corpus
from controlplane.events.catalog import JOB_LOGS, Service
from controlplane.events.identity import Instant
from controlplane.events.types import JobLogged, LogLine
from controlplane.log.connection import LogConnection
from controlplane.log.producer import LogProducer
from controlplane.settings import Settings
from controlplane.truthcore_projector.worlds import ends_at
from tests.acceptance.test_stack import command, until
from tests.acceptance.test_truth import says, shown
from tests.unit.truthcore_projector.stories import header

LINES = 20
NASTY = "<script>alert(1)</script>&\"'"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SystemStack]:
    with (
        SystemStack(Settings(), tmp_path_factory.mktemp("stack"), free_ports=True) as running,
        running.client() as client,
    ):
        running.add_runner("runner", "tests.acceptance.handlers:runner")
        until(lambda: client.runners().runners)
        yield running


@pytest.fixture
def client(stack: SystemStack) -> Iterator[Client]:
    with stack.client() as one:
        yield one


@pytest.fixture(scope="module")
def told(stack: SystemStack) -> str:
    """A job that ran, and a truth that was contradicted; returns the position before the contradiction."""
    with stack.client() as client:
        client.submit("test.nap", {"seconds": 0.01, "note": NASTY}, job_id="nap-1").wait(60)
        client.declare_predicate("width", cardinality="SINGLE")
        before = says(client, f"image:{NASTY}", "width", 640, "camera")
        says(client, f"image:{NASTY}", "width", 800, "ruler", 0.95)
    return before


class Page(HTMLParser):
    """Reads a page as a browser would, and remembers what it would fetch or run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.fetched: list[str] = []
        self.words = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attributes:
            if name in ("src", "href", "xlink:href", "srcset", "data", "action") and not str(value).startswith("#"):
                self.fetched.append(f"{tag} {name}={value}")
            if name.startswith("on"):
                self.fetched.append(f"{tag} {name}")

    def handle_data(self, data: str) -> None:
        self.words += data


def read(file: Path) -> Page:
    page = Page(file.read_text())
    assert page.fetched == []
    assert "script" not in page.tags
    return page


def test_verify_goes_on_from_a_snapshot_that_is_what_it_says(
    stack: SystemStack, told: str, client: Client, tmp_path: Path
) -> None:
    first, second = tmp_path / "first.duckdb", tmp_path / "second.duckdb"
    code, verdict = command(stack, "audit", "verify", "--keep", str(first))
    assert (code, verdict["agrees"], verdict["findings"], verdict["snapshot_records"]) == (0, True, [], 0)
    says(client, "after", "the", "snapshot", "x")
    code, on = command(
        stack,
        "audit",
        "verify",
        "--snapshot",
        str(first),
        "--fingerprint",
        verdict["fingerprint"],
        "--keep",
        str(second),
    )
    assert (code, on["agrees"], on["snapshot_records"]) == (0, True, verdict["records"])
    assert 0 < on["records"] < verdict["records"]
    code, refused = command(stack, "audit", "verify", "--keep", str(first))
    assert (code, "Expected no file at" in refused["error"]["message"]) == (2, True)
    with duckdb.connect(str(first)) as database:
        database.execute("UPDATE submissions SET priority = 9")
    code, refused = command(stack, "audit", "verify", "--snapshot", str(first))
    assert (code, "differs from it in: submissions" in refused["error"]["message"]) == (1, True)
    assert "fingerprint" in shown(stack, "audit", "verify", "--snapshot", str(second))


def test_the_world_as_of_then_is_a_file_to_query_and_to_compare(stack: SystemStack, told: str, tmp_path: Path) -> None:
    files = {name: str(tmp_path / f"{name}.duckdb") for name in ("then", "now")}
    code, world = command(stack, "audit", "replay", "--until", told, "--out", files["then"])
    assert (code, world["truths"]) == (0, world["tables"]["assertions"])
    with duckdb.connect(files["then"], read_only=True) as database:
        query = "SELECT value, conflict FROM truths WHERE predicate = 'width'"
        assert database.execute(query).fetchall() == [("640", False)]
        assert database.execute("SELECT phase FROM jobs WHERE job_id = 'nap-1'").fetchall() == [("COMPLETED",)]
    assert "truths" in shown(stack, "audit", "replay", "--out", files["now"])
    code, found = command(stack, "audit", "diff", files["then"], files["now"])
    changed = [(one["change"], one["after"]["value"]) for one in found["truths"] if one["predicate"] == "width"]
    assert (code, changed) == (1, [("changed", 800)])
    code, found = command(stack, "audit", "diff", told)
    assert code == 0
    assert [(one["change"], one["before"]["value"], one["after"]["value"]) for one in found["truths"] if one["predicate"] == "width"] == [
        ("changed", 640, 800)
    ]  # fmt: skip
    assert "640 (90.0%) -> 800" in shown(stack, "audit", "diff", told)
    for wrong, words in (
        ("controlplane.truth/0/99999999", "Expected a record of the log"),
        ("yesterday", "Expected a time"),
    ):
        code, refused = command(stack, "audit", "replay", "--until", wrong, "--out", str(tmp_path / "wrong.duckdb"))
        assert (code, words in refused["error"]["message"]) == (1, True)
    code, refused = command(stack, "audit", "diff", files["then"], "yesterday")
    assert (code, "Expected two projection files" in refused["error"]["message"]) == (2, True)


def test_the_trail_of_a_job_is_a_page_that_needs_nothing_else(stack: SystemStack, told: str, tmp_path: Path) -> None:
    file = tmp_path / "job.html"
    assert "records and" in shown(stack, "audit", "trail", "nap-1", "--out", str(file))
    page = read(file)
    wanted = (
        "nap-1",
        "COMPLETED",
        "JobSubmitted",
        "AttemptSucceeded",
        "Causation",
        "Lineage",
        "controlplane.jobs/",
        "outcome",
    )
    assert [word for word in wanted if word not in page.words] == []
    assert page.tags.count("svg") == 3
    code, found = command(stack, "audit", "trail", "nap-1")
    assert (code, found["kind"], found["job"]["phase"]) == (0, "job", "COMPLETED")
    assert {one["event_type"] for one in found["events"]} >= {
        "JobSubmitted",
        "JobRouted",
        "JobCompleted",
        "TruthAsserted",
    }


def test_the_trail_of_a_subject_tells_its_truths_over_time_and_escapes_what_strangers_wrote(
    stack: SystemStack, told: str, tmp_path: Path
) -> None:
    file = tmp_path / "subject.html"
    shown(stack, "audit", "trail", f"image:{NASTY}", "--out", str(file))
    page = read(file)
    assert [
        word for word in (f"image:{NASTY}", "contradicted", "camera", "ruler", "still") if word not in page.words
    ] == []
    code, then = command(stack, "audit", "trail", f"image:{NASTY}", "--as-of", told)
    values: list[Any] = [one["value"] for one in then["truths"]]
    assert (code, values, len(then["events"])) == (0, [640], 1)
    code, refused = command(stack, "audit", "trail", "nobody")
    assert (code, refused["error"]["code"]) == (1, "not_found")
    assert json.dumps(refused)


def test_reliability_is_learned_and_counts_once_it_is_declared(stack: SystemStack, client: Client) -> None:
    last = client.declare_predicate("length", cardinality="SINGLE").position
    for number in range(5):
        for source, value in (("tape", number), ("laser", number), ("guess", -1 - number)):
            last = client.assert_truth(f"rod:{number}", "length", value, 0.9, source=source).position
    client.truths("rod:*", min_position=last)
    code, found = command(stack, "truth", "learn", "--predicate", "length")
    assert (code, found["truths"], found["published"]) == (0, 5, [])
    code, found = command(
        stack, "truth", "learn", "--predicate", "length", "--as-of", found["as_of"], "--publish", "--min-votes", "5"
    )
    assert (code, len(found["published"])) == (0, 3)
    (truth,) = client.truths("rod:1", "length", min_position=found["published"])
    weights = {vote.source: vote.reliability for candidate in truth.candidates for vote in candidate.votes}
    assert weights == {one["source"]: one["reliability"] for one in found["sources"]}
    assert weights["tape"] == weights["laser"] > 0.9 > 0.2 + weights["guess"]
    assert "Nothing was declared" in shown(stack, "truth", "learn", "--predicate", "length", "--method", "truthfinder")


def test_a_corpus_answers_the_documented_questions(stack: SystemStack, client: Client) -> None:
    chosen = packages(["typer"])
    written = asyncio.run(write_corpus(stack.connection(), chosen))
    again = asyncio.run(write_corpus(stack.connection(), chosen))
    assert (written.packages, written.truths) == (1, again.truths)
    assert written.truths > 1_000
    client.sql("SELECT 1", min_position=again.positions, wait_seconds=30)
    # Written twice it is the same assertions: nothing more is known.
    (truth,) = client.truths("module:typer.main", "lines")
    assert (truth.conflict, len(truth.candidates[0].votes)) == (False, 2)
    found = {name: ask()[0] for name, ask in questions(client).items()}
    assert [name for name, count in found.items() if not count] == ["Who imports json?"]
    importers = client.truths("module:typer*", "imports", value="module:inspect")
    assert {one.subject for one in importers} >= {"module:typer.main", "module:typer.core"}
    contradicted = client.truths("module:typer*", "functions", conflict=True)
    assert {vote.source for one in contradicted for candidate in one.candidates for vote in candidate.votes} == {
        PARSER,
        SCANNER,
    }


async def lines_written(connection: LogConnection) -> None:
    producer = LogProducer(connection, service=Service.RUNNER)
    await producer.start()
    try:
        for number in range(LINES):
            lines = (LogLine(at=Instant(0), level="INFO", logger="test", message=f"line {number}"),)
            made = header("JobLogged", f"nap-1-{number}")
            await producer.publish(JobLogged(header=made, job_id="nap-1", attempt_id="a", lines=lines))
    finally:
        await producer.stop()


async def records_deleted(connection: LogConnection, topic: str) -> None:
    """Have the broker forget all that a topic holds now, as its retention would."""
    ends = {place: end for place, end in (await ends_at(connection, None)).items() if place[0] == topic and end}
    admin = AIOKafkaAdminClient(**connection.client_arguments())
    await admin.start()
    try:
        await admin.delete_records(
            {TopicPartition(*place): RecordsToDelete(before_offset=end) for place, end in ends.items()}
        )
    finally:
        await admin.close()


@pytest.mark.timeout(400)
def test_archived_detail_stays_and_stands_in_for_what_the_log_has_lost(
    stack: SystemStack, told: str, client: Client
) -> None:
    """The last test here: afterwards the log has no lines any more."""
    asyncio.run(lines_written(stack.connection()))
    until(lambda: len(list(client.logs("nap-1"))) >= LINES)
    lines = list(client.logs("nap-1"))
    code, said = command(stack, "archive", "--before", "2100-01-01")
    assert (code, [one["rows"] >= 2 * LINES for one in said["archived"]]) == (0, [True])
    assert list(client.logs("nap-1")) == lines
    # Folded from the log alone, without any archive, it is the same.
    code, verdict = command(stack, "audit", "verify")
    assert (code, verdict["agrees"], verdict["archived_records"]) == (0, True, 0)
    asyncio.run(records_deleted(stack.connection(), JOB_LOGS.name))
    code, refused = command(stack, "audit", "verify")
    assert (code, f"no longer: {JOB_LOGS.name}/" in refused["error"]["message"]) == (1, True)
    folder = said["archived"][0]["folder"]
    code, verdict = command(stack, "audit", "verify", "--archive", folder)
    assert (code, verdict["agrees"], verdict["archived_records"]) == (0, True, LINES)
    code, rebuilt = command(stack, "rebuild")
    assert (code, rebuilt["switched"]) == (0, True)
    until(lambda: len(list(client.logs("nap-1"))) >= LINES)
    assert list(client.logs("nap-1")) == lines
