"""Commands about jobs: submit them, look at them, command one or many."""

from typing import Annotated, Any
from urllib.parse import quote

import typer

from controlplane.cli.asking import AsOf, Gateway, Json, Reason, ask, payload_of, request, tell

PANEL = "Jobs"

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
    gateway: Gateway = None,
    as_json: Json = False,
) -> None:
    """Submit a job."""
    from controlplane.cli import show

    value = payload_of(payload, as_json)

    def work(client: Any) -> None:
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


def jobs(
    phase: Annotated[str | None, typer.Option(help="For example QUEUED, RUNNING, FAILED.")] = None,
    job_type: Annotated[str | None, typer.Option(help="Only this type.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 30,
    as_of: AsOf = None,
    gateway: Gateway = None,
    as_json: Json = False,
) -> None:
    """List jobs, newest first."""
    from itertools import islice

    from controlplane.cli import show

    filters = {"phase": phase, "job_type": job_type, "limit": limit, "as_of": as_of}
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
    reason: Reason = "",
    gateway: Gateway = None,
    as_json: Json = False,
) -> None:
    """Cancel, retry or move every job that is like this; the server does it, and this command waits for it."""
    import time

    from controlplane.cli import show

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


def add_to(app: typer.Typer) -> None:
    """Give the application these commands."""
    for command in (submit, jobs, job, cancel, retry, reprioritise, bulk):
        app.command(rich_help_panel=PANEL)(command)
