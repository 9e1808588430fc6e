"""`controlplane events`: the records of the log, decoded: a page of them, one of them, or as they come."""

import time
from collections import deque
from collections.abc import Iterator
from itertools import chain, islice
from typing import Annotated, Any, Final

import typer
from rich.markup import escape

from controlplane.cli.asking import AsOf, Gateway, Json, ask, examples, request

LOOK_SECONDS: Final = 0.5
PAGE_RECORDS: Final = 200
PAGES_BACK: Final = 50
"""A look that finds more new records than so many pages says that some were left out."""
REMEMBERED: Final = 50_000
COLOURS: Final = (("Completed", "green"), ("Succeeded", "green"), ("Failed", "red"), ("Lost", "red"), ("Rejected", "red"), ("Refused", "red"), ("Truth", "yellow"), ("Routed", "cyan"), ("Started", "cyan"))  # fmt: skip

app = typer.Typer(help="The records of the log, decoded: a page, one of them, or as they come.", no_args_is_help=True)

Topic = Annotated[str | None, typer.Option(help="Only this topic; `truth` is controlplane.truth.")]
EventTypes = Annotated[
    list[str] | None, typer.Option("--type", "-t", help="Only this event, for example JobCompleted; repeatable.")
]
Correlation = Annotated[str | None, typer.Option(help="Only this chain: the id of its first submission.")]
Job = Annotated[str | None, typer.Option(help="Only records of this job.")]
Fields = Annotated[bool, typer.Option("--fields", help="Each record's fields below its line.")]


def filters_of(topic: str | None, types: list[str] | None, correlation: str | None) -> dict[str, Any]:
    """Return what the gateway filters by; more than one type is chosen here."""
    whole = topic if topic is None or "." in topic else f"controlplane.{topic}"
    only = types[0] if types and len(types) == 1 else None
    return {"topic": whole, "event_type": only, "correlation_id": correlation}


def wanted(record: Any, types: list[str] | None, job: str | None) -> bool:
    """Say whether a record is one of those that were asked for."""
    return (not types or record.event_type in types) and (
        job is None or job in {record.key, record.event.get("job_id")}
    )


def pages(client: Any, filters: dict[str, Any], size: int) -> Iterator[list[Any]]:
    """Yield pages of records, newest first."""
    from controlplane.api.models import EventsAnswer

    cursor = None
    while True:
        answer = EventsAnswer.model_validate(
            client.request("GET", "/v1/events", query={**filters, "limit": size, "cursor": cursor})
        )
        yield answer.events
        cursor = answer.next_cursor
        if cursor is None:
            return


def of_job(client: Any, job: str, filters: dict[str, Any]) -> Iterator[Any]:
    """Yield the records of a job, newest first: the gateway finds them, and those of all others are not looked through."""
    topic, correlation = filters["topic"], filters["correlation_id"]
    for record in reversed(client.job_events(job, as_of=filters["as_of"])):
        if topic in {None, record.position.rsplit("/", 2)[0]} and correlation in {None, record.correlation_id}:
            yield record


class Follower:
    """Finds what is new on the log, look by look; a record is told once, whatever order partitions become visible in."""

    def __init__(self, client: Any, filters: dict[str, Any]) -> None:
        """Know nothing yet."""
        self._client = client
        self._filters = filters
        self._seen: set[str] = set()
        self._order: deque[str] = deque()

    def begin(self, last: int) -> list[Any]:
        """Return the newest records, oldest first; what was there before is never told."""
        found = next(pages(self._client, self._filters, PAGE_RECORDS))
        self._note(found)
        return found[:last][::-1]

    def look(self) -> list[Any]:
        """Return the records that came since the last look, oldest first."""
        fresh: list[Any] = []
        for number, page in enumerate(pages(self._client, self._filters, PAGE_RECORDS)):
            new = [record for record in page if record.position not in self._seen]
            fresh += new
            if len(new) < len(page) or number + 1 >= PAGES_BACK:
                break
        self._note(fresh)
        return fresh[::-1]

    def _note(self, records: list[Any]) -> None:
        for record in records:
            self._seen.add(record.position)
            self._order.append(record.position)
        while len(self._order) > REMEMBERED:
            self._seen.discard(self._order.popleft())


