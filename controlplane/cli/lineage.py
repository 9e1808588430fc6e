"""`controlplane why`, `lineage` and `impact`: what led to a record, where truth came from, and what a source's word is worth."""

from typing import Annotated, Any

import typer

from controlplane.cli.asking import AsOf, Gateway, Json, ask
from controlplane.cli.truth import PANEL

Direction = Annotated[str, typer.Option(help="up: what it came from; down: what rests on it; both.")]


def why(
    reference: Annotated[
        str, typer.Argument(help="A job id, an event id, an assertion id, or topic/partition/offset.")
    ],
    as_of: AsOf = None,
    gateway: Gateway = None,
    as_json: Json = False,
) -> None:
    """Show what led to a record, up to the submission, and what followed from it."""
    from controlplane.cli import show
    from controlplane.client import ControlPlaneError

    def work(client: Any) -> Any:
        try:
            return client.why(event=reference, as_of=as_of)
        except ControlPlaneError as error:
            if error.code != "not_found":
                raise
            return client.why(job=reference, as_of=as_of)

    show.output(ask(gateway, as_json, work), as_json, show.causation)


def lineage(
    reference: Annotated[
        str, typer.Argument(help="A job, an assertion, a record (topic/partition/offset), or a subject.")
    ],
    predicate: Annotated[str | None, typer.Argument(help="With a subject: the property whose truth is meant.")] = None,
    direction: Direction = "both",
    depth: Annotated[int, typer.Option(min=1, max=64)] = 64,
    as_of: AsOf = None,
    form: Annotated[str, typer.Option("--format", help="text, prov (PROV-JSON) or openlineage (run events).")] = "text",
    gateway: Gateway = None,
    as_json: Json = False,
) -> None:
    """Show which assertions, jobs, attempts, runners and records something came from, and what rests on it."""
    from controlplane.api.lineage import LineageAnswer
    from controlplane.cli import show
    from controlplane.cli.trees import lineage as shown

    query: dict[str, Any] = {"direction": direction, "depth": depth, "as_of": as_of}
    if form != "text":
        print(
            show_json(
                ask(gateway, as_json, lambda client: _found(client, reference, predicate, {**query, "format": form}))
            )
        )
        return
    answer = ask(gateway, as_json, lambda client: _found(client, reference, predicate, {**query, "limit": 1000}))
    show.output(LineageAnswer.model_validate(answer), as_json, shown)


def show_json(document: Any) -> str:
    """Return a document as readable JSON."""
    import json

    return json.dumps(document, indent=1)


def _found(client: Any, reference: str, predicate: str | None, query: dict[str, Any]) -> Any:
    """Return the lineage of what a reference names: the first of the kinds of which the log knows one."""
    from controlplane.client import ControlPlaneError

    if predicate is not None:
        return client.request("GET", "/v1/lineage", query={**query, "subject": reference, "predicate": predicate})
    refused: ControlPlaneError | None = None
    for kind in ("job", "assertion", "event", "source"):
        try:
            return client.request("GET", "/v1/lineage", query={**query, kind: reference})
        except ControlPlaneError as error:
            if error.code != "not_found":
                raise
            refused = refused or error
    assert refused is not None
    raise refused


def impact(
    source: Annotated[str, typer.Argument(help="The source that is doubted.")],
    as_of: AsOf = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 100,
    gateway: Gateway = None,
    as_json: Json = False,
) -> None:
    """Show what would become of the truth without a source and what was derived from it, and which jobs to run again."""
    from controlplane.api.lineage import ImpactAnswer
    from controlplane.cli import show
    from controlplane.cli.trees import impact as shown

    query = {"source": source, "as_of": as_of, "limit": limit}
    answer = ask(gateway, as_json, lambda client: client.request("GET", "/v1/impact", query=query))
    show.output(ImpactAnswer.model_validate(answer), as_json, shown)


def add_to(app: typer.Typer) -> None:
    """Give the command its commands about provenance."""
    for command in (why, lineage, impact):
        app.command(rich_help_panel=PANEL)(command)
