"""Commands about jobs: submit them, look at them, command one or many."""

import sys
from collections.abc import Callable
from typing import Annotated, Any, Final
from urllib.parse import quote

import typer

from controlplane.cli.asking import AsOf, Gateway, Json, Reason, ask, examples, fail, payload_of, request, tell

PANEL = "Jobs"

_WAITING: Final = frozenset({"SUBMITTED", "QUEUED", "DELAYED", "RETRYING"})
REACHED: Final = {
    "cancel": _WAITING | {"ROUTED", "RUNNING"},
    "retry": frozenset({"FAILED"}),
    "reprioritise": _WAITING,
}
"""The phases in which a command can do something for a job."""

JobId = Annotated[str, typer.Argument(help="The job.")]


def submit(
    job_type: Annotated[str, typer.Argument(help="What is to be done, for example image.thumbnail.")],
    payload: Annotated[str, typer.Option(help="JSON, or @file with JSON, or @- for standard input.")] = "null",
    job_id: Annotated[str | None, typer.Option(help="Your id: the same again is the same job.")] = None,
    priority: Annotated[int, typer.Option(min=0, max=9, help="9 is critical.")] = 5,
    pool: Annotated[str, typer.Option(help="Of runners.")] = "default",
    tenant: Annotated[str | None, typer.Option(help="On whose behalf; by default your own tenant.")] = None,
    secret: Annotated[
        str | None,
        typer.Option(help="Encrypt payload and result with the key of this name; `secrets forget` destroys it."),
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="Concurrency key: one job under it at a time, unless a limit is declared.")
    ] = None,
    wait: Annotated[bool, typer.Option(help="Wait for the conclusion and print the result.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait.")] = 60.0,
    anyway: Annotated[bool, typer.Option("--anyway", help="Also when no runner offers the type yet.")] = False,
    gateway: Gateway = None,
    as_json: Json = False,
) -> None:
    """Submit a job."""
    from controlplane.cli import show

    value = payload_of(payload, as_json)

    def work(client: Any) -> None:
        if not anyway:
            offered_or_fail(client, job_type, as_json)
        whose = {"tenant": tenant} if tenant else {}
        handle = client.submit(
            job_type, value, job_id=job_id, priority=priority, pool=pool, concurrency_key=key, secret=secret, **whose
        )
        if wait:
            job = handle.wait(timeout)
            show.output(job, as_json, show.job)
            raise typer.Exit(0 if job.phase == "COMPLETED" else 1)
        show.output({"job_id": handle.job_id, "position": handle.position}, as_json, show.submitted)

    ask(gateway, as_json, work)


def offered_or_fail(client: Any, job_type: str, as_json: bool) -> None:
    """End the command when no runner offers a type but one offers a similar name: most likely that was meant.

    A type that resembles nothing is submitted: its runner may come later, and JobForge judges.
    """
    from difflib import get_close_matches

    offered = {
        name.partition("@")[0] for one in client.runners().runners if one.state != "LEFT" for name in one.capabilities
    }
    if job_type in offered:
        return
    if similar := get_close_matches(job_type, sorted(offered), n=3, cutoff=0.6):
        names = " or ".join(similar)
        fail(f"Expected a type that a runner offers, but found {job_type}. Did you mean {names}? (--anyway submits it all the same.)", as_json=as_json, code=2)  # fmt: skip
    if not as_json:
        known = f"they offer {', '.join(sorted(offered)[:10])}" if offered else "no runner is there"
        print(f"controlplane: nobody offers {job_type} at the moment; {known}.", file=sys.stderr)