def show_record(record: Any, *, as_json: bool, fields: bool) -> None:
    """Print one record: a line for people, with its fields where they want them, or one JSON document."""
    from controlplane.cli import show
    from controlplane.cli.gist import gist

    if as_json:
        print(record.model_dump_json(), flush=True)
        return
    colour = next((colour for part, colour in COLOURS if part in record.event_type), "white")
    at = record.log_time.astimezone().strftime("%H:%M:%S.%f")[:-3]
    place = record.position.removeprefix("controlplane.")
    show.console.print(
        f"[dim]{at}[/] {escape(place):<20} [{colour}]{record.event_type:<18}[/] [bold]{escape(record.key)}[/] {escape(gist(record))}",
        soft_wrap=True,
    )
    if fields:
        show.console.print_json(data=record.event, indent=2)


@app.command(epilog=examples("controlplane events tail", "controlplane events tail --topic jobs --type JobFailed --type JobCompleted", "controlplane events tail --json | jq .event.job_id", "controlplane events tail --last 50 --count 50"))  # fmt: skip
def tail(
    topic: Topic = None,
    types: EventTypes = None,
    correlation: Correlation = None,
    job: Job = None,
    last: Annotated[int, typer.Option("--last", "-n", min=0, max=PAGE_RECORDS, help="Begin with so many that are there.")] = 10,
    count: Annotated[int | None, typer.Option(min=1, help="End after so many.")] = None,
    fields: Fields = False,
    gateway: Gateway = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document per record.")] = False,
) -> None:  # fmt: skip
    """Follow the log: each record as it comes, decoded, until Ctrl-C."""

    def work(client: Any) -> None:
        follower = Follower(client, filters_of(topic, types, correlation))
        told = 0
        records = follower.begin(last)
        while True:
            for record in records:
                if not wanted(record, types, job):
                    continue
                show_record(record, as_json=as_json, fields=fields)
                told += 1
                if count is not None and told >= count:
                    return
            time.sleep(LOOK_SECONDS)
            records = follower.look()

    try:
        ask(gateway, as_json, work)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


@app.command("list", epilog=examples("controlplane events list --topic truth --limit 100", "controlplane events list --type BreakerChanged --fields"))  # fmt: skip
def list_(
    topic: Topic = None,
    types: EventTypes = None,
    correlation: Correlation = None,
    job: Job = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 50,
    as_of: AsOf = None,
    fields: Fields = False,
    gateway: Gateway = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document per record.")] = False,
) -> None:
    """List records, newest first; those of a job with the truths that it gave."""

    def work(client: Any) -> None:
        filters = {**filters_of(topic, types, correlation), "as_of": as_of}
        chosen_here = types is not None and len(types) > 1
        found = (
            chain.from_iterable(pages(client, filters, PAGE_RECORDS if chosen_here else min(limit, PAGE_RECORDS)))
            if job is None
            else of_job(client, job, filters)
        )
        for record in islice((one for one in found if wanted(one, types, None)), limit):
            show_record(record, as_json=as_json, fields=fields)

    ask(gateway, as_json, work)


@app.command(epilog=examples("controlplane events show jobs/0/17", "controlplane events show controlplane.truth/2/9 --json"))  # fmt: skip
def show(
    position: Annotated[str, typer.Argument(help="topic/partition/offset")], gateway: Gateway = None, as_json: Json = False
) -> None:  # fmt: skip
    """Show one record with all its fields."""
    from controlplane.api.models import EventView
    from controlplane.cli.asking import fail

    parts = position.rsplit("/", 2)
    if len(parts) != 3 or not (parts[1].isdecimal() and parts[2].isdecimal()):
        fail(f"Expected topic/partition/offset, for example jobs/0/17, but found {position}.", as_json=as_json, code=2)
    topic = parts[0] if "." in parts[0] else f"controlplane.{parts[0]}"
    answer = request(gateway, as_json, "GET", f"/v1/events/{topic}/{parts[1]}/{parts[2]}")
    show_record(EventView.model_validate(answer["event"]), as_json=as_json, fields=True)
