"""Every metric that a dashboard or an alert rule names exists on a service of a real stack, and the rules are rules to Prometheus itself."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from controlplane.cli.stack import SystemStack
from controlplane.settings import Settings
from tests.acceptance.security import browsing
from tests.acceptance.test_gateway import submitted, until

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus" / "alerts.yml"
DASHBOARD = DEPLOY / "grafana" / "dashboards" / "controlplane.json"
SUFFIXES = re.compile(r"_(bucket|count|sum|created)$")


def expressions() -> list[str]:
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [rule["expr"] for rule in rules] + [target["expr"] for panel in panels for target in panel["targets"]]


def test_each_alert_has_one_rule() -> None:
    alerts = [rule["alert"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    assert len(alerts) == len(set(alerts)), alerts


def named(expression: str) -> set[str]:
    return {SUFFIXES.sub("", name) for name in re.findall(r"\bcontrolplane_[a-z_]+", expression)}


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The metrics of every service, by its name."""
    with SystemStack(Settings(), tmp_path_factory.mktemp("stack"), free_ports=True) as stack:
        with browsing(stack) as http:
            stack.add_runner("runner", "tests.acceptance.handlers:runner")
            until(lambda: http.get("/v1/runners").json()["runners"])
            job = submitted(http)
            failing = http.post("/v1/jobs", json={"job_type": "test.fail", "payload": {"seconds": 0}}).json()
            for one in (job, failing):
                asked = {"wait_seconds": 30, "min_position": one["position"]}
                until(
                    lambda one=one, asked=asked: http.get(f"/v1/jobs/{one['job_id']}/result", params=asked).json()[
                        "concluded"
                    ]
                )
            http.put("/v1/pauses/type:test.nap", json={})
            submitted(http)  # It waits, so that a queue has a depth.
        jobforge = f"{stack.health_urls['jobforge']}/metrics"
        until(lambda: "controlplane_queue_depth{" in httpx.get(jobforge, timeout=60, verify=stack.verification()).text)
        urls = {
            "gateway": stack.gateway_url, "truthcore": stack.truthcore_url, **stack.health_urls
        }  # fmt: skip
        yield {
            name: httpx.get(f"{url}/metrics", timeout=60, verify=stack.verification()).text
            for name, url in urls.items()
        }


def test_every_metric_of_dashboard_and_rules_exists(scraped: dict[str, str]) -> None:
    declared = {
        name for page in scraped.values() for name in re.findall(r"^# TYPE (\S+) ", page, re.MULTILINE)
    }  # fmt: skip
    wanted = set().union(*(named(one) for one in expressions()))
    assert len(wanted) > 15
    assert sorted(wanted - declared) == []


def test_the_labels_that_expressions_sum_by_exist(scraped: dict[str, str]) -> None:
    from_prometheus = {"job", "instance", "le"}
    pages = "\n".join(scraped.values())
    for expression in expressions():
        for group in re.findall(r"by \(([^)]*)\)", expression):
            for label in {one.strip() for one in group.split(",")} - from_prometheus:
                assert re.search(rf"[{{,]{label}=\"", pages) or label in UNSEEN, (label, expression)


UNSEEN = {"kind", "name"}
"""Labels of the breakers: they have no series while none has opened."""


def test_prometheus_takes_the_rules() -> None:
    promtool: Any = shutil.which("promtool")
    if promtool is None:
        pytest.skip("Expected promtool (Debian: the package prometheus), but it is not installed.")
    done = subprocess.run([promtool, "check", "rules", str(RULES)], capture_output=True, text=True, check=False)  # noqa: S603 -- found above
    assert done.returncode == 0, done.stdout + done.stderr
