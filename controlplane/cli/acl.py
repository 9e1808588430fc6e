"""`controlplane acl`: who may do what, by the catalog, and the brokers' access rules made so."""

import asyncio
from typing import Annotated, Any

import typer

from controlplane.cli.asking import Json, examples, fail

app = typer.Typer(
    help="Who may read and write which topic, by the catalog; and the brokers' access rules made so.", no_args_is_help=True,
    epilog=examples("controlplane acl show", "controlplane acl show --store", "controlplane acl apply --dry-run", "controlplane acl apply"),
)  # fmt: skip

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would change; exits with 1 if anything would.")]
KeepOthers = Annotated[
    bool, typer.Option("--keep-others", help="Leave alone what other principals may do with our topics.")
]


@app.command("show")
def acl_show(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the page of the documentation.")] = False,
    store: Annotated[bool, typer.Option("--store", help="Print the users of Redis, for `ACL SETUSER` or an ACL file; put the passwords' SHA-256 in.")] = False,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Show what each service may do; needs nothing that runs."""
    from rich.table import Table

    from controlplane.cli import show
    from controlplane.events.catalog import Service
    from controlplane.security import permissions
    from controlplane.settings import settings

    if markdown:
        print(permissions.page(), end="")
        return
    if store:
        for user in permissions.store_users(settings().redis_namespace):
            print(user.rule("<SHA-256 of the password>"))
        return

    def render(found: dict[str, Any]) -> None:
        table = Table(f"{permissions.PREFIX}", *(one.value for one in Service), box=None, header_style="dim")
        for row in found["topics"]:
            rights = (row.rights[one.value].replace("read, write", "both") for one in Service)
            table.add_row(row.topic.removeprefix(permissions.PREFIX), *rights)
        show.console.print(table)
        for line in permissions.beside_topics():
            show.console.print(f"  {line}", highlight=False)

    rules = [str(one) for one in sorted(permissions.grants())]
    show.output({"topics": permissions.matrix(), "rules": rules}, as_json, render)


@app.command("apply")
def acl_apply(dry_run: DryRun = False, keep_others: KeepOthers = False, as_json: Json = False) -> None:
    """Make the brokers' rules those of the catalog, and the topics, which no service may make; doing it again changes nothing.

    Rules about names that begin with `controlplane.`, or for one of our services, are removed when the catalog has none such. Needs
    the certificate of an administrator (`CONTROLPLANE_TLS_*`, or that of the stack that runs in the data folder).
    """
    from controlplane.cli import show
    from controlplane.log.connection import LogUnavailable, LogUnconfigured
    from controlplane.log.topics import PartitionsDiffer

    try:
        changes = asyncio.run(_applied(dry_run, keep_others))
    except (LogUnconfigured, PartitionsDiffer) as error:
        fail(str(error), as_json=as_json, code=2)
    except LogUnavailable as error:
        fail(str(error), as_json=as_json)
    differs = bool(changes.missing or changes.unwanted)

    def render(found: dict[str, Any]) -> None:
        added, removed = ("would be added", "would be removed") if dry_run else ("added", "removed")
        for word, rules in ((added, found["added"]), (removed, found["removed"])):
            for rule in rules:
                print(f"{word}: {rule}")
        print(
            f"{found['kept']} rules are as the catalog says."
            if not differs
            else f"{found['kept']} rules were so before."
        )

    told = {
        "added": [str(one) for one in changes.missing], "removed": [str(one) for one in changes.unwanted], "kept": changes.kept,
        "dry_run": dry_run,
    }  # fmt: skip
    show.output(told, as_json, render)
    raise typer.Exit(1 if dry_run and differs else 0)


async def _applied(dry_run: bool, keep_others: bool) -> Any:
    from controlplane.cli.finding import found_settings
    from controlplane.log.access import bring_about, differences
    from controlplane.log.connection import LogConnection
    from controlplane.log.topics import ensure_topics
    from controlplane.security.permissions import grants, is_for_ours, is_ours

    chosen = found_settings()
    connection = LogConnection.from_settings(chosen)
    ours = is_for_ours if keep_others else is_ours
    if dry_run:
        return await differences(connection, grants(), ours)
    await ensure_topics(connection, chosen)
    return await bring_about(connection, grants(), ours)
