"""Two shards with two replicas each answer as one TruthCore does, also while a replica is killed and comes back."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from controlplane.cli.stack import SystemStack
from controlplane.client import ControlPlaneError
from controlplane.local.ports import choose_port
from controlplane.settings import Settings
from tests.acceptance.test_stack import until

JOBS = 6


class System:
    """A sharded stack, and beside it one TruthCore that keeps the whole log."""

    def __init__(self, stack: SystemStack, single: str) -> None:
        self.stack = stack
        self.gateway = httpx.Client(base_url=stack.gateway_url, timeout=60, verify=stack.verification())
        self.single = httpx.Client(base_url=single, timeout=60, verify=stack.verification())
        self.client = stack.client()

    def close(self) -> None:
        for one in (self.gateway, self.single, self.client):
            one.close()

    def written(self) -> tuple[str, list[str]]:
        """Run jobs, say things about many subjects; return a moment after that, and positions that reflect all records up to it."""
        for number in range(JOBS):
            self.client.submit("test.nap", {"seconds": 0}, job_id=f"job-{time.time_ns()}-{number}").wait(60)
        self.client.declare_source("eye", 0.5)
        self.client.declare_predicate("width", cardinality="SINGLE", unit="m")
        ids: list[str] = []
        for number in range(8):
            said = self.client.assert_truth(f"thing:{number}", "width", number, source="eye", inputs=ids[-1:])
            ids.append(said.event_id)
        self.client.retract(ids[2], "thing:2", "a mistake")
        time.sleep(1.0)  # What else follows from the jobs.
        as_of = datetime.now(UTC).isoformat()
        time.sleep(
            2.0
        )  # The single one looks twice a second how long the log is: from here on it knows of all before the moment.
        until(lambda: self.single.get("/v1/standing").json()["reflects"]["lag_records"] == 0)
        at = self.single.get("/v1/standing").json()["reflects"]["positions"]
        return as_of, [
            f"{topic}/{number}/{end - 1}" for topic, some in at.items() for number, end in some.items() if end
        ]

    def ask(self, http: httpx.Client, path: str, **query: Any) -> Any:
        answer = http.get(path, params=query)
        assert answer.status_code == 200, (path, answer.text)
        found = answer.json()
        self.reflects = found.pop("reflects", None)
        return found

    def everything(self, http: httpx.Client, as_of: str, wanted: list[str]) -> dict[str, Any]:
        """Return the answers to questions of every kind, as of one moment: the log goes on meanwhile."""
        time_of = {"as_of": as_of}
        first = {"min_position": wanted, "wait_seconds": 30}
        asked: list[tuple[str, dict[str, Any]]] = [
            ("/v1/jobs", {"limit": 100, **first}),
            ("/v1/jobs", {"limit": 2, "phase": "COMPLETED"}),
            ("/v1/events", {"limit": 500}),
            ("/v1/truths", {"subject": "*", "limit": 100}),
            ("/v1/truths", {"source": "eye", "limit": 3}),
            ("/v1/truths/history", {"subject": "thing:2", "predicate": "width"}),
            ("/v1/impact", {"source": "eye"}),
            ("/v1/lineage", {"subject": "thing:7", "predicate": "width", "direction": "up"}),
            ("/v1/deadletters", {}),
            ("/v1/digest", {}),
        ]
        found = {f"{path} {sorted(query)}": self.ask(http, path, **query, **time_of) for path, query in asked}
        for job in found["/v1/jobs ['limit', 'min_position', 'wait_seconds']"]["jobs"][:2]:
            for path in ("", "/events"):
                found[f"{job['job_id']}{path}"] = self.ask(http, f"/v1/jobs/{job['job_id']}{path}", **time_of)
            found[f"{job['job_id']} why"] = self.ask(http, "/v1/causation", job=job["job_id"], **time_of)
            found[f"{job['job_id']} lineage"] = self.ask(http, "/v1/lineage", job=job["job_id"], **time_of)
        return found


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with SystemStack(Settings(), tmp_path_factory.mktemp("stack"), shards=2, replicas=2, free_ports=True) as stack:
        port, file = choose_port(None), tmp_path_factory.mktemp("single") / "single.duckdb"
        variables = {"CONTROLPLANE_TRUTHCORE_PORT": str(port), "CONTROLPLANE_TRUTHCORE_DATABASE": str(file)}
        single = f"{stack.scheme}://127.0.0.1:{port}"
        stack._service("truthcore-single", variables, f"{single}/health/live")
        stack.services["truthcore-single"].wait_ready()
        made = System(stack, single)
        stack.add_runner("runner", "tests.acceptance.handlers:runner")
        until(lambda: made.client.runners().runners)
        time.sleep(1.0)  # JobForge reads the same registration as TruthCore.
        yield made
        made.close()


@pytest.mark.timeout(600)
def test_two_shards_of_two_replicas_answer_as_one_while_a_replica_is_killed(system: System) -> None:
    as_of, wanted = system.written()
    expected = system.everything(system.single, as_of, wanted)
    assert len(expected["/v1/jobs ['limit', 'min_position', 'wait_seconds']"]["jobs"]) == JOBS
    assert system.everything(system.gateway, as_of, wanted) == expected
    for name in ("truthcore-2", "truthcore"):
        child = system.stack.services[name]
        child.kill()
        for _ in range(2):
            assert system.everything(system.gateway, as_of, wanted) == expected
            assert name not in system.reflects["answered_by"]
            assert len(system.reflects["answered_by"]) == 2
        child.start()
        standing = f"{system.stack.truthcore_urls[name]}/v1/standing"
        until(lambda url=standing: httpx.get(url, verify=system.stack.verification()).json()["reading"])
    as_of, wanted = system.written()
    assert system.everything(system.gateway, as_of, wanted) == system.everything(system.single, as_of, wanted)


def test_a_shard_without_replicas_is_said_and_nothing_is_answered_from_half_the_log(system: System) -> None:
    for name in ("truthcore-2", "truthcore-4"):
        system.stack.services[name].kill()
    try:
        with pytest.raises(ControlPlaneError, match="Expected a TruthCore of shard 1 to answer"):
            until(lambda: system.client.request("GET", "/v1/jobs") and None)
    finally:
        for name in ("truthcore-2", "truthcore-4"):
            system.stack.services[name].start()


def test_sql_over_shards_brings_their_rows_together(system: System) -> None:
    sql = "SELECT phase, count(*) AS n FROM jobs GROUP BY phase ORDER BY phase"
    answers: list[Any] = []
    for _ in range(2):
        system.client.submit("test.nap", {"seconds": 0}).wait(60)

    def agree() -> bool:
        """Say whether both answer the same: each is as far as it is, so they do once both reflect the same."""
        answers[:] = [one.post("/v1/sql", json={"sql": sql}).json() for one in (system.gateway, system.single)]
        return bool(answers[0].get("rows")) and answers[0]["rows"] == answers[1].get("rows")

    try:
        until(agree)
    except AssertionError as error:
        raise AssertionError(f"Expected the same of the shards and of the single one, but: {answers}") from error
