"""The operations pages agree with what is deployed and with the code: alerts, topics, metrics, and the arithmetic of the sizing model."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from controlplane.events.catalog import TOPICS
from controlplane.log.topics import topic_settings
from tests.meta.repository import ROOT, files, text

RUNBOOKS = "docs/operations/runbooks.md"
METRIC = re.compile(r"\bcontrolplane_[a-z_]+[a-z]\b")
SUFFIXES = ("_bucket", "_sum", "_count", "_total")


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(text("deploy/prometheus/alerts.yml"))["groups"] for rule in group["rules"]]


def test_every_alert_has_its_section_and_every_section_its_alert() -> None:
    sections = re.findall(r"^## (\w+)$", text(RUNBOOKS), re.MULTILINE)
    assert sorted(sections) == sorted(rule["alert"] for rule in rules())
    assert len(set(sections)) == len(sections)
    for rule in rules():
        assert rule["annotations"]["runbook_url"] == f"{RUNBOOKS}#{rule['alert'].lower()}"


def named_in_code() -> set[str]:
    """Return every metric that the code makes, without the suffix of counters."""
    sources = (text(name) for name in files() if name.startswith("controlplane/") and name.endswith(".py"))
    return {
        name.removesuffix("_total") for source in sources for name in re.findall(r'"(controlplane_[a-z_]+)"', source)
    }


def _plain(name: str) -> str:
    return next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), name)


def test_every_metric_that_somebody_asks_for_is_made_by_the_code() -> None:
    asking = [
        name
        for name in files()
        if name.startswith(("deploy/prometheus/", "deploy/grafana/", "deploy/kubernetes/autoscaling"))
        or name == RUNBOOKS
    ]
    asked = {(name, metric) for name in asking for metric in METRIC.findall(text(name))}
    made = named_in_code()
    assert {metric for _, metric in asked} >= {"controlplane_queue_depth", "controlplane_outbox_age_seconds"}
    assert (
        sorted(f"{name}: {metric}" for name, metric in asked if _plain(metric) not in made and metric not in made) == []
    )


def rows(page: str, first: str) -> Iterator[list[str]]:
    """Yield the cells of the table whose first heading is this."""
    lines = text(page).splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {first} |"))
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            return
        yield [cell.strip() for cell in line.strip("|").split("|")]


def test_the_page_on_retention_names_every_topic_with_its_key_and_its_readers() -> None:
    names = {"jobforge": "JobForge", "truthcore": "TruthCore", "runner": "runners", "client": "clients"}
    table = {cells[0].strip("`"): cells for cells in rows("docs/operations/retention.md", "topic")}
    assert sorted(table) == sorted(TOPICS)
    for name, topic in TOPICS.items():
        _, key, readers, lost, compacted = table[name]
        assert key == topic.key, name
        assert set(readers.split(", ")) == {names.get(one.value, one.value) for one in topic.readers}, name
        assert lost
        assert compacted


def test_topics_are_made_as_the_page_on_retention_says() -> None:
    made = topic_settings(3)
    for name in ("retention.ms", "retention.bytes", "cleanup.policy"):
        assert f"`{name}={made[name]}`" in text("docs/operations/retention.md")


def _microseconds(cell: str) -> int:
    return int(re.sub(r"[^0-9]", "", cell))


def test_the_sizing_model_adds_up() -> None:
    page = "docs/operations/sizing.md"
    costs = {cells[0]: _microseconds(cells[1]) for cells in rows(page, "service")}
    one = costs.pop("**together**, one TruthCore")
    three = costs.pop("**together**, three TruthCore")
    truthcore = costs["TruthCore, each replica"]
    assert sum(costs.values()) == one
    assert one + 2 * truthcore == three
    whole = three + 2 * costs["Kafka"]
    assert f"**{whole:,} CPU seconds per million jobs**" in text(page)
    sizes = {
        cells[0]: _microseconds(cells[1].split(",")[0] if "**" not in cells[1] else cells[1].split("**")[1])
        for cells in rows(page, "topic")
    }
    together = sizes.pop("the log together")
    assert abs(sum(sizes.values()) - together) <= 2
    for part, cells in ((cells[0], cells) for cells in rows(page, "part")):
        cost = next(value for service, value in costs.items() if service.lower().startswith(part.lower().rstrip("s")))
        assert abs(_microseconds(cells[1]) * cost / 1e6 - 1) < 0.01, part


def test_operations_pages_link_to_what_exists() -> None:
    for name in files():
        if name.startswith("docs/operations/"):
            for target, _ in re.findall(r"\]\(([^)#:]+\.md)(#[\w-]+)?\)", text(name)):
                assert ((ROOT / name).parent / target).resolve().is_file(), f"{name}: {target}"
            for path in re.findall(r"`((?:tests|controlplane|deploy|tools)/[\w./-]+\.\w+)`", text(name)):
                assert Path(ROOT / path).is_file(), f"{name}: {path}"
