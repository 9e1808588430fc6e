"""What security costs: the same jobs on stacks of one run, in plain text and with everything on."""

import json
from statistics import mean
from typing import Any, Final

from rich.table import Table

from controlplane.cli import show
from controlplane.cli.bench import e2e

ORDER: Final = (False, True, True, False)
"""Secured or not, so that a machine that grows slower or faster meanwhile does so to both."""
BAR: Final = 0.70


def secure(jobs: int, runners: int, agents: int) -> dict[str, Any]:
    """Return the figures of both and what is left of the throughput; each run has a stack of its own."""
    runs = [(secured, e2e(jobs, runners, agents, secure=secured)) for secured in ORDER]
    by_kind = {
        name: [figures for secured, figures in runs if secured is wanted]
        for name, wanted in (("plain", False), ("secure", True))
    }
    jobs_per_s = {name: mean(one["jobs_per_s"] for one in figures) for name, figures in by_kind.items()}
    return {
        "jobs": jobs,
        "jobs_per_s": {name: round(figure) for name, figure in jobs_per_s.items()},
        "ratio": round(jobs_per_s["secure"] / jobs_per_s["plain"], 3),
        "bar": BAR,
        "latency_ms": {name: [one["latency_ms"] for one in figures] for name, figures in by_kind.items()},
        "runs": {name: [one["jobs_per_s"] for one in figures] for name, figures in by_kind.items()},
        "concluded_once": all(figures["concluded_once"] for _, figures in runs),
        "machine": runs[0][1]["machine"],
    }


def run_secure(jobs: int, runners: int, agents: int, *, as_json: bool) -> int:
    """Print what security leaves of the throughput; 1 below the bar, or if a job did not conclude exactly once."""
    found = secure(jobs, runners, agents)
    if as_json:
        print(json.dumps(found))
    else:
        table = Table("", "Jobs/s", "Runs", "Idle p50 ms", box=None, header_style="dim")
        for name in ("plain", "secure"):
            runs = ", ".join(f"{one:,.0f}" for one in found["runs"][name])
            idle = ", ".join(str(one["p50"]) for one in found["latency_ms"][name])
            table.add_row(name, f"{found['jobs_per_s'][name]:,}", runs, idle)
        show.console.print(table)
        show.console.print(f"With security on: {found['ratio']:.0%} of the throughput (bar {BAR:.0%}); every job concluded once: {found['concluded_once']}")  # fmt: skip
    return 0 if found["ratio"] >= BAR and found["concluded_once"] else 1