def jobs(
    phase: Annotated[str | None, typer.Option(help="For example QUEUED, RUNNING, FAILED.")] = None,
    job_type: Annotated[str | None, typer.Option(help="Only this type.")] = None,
    search: Annotated[str | None, typer.Option(help="A part of the id, the type, the chain or the error.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant.")] = None,
    pool: Annotated[str | None, typer.Option(help="Only this pool.")] = None,
    correlation: Annotated[str | None, typer.Option(help="Only this chain: the id of its first submission.")] = None,
    parent: Annotated[str | None, typer.Option(help="Only children of this job.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 30,
    as_of: AsOf = None,
    gateway: Gateway = None,
    as_json: Json = False,
) -> None:
    """List jobs, newest first."""
    from itertools import islice

    from controlplane.cli import show

    filters = {
        "phase": phase, "job_type": job_type, "search": search, "tenant": tenant, "pool": pool, "correlation_id": correlation,
        "parent_job_id": parent, "limit": limit, "as_of": as_of,
    }  # fmt: skip
    found = ask(gateway, as_json, lambda client: list(islice(client.jobs(**filters), limit)))
    show.output(found, as_json, show.jobs)


def job(job_id: str, as_of: AsOf = None, gateway: Gateway = None, as_json: Json = False) -> None:
    """Show one job: its timeline, its attempts, its result, and why it waits."""
    from controlplane.cli import show

    show.output(ask(gateway, as_json, lambda client: client.job(job_id, as_of=as_of)), as_json, show.job)


def cancel(
    job_id: JobId,
    reason: Reason = "",
    kill: Annotated[bool, typer.Option(help="Conclude at once, even if the runner does not answer.")] = False,
    tree: Annotated[bool, typer.Option(help="Its child jobs as well.")] = False,
    gateway: Gateway = None,
    as_json: Json = False,
) -> None:
    """Cancel a job; a running one is asked to stop."""
    body = {"reason": reason, "kill": kill, "tree": tree}
    tell(
        request(gateway, as_json, "POST", f"/v1/jobs/{quote(job_id)}/cancel", body),
        as_json,
        f"Asked to cancel {job_id}",
    )


def retry(job_id: JobId, reason: Reason = "", gateway: Gateway = None, as_json: Json = False) -> None:
    """Run a job that waits for its next attempt now, or do the work of a failed one again as a new job."""
    answer = request(gateway, as_json, "POST", f"/v1/jobs/{quote(job_id)}/retry", {"reason": reason})
    tell(answer, as_json, f"Asked to retry {job_id}")


def reprioritise(
    job_id: JobId,
    priority: Annotated[int, typer.Argument(min=0, max=9, help="9 is critical.")],
    reason: Reason = "",
    gateway: Gateway = None,
    as_json: Json = False,
) -> None:
    """Move a waiting job in its queue."""
    body = {"priority": priority, "reason": reason}
    answer = request(gateway, as_json, "POST", f"/v1/jobs/{quote(job_id)}/reprioritise", body)
    tell(answer, as_json, f"Asked to move {job_id} to priority {priority}")


def bulk(
    action: Annotated[str, typer.Argument(help="cancel, retry or reprioritise")],
    job_type: Annotated[str | None, typer.Option(help="Only this type.")] = None,
    pool: Annotated[str | None, typer.Option(help="Only this pool.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant.")] = None,
    phase: Annotated[str | None, typer.Option(help="Only jobs in this phase, for example QUEUED.")] = None,
    key: Annotated[str | None, typer.Option(help="Only jobs under this concurrency or rate key.")] = None,
    schedule: Annotated[str | None, typer.Option(help="Only jobs of this schedule.")] = None,
    priority: Annotated[int | None, typer.Option(min=0, max=9, help="To reprioritise with.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count the jobs that it would reach.")] = False,
    reason: Reason = "",
    gateway: Gateway = None,
    as_json: Json = False,
) -> None:
    """Cancel, retry or move every job that is like this; the server does it, and this command waits for it."""
    import time

    from controlplane.cli import show

    if action not in REACHED:
        fail(f"Expected one of {', '.join(REACHED)}, but found {action}.", as_json=as_json, code=2)
    if dry_run:
        if key or schedule:
            fail(
                "Expected --dry-run without --key and --schedule: jobs are not counted by those.",
                as_json=as_json,
                code=2,
            )
        filters = {"job_type": job_type, "pool": pool, "tenant": tenant, "phase": phase}
        counts = ask(gateway, as_json, lambda client: client.request("GET", "/v1/job-counts", query=filters))
        reached = {name: jobs for name, jobs in counts["phases"].items() if name in REACHED[action]}
        say = f"{sum(reached.values())} jobs would be reached; nothing was done."
        show.output({"jobs": sum(reached.values()), "phases": reached}, as_json, lambda _: show.console.print(say))
        return
    wish = {
        "action": action, "job_type": job_type, "pool": pool, "tenant": tenant, "phase": phase, "key": key,
        "schedule_id": schedule, "priority": priority, "reason": reason,
    }  # fmt: skip
    answer = request(
        gateway, as_json, "POST", "/v1/bulk", {name: value for name, value in wish.items() if value is not None}
    )
    while not (found := request(gateway, as_json, "GET", f"/v1/bulk/{answer['correlation_id']}"))["done"]:
        time.sleep(0.2)
    text = f"{found['matched']} jobs found, {found['refused']} of them refused."
    show.output(found, as_json, lambda _: show.console.print(text))


EXAMPLES: Final[dict[Callable[..., None], tuple[str, ...]]] = {
    submit: (
        """controlplane submit image.thumbnail --payload '{"image": "cat.png"}' --wait""",
        "controlplane submit report.render --payload @report.json --priority 8 --job-id report-2026-11",
    ),
    jobs: ("controlplane jobs --phase FAILED", "controlplane jobs --search timeout --json | jq .[].job_id"),
    job: ("controlplane job JOB", "controlplane job JOB --json | jq .result"),
    cancel: ("controlplane cancel JOB --reason 'wrong input'", "controlplane cancel JOB --kill"),
    retry: ("controlplane retry JOB",),
    reprioritise: ("controlplane reprioritise JOB 9",),
    bulk: ("controlplane bulk cancel --tenant acme --dry-run", "controlplane bulk retry --job-type feed.import"),
}


def add_to(app: typer.Typer) -> None:
    """Give the application these commands."""
    for command, lines in EXAMPLES.items():
        app.command(rich_help_panel=PANEL, epilog=examples(*lines))(command)
