"""The alert rules: each outage raises its alert, a healthy system none. Prometheus' own rule checker plays the scenarios where it is installed."""

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.meta.repository import ROOT, text
from tests.meta.test_deployment import manifests, workloads

RULES: Final = ROOT / "deploy" / "prometheus" / "alerts.yml"
INTERVAL_SECONDS: Final = 15
HAPPENS_AT: Final = 40
"""After so many scrapes of a healthy system, ten minutes, something happens."""
AFTERWARDS: Final = 80
ENDED: Final = "stale"
"""What Prometheus notes of a target that is gone from its list, and of a series that is no longer told."""


def steadily(before: float, after: float | str) -> str:
    """Return the values of a series that is something else from the moment on."""
    changed = after if isinstance(after, str) else f"{after}x{AFTERWARDS}"
    return f"{before}x{HAPPENS_AT} {changed}"


def born(value: float) -> str:
    """Return the values of a series that is first told at the moment."""
    return f"_x{HAPPENS_AT} {value}x{AFTERWARDS}"


HEALTHY: Final = {
    **{f'up{{job="{job}",instance="{job}-{n}"}}': 1 for job in ("jobforge", "truthcore") for n in (1, 2)},
    **{f'up{{job="{job}",instance="{job}-1"}}': 1 for job in ("gateway", "notary", "runner")},
    'controlplane_owned_partitions{instance="jobforge-1"}': 4,
    'controlplane_owned_partitions{instance="jobforge-2"}': 4,
    'controlplane_runner_slots{instance="jobforge-1",runner="parser",state="free"}': 4,
    'controlplane_store_answers{instance="jobforge-1"}': 1,
    'controlplane_outbox_age_seconds{instance="jobforge-1"}': 0,
    'controlplane_dead_letters_total{instance="jobforge-1",code="record_undecodable"}': 0,
    'controlplane_http_faults_total{instance="gateway-1"}': 0,
    'controlplane_projection_reading{instance="truthcore-1"}': 1,
    'controlplane_projection_reading{instance="truthcore-2"}': 1,
    'controlplane_projection_lag_seconds{instance="truthcore-1"}': 0,
    'controlplane_notary_oldest_unsigned_seconds{instance="notary-1"}': 20,
}
OF_JOBFORGE: Final = tuple(name for name in HEALTHY if "jobforge" in name)
ELDEST: Final = 'controlplane_notary_oldest_unsigned_seconds{instance="notary-1"}'
LETTERS: Final = "controlplane_dead_letters_total"

SCENARIOS: Final[dict[str, tuple[Mapping[str, str], float, set[str]]]] = {
    # what happens: (the series that change, minutes until it is looked at, the alerts that fire then)
    "nothing": ({}, 15, set()),
    "one JobForge ends": (
        {'up{job="jobforge",instance="jobforge-1"}': steadily(1, ENDED)}, 6, {"JobForgeAlone"},
    ),
    "every JobForge ends, and their containers with them": (
        {name: steadily(HEALTHY[name], ENDED) for name in OF_JOBFORGE}, 6, {"NoJobForge", "JobForgeAlone"},
    ),
    "every JobForge hangs": (
        {name: steadily(1, 0) for name in OF_JOBFORGE if name.startswith("up")}
        | {name: steadily(HEALTHY[name], ENDED) for name in OF_JOBFORGE if not name.startswith("up")},
        2, {"NoJobForge", "ServiceDown"},
    ),
    "JobForge runs and is given no partition": (
        {name: steadily(4, 0) for name in OF_JOBFORGE if "owned" in name}
        | {name: steadily(4, ENDED) for name in OF_JOBFORGE if "slots" in name},
        2, {"NoJobForge"},
    ),
    "Redis does not answer": (
        {'controlplane_store_answers{instance="jobforge-1"}': steadily(1, 0)}, 1, {"StoreAway"},
    ),
    "the last gateway ends": (
        {'up{job="gateway",instance="gateway-1"}': steadily(1, ENDED)}, 2, {"NoGateway"},
    ),
    "the last runner ends": (
        {
            'up{job="runner",instance="runner-1"}': steadily(1, ENDED),
            'controlplane_runner_slots{instance="jobforge-1",runner="parser",state="free"}': steadily(4, ENDED),
        }, 2, {"NoRunner"},
    ),
    "every TruthCore ends": (
        {name: steadily(HEALTHY[name], ENDED) for name in HEALTHY if "truthcore" in name}, 2, {"NoTruthCore"},
    ),
    "a TruthCore may not read the log": (
        {'controlplane_projection_reading{instance="truthcore-2"}': f"1x{HAPPENS_AT} 0x10 1 0x20"}, 4, {"ProjectionBehind"},
    ),
    "the notary ends": (
        {name: steadily(HEALTHY[name], ENDED) for name in HEALTHY if "notary" in name}, 6, {"NotaryBehind"},
    ),
    "the notary cannot read the log": ({ELDEST: f"20x{HAPPENS_AT} 20+15x{AFTERWARDS}"}, 16, {"NotaryBehind"}),
    "the first record ever is put aside": (
        {f'{LETTERS}{{instance="jobforge-1",code="record_undecodable"}}': steadily(0, 1)}, 1, {"RecordsPutAside"},
    ),
    "a record is put aside before the process was ever asked": (
        {f'{LETTERS}{{instance="jobforge-3",code="record_poisonous"}}': born(1)}, 1, {"RecordsPutAside"},
    ),
    "that was a quarter of an hour ago": (
        {f'{LETTERS}{{instance="jobforge-3",code="record_poisonous"}}': born(1)}, 15, set(),
    ),
    "the first request ever meets a fault of ours": (
        {'controlplane_http_faults_total{instance="gateway-1"}': steadily(0, 1)}, 1, {"FaultsOfOurs"},
    ),
    "a request meets a fault before the process was ever asked": (
        {'controlplane_http_faults_total{instance="gateway-2"}': born(1)}, 1, {"FaultsOfOurs"},
    ),
}  # fmt: skip


