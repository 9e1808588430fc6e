"""`controlplane bench`: measure this machine."""

from pathlib import Path
from typing import Annotated

import typer

from controlplane.cli.asking import Json

app = typer.Typer(help="Measure this machine, and hold the result to the log.", no_args_is_help=True)


@app.command("e2e")
def bench_e2e(
    jobs: Annotated[int, typer.Option(min=1)] = 20_000,
    runners: Annotated[int, typer.Option(min=1)] = 2,
    agents: Annotated[int, typer.Option(min=1)] = 2,
    as_json: Json = False,
) -> None:
    """Run no-op jobs end to end; fails unless every job concluded exactly once and every step is on the log."""
    from controlplane.cli.bench import run_e2e

    raise typer.Exit(run_e2e(jobs, runners, agents, as_json=as_json))


@app.command("secure")
def bench_secure(
    jobs: Annotated[int, typer.Option(min=1, help="Jobs of each of the four runs.")] = 10_000,
    runners: Annotated[int, typer.Option(min=1)] = 2,
    agents: Annotated[int, typer.Option(min=1)] = 2,
    as_json: Json = False,
) -> None:
    """Run the same jobs in plain text and with security on, twice each; fails below 70 % of the throughput."""
    from controlplane.cli.bench_secure import run_secure

    raise typer.Exit(run_secure(jobs, runners, agents, as_json=as_json))


@app.command("replay")
def bench_replay(
    events: Annotated[int, typer.Option(min=1000)] = 500_000,
    written: Annotated[
        bool, typer.Option(help="Write the events straight to the log instead of running jobs.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Fold a log into complete projections; fails unless the digest equals the live projection's."""
    from controlplane.cli.bench_replay import run_replay

    raise typer.Exit(run_replay(events, written=written, as_json=as_json))


@app.command("queue")
def bench_queue(
    jobs: Annotated[int, typer.Option(min=1000, help="Length of the long queue.")] = 100_000,
    few: Annotated[int, typer.Option(min=500, help="Length of the short one.")] = 1_000,
    rounds: Annotated[int, typer.Option(min=1)] = 100,
    as_json: Json = False,
) -> None:
    """Route jobs of mixed priority from a long queue and from a short one; fails unless they went in the promised order."""
    from controlplane.cli.bench_queue import run_queue

    raise typer.Exit(run_queue(jobs, few, rounds, as_json=as_json))


@app.command("query")
def bench_query(
    history: Annotated[int, typer.Option(min=1000, help="Events that are there before.")] = 500_000,
    rate: Annotated[int, typer.Option(min=1, help="Events a second that arrive meanwhile.")] = 10_000,
    seconds: Annotated[float, typer.Option(min=1, help="How long to ask.")] = 20.0,
    limit_ms: Annotated[float | None, typer.Option(min=0, help="Fail if p99 is above.")] = None,
    as_json: Json = False,
) -> None:
    """Ask one TruthCore for single jobs, truths and records while events arrive at a fixed rate; p50 and p99 of each."""
    from controlplane.cli.bench_query import run_query

    raise typer.Exit(run_query(history, rate, seconds, limit_ms, as_json=as_json))


@app.command("growth")
def bench_growth(
    events: Annotated[int, typer.Option(min=22_000)] = 20_000_000,
    rounds: Annotated[int, typer.Option(min=3, help="How often each point read is asked.")] = 30,
    data_dir: Annotated[
        Path | None, typer.Option(help="A folder that keeps growth.duckdb; what is there is asked again.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Fold millions of events into one file, without a broker, and ask it the documented questions; fails if one takes too much CPU time."""
    from controlplane.cli.bench_growth import run_growth

    raise typer.Exit(run_growth(events, rounds, data_dir, as_json=as_json))


@app.command("gateway")
def bench_gateway(
    jobs: Annotated[int, typer.Option(min=100, help="Single submissions.")] = 10_000,
    lines: Annotated[int, typer.Option(min=2000, help="Jobs as lines of bulk requests.")] = 60_000,
    connections: Annotated[int, typer.Option(min=1, max=1000, help="That submit single jobs at once.")] = 64,
    as_json: Json = False,
) -> None:
    """Submit jobs to one gateway, one by one and in bulk, each acknowledged by the log, beside the raw producer."""
    from controlplane.cli.bench_gateway import run_gateway

    raise typer.Exit(run_gateway(jobs, lines, connections, as_json=as_json))


@app.command("all")
def bench_all(jobs: int = 20_000, events: int = 500_000) -> None:
    """Measure both beside taskiq and Celery on the same machine, and print the ratios."""
    from controlplane.cli.bench import run_all

    raise typer.Exit(run_all(jobs, events))


@app.command("client")
def bench_client(
    jobs: Annotated[int, typer.Option(min=1000, help="Submissions of each round.")] = 100_000, as_json: Json = False
) -> None:
    """Submit jobs straight to the log from one process, acknowledged by it, beside the stock producer."""
    from controlplane.cli.bench_client import run_client

    raise typer.Exit(run_client(jobs, as_json=as_json))