def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("Expected promtool (Debian: the package prometheus), but it is not installed.")
    return found


@pytest.mark.parametrize("what", SCENARIOS)
def test_what_happens_raises_its_alerts_and_no_others(what: str, tmp_path: Path) -> None:
    changed, minutes, firing = SCENARIOS[what]
    series = {name: f"{value}x{HAPPENS_AT + AFTERWARDS}" for name, value in HEALTHY.items()} | dict(changed)
    seconds = HAPPENS_AT * INTERVAL_SECONDS + int(minutes * 60)
    test = {
        "rule_files": [str(RULES)],
        "evaluation_interval": f"{INTERVAL_SECONDS}s",
        "tests": [{
            "interval": f"{INTERVAL_SECONDS}s",
            "input_series": [{"series": name, "values": values} for name, values in series.items()],
            "promql_expr_test": [{
                "expr": 'group by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": f"{seconds}s",
                "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(firing)],
            }],
        }],
    }  # fmt: skip
    file = tmp_path / "alerts.test.yml"
    file.write_text(yaml.safe_dump(test))
    done = subprocess.run([promtool(), "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def rules() -> dict[str, dict[str, Any]]:
    """Return the rules by the name of their alert."""
    return {rule["alert"]: rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]}


def test_no_count_is_silent_at_none() -> None:
    for name, rule in rules().items():
        bare = re.sub(r"\(count\(.+?\) or vector\(0\)\)", "", rule["expr"])
        assert not re.search(r"\bcount\b", bare), (
            f"{name}: Expected (count(...) or vector(0)): nothing to count is no 0."
        )


def test_every_service_that_prometheus_asks_has_a_rule_about_none_being_left() -> None:
    jobs = {one["job_name"] for one in yaml.safe_load(text("deploy/prometheus/prometheus.yml"))["scrape_configs"]}
    expressions = " ".join(rule["expr"] for rule in rules().values())
    missed = {job for job in jobs if f'absent(up{{job="{job}"}} == 1)' not in expressions}
    assert missed == {"runner"}, "Expected a rule for each; of runners JobForge tells, wherever they are."
    assert "absent(controlplane_runner_slots)" in expressions


def test_in_kubernetes_the_rules_find_the_names_they_ask_by() -> None:
    (scraped,) = yaml.safe_load(text("deploy/prometheus/kubernetes.yml"))["scrape_configs"]
    (place,) = scraped["kubernetes_sd_configs"]
    named = {one["target_label"]: one["source_labels"] for one in scraped["relabel_configs"] if "target_label" in one}
    assert named["job"] == ["__meta_kubernetes_pod_label_app_kubernetes_io_name"]
    assert named["namespace"] == ["__meta_kubernetes_namespace"], "Expected what autoscaling asks by."
    pods = {
        workload["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/name"]: workload
        for workload in workloads()
    }
    assert {"jobforge", "truthcore", "gateway", "notary"} <= set(pods)
    for name, workload in pods.items():
        template = workload["spec"]["template"]
        (container,) = template["spec"]["containers"]
        (port,) = container["ports"]
        annotations = {"prometheus.io/scrape": "true", "prometheus.io/port": str(port["containerPort"])}
        assert template["metadata"]["annotations"] == annotations, name
        assert port["name"] == "http", name
    (namespace,) = (one["metadata"]["name"] for one in manifests() if one["kind"] == "Namespace")
    assert place == {"role": "pod", "namespaces": {"names": [namespace]}}


def test_every_increase_counts_what_was_not_there_before() -> None:
    increases = [
        (name, *found)
        for name, rule in rules().items()
        for found in re.findall(r"increase\((\w+(?:\{[^}]*\})?)\[(\w+)\]\)", rule["expr"])
    ]
    assert len(increases) == 2
    for name, series, time in increases:
        assert f"{series} unless {series} offset {time}" in rules()[name]["expr"], (
            f"{name}: one born at 1 has no increase."
        )
