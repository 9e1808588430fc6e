"""Identities at the edge: two tenants on one stack, who see and touch nothing of each other, and the one who answers for all."""

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from controlplane.cli import tokens
from controlplane.cli.stack import SystemStack
from controlplane.client import Client, ControlPlaneError
from controlplane.settings import Settings
from tests.acceptance.browser import PHONE, chromium, opened, serious_faults
from tests.acceptance.security import browsing
from tests.acceptance.test_stack import until


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("identities")
    tokens.make(made)
    return made


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[SystemStack]:
    settings = Settings(identities=folder / tokens.IDENTITIES_FILE)
    with SystemStack(settings, tmp_path_factory.mktemp("stack"), free_ports=True) as running:
        running.add_runner("runner", "tests.acceptance.handlers:runner")
        boss = tokens.signed(folder, "boss", "*", ["administer"], 1)
        with Client(running.gateway_url, token=boss, tls=running.tls()) as client:
            until(lambda: client.runners().runners)
            time.sleep(1.0)  # JobForge reads the same registration as TruthCore.
        yield running


@pytest.fixture
def client(stack: SystemStack, folder: Path) -> Iterator[Callable[..., Client]]:
    made: list[Client] = []

    def of(name: str, tenant: str, *roles: str) -> Client:
        token = tokens.signed(folder, name, tenant, list(roles), 1)
        made.append(Client(stack.gateway_url, token=token, tls=stack.tls()))
        return made[-1]

    yield of
    for one in made:
        one.close()


def refusal(work: Callable[[], Any]) -> ControlPlaneError:
    with pytest.raises(ControlPlaneError) as caught:
        work()
    return caught.value


def test_tenants_see_and_touch_nothing_of_each_other(client: Callable[..., Client]) -> None:
    ada, eve = client("ada", "acme", "submit", "audit"), client("eve", "umbrella", "submit", "audit")
    handle = ada.submit("test.nap", {"seconds": 0}, job_id="acme-1")
    assert handle.wait(30).phase == "COMPLETED"
    claim = ada.assert_truth("project:x", "state", "secret", 0.9)
    assert ada.truths("project:x", "state", min_position=claim.position)[0].value == "secret"
    at = claim.position
    events = ada.job_events("acme-1")
    assert {event.event["header"]["tenant"] for event in events} == {"acme"}
    assert {event.event["header"]["actor"] for event in events} == {"ada"}

    assert list(eve.jobs()) == []
    assert list(eve.truths("project:x", min_position=at)) == []
    for look in (
        lambda: eve.job("acme-1"),
        lambda: eve.job_events("acme-1"),
        lambda: eve.why(job="acme-1"),
        lambda: eve.why(event=events[0].position),
    ):
        assert refusal(look).code == "not_found"
    eves = eve.request("POST", "/v1/sql", body={"sql": "SELECT count(*) FROM jobs"})
    adas = ada.request("POST", "/v1/sql", body={"sql": "SELECT job_id, tenant FROM jobs"})
    assert (eves["rows"], adas["rows"]) == ([[0]], [["acme-1", "acme"]])
    assert eve.sql_table("SELECT job_id FROM jobs").num_rows == 0
    assert ada.sql_table("SELECT job_id FROM jobs").to_pylist() == [{"job_id": "acme-1"}]
    for sql in (
        "SELECT * FROM main.events",
        "WITH live_events AS (SELECT * FROM live_events) SELECT * FROM live_events",
        "SELECT stats(tenant) FROM submissions",
    ):
        around = refusal(partial(eve.request, "POST", "/v1/sql", body={"sql": sql}))
        assert (around.code, around.field) == ("forbidden", "sql")


def listening(client: Client, path: str, found: list[str], *, accept: str = "text/event-stream") -> threading.Thread:
    """Keep a live stream open in the background, its lines in `found`; the stream ends by itself, or with the client."""

    def listen() -> None:
        with (
            contextlib.suppress(httpx.TransportError),  # The one that has no end of its own is closed under it.
            client._http.stream("GET", path, headers={"accept": accept}) as answer,
        ):
            assert answer.status_code == 200, answer.read()
            found.append("open")
            found.extend(answer.iter_lines())

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    until(lambda: found)
    return thread


def test_live_streams_tell_a_tenant_nothing_of_another(client: Callable[..., Client]) -> None:
    ada, eve = client("ada", "acme", "submit"), client("eve", "umbrella", "submit")
    far = {"payload": {"seconds": 0}, "not_before": "2099-01-01T00:00:00Z"}
    ada.submit_many([{**far, "job_type": "test.nap", "job_id": "acme-live"}])
    paths = {
        "all": "/v1/events/stream?max_seconds=600",
        "one": "/v1/events/stream?max_seconds=600&job_id=acme-live",
        "changes": "/v1/truths/changes",
    }
    heard = {(who, name): list[str]() for who in ("ada", "eve") for name in paths}
    for (who, name), found in heard.items():
        listening({"ada": ada, "eve": eve}[who], paths[name], found)
    assert refusal(lambda: eve.request("GET", "/v1/jobs/acme-live/events/stream")).code == "not_found"

    ada.cancel("acme-live", "word-of-acme")
    ada.assert_truth("project:live", "state", "word-of-acme", 0.9)
    for name in paths:  # What follows comes behind it.
        until(lambda name=name: "word-of-acme" in "\n".join(heard["ada", name]))
    eve.submit("test.nap", {"seconds": 0}, job_id="umbrella-live").wait(30)
    eve.assert_truth("project:live", "state", "word-of-umbrella", 0.9)
    for name in ("all", "changes"):
        until(lambda name=name: "word-of-umbrella" in "\n".join(heard["eve", name]))
    told = {key: "\n".join(found) for key, found in heard.items()}
    assert "umbrella-live" in told["eve", "all"]
    for name in paths:
        assert "acme" not in told["eve", name]
        assert "umbrella" not in told["ada", name]


def test_a_command_of_another_tenant_is_refused_on_the_log(client: Callable[..., Client]) -> None:
    ada, eve = client("ada", "acme", "submit"), client("eve", "umbrella", "submit")
    far = {"job_type": "test.nap", "payload": {"seconds": 0}, "job_id": "acme-2", "not_before": "2099-01-01T00:00:00Z"}
    [handle] = ada.submit_many([far])
    assert not isinstance(handle, ControlPlaneError)
    until(lambda: handle.status().phase == "DELAYED")
    attack = eve.cancel("acme-2", "mine now")
    stolen = eve.submit("test.nap", {"seconds": 1}, job_id="acme-2")
    for position in (attack.position, stolen.position):
        assert ada.job("acme-2", min_position=position).phase == "DELAYED"
    refused = until(lambda: [one for one in eve.job_events("acme-2") if one.event_type == "CommandRefused"])
    assert "DELAYED" not in refused[0].event["error"]["message"]
    assert {one.event["header"]["tenant"] for one in ada.job_events("acme-2")} == {"acme"}
    handle.cancel("no longer wanted")
    assert until(lambda: ada.job("acme-2").phase == "CANCELLED")


def test_roles_decide_and_refusals_say_what_is_missing(client: Callable[..., Client], stack: SystemStack) -> None:
    reader = client("rita", "acme")
    assert list(reader.jobs()) is not None
    lacking = refusal(lambda: reader.submit("test.nap", {"seconds": 0}))
    assert (lacking.code, lacking.problem["expected"], lacking.problem["found"]) == ("forbidden", "submit", "read")
    submitter = client("sam", "acme", "submit")
    elsewhere = refusal(lambda: submitter.submit("test.nap", {"seconds": 0}, tenant="umbrella"))
    assert (elsewhere.code, elsewhere.field) == ("forbidden", "tenant")
    assert refusal(lambda: submitter.assert_truth("a", "b", 1, source="somebody")).field == "source"
    everybody = client("amy", "acme", "administer")
    assert refusal(lambda: everybody.request("PUT", "/v1/limits/type:echo", body={"max_running": 1})).field == "tenant"
    boss = client("boss", "*", "administer")
    assert (
        boss.submit("test.nap", {"seconds": 0}, tenant="umbrella", job_id="for-umbrella").wait(30).tenant == "umbrella"
    )
    nobody = httpx.get(f"{stack.gateway_url}/v1/jobs", verify=stack.verification())
    assert (nobody.status_code, nobody.json()["code"]) == (401, "unauthorized")


def test_what_is_secret_is_nowhere_in_the_clear_and_can_be_forgotten(
    client: Callable[..., Client], stack: SystemStack
) -> None:
    ada, eve = client("ada", "acme", "submit", "operate"), client("eve", "umbrella", "submit", "operate")
    handle = ada.submit("test.nap", {"seconds": 0.0625, "note": "xyzzy"}, job_id="secret-1", secret="customer-17")
    job = handle.wait(30)
    assert (job.phase, job.payload, job.result, job.encrypted_with) == ("COMPLETED", None, None, "acme/customer-17")
    assert "xyzzy" not in repr(ada.job_events("secret-1"))
    assert handle.result() == {"slept": 0.0625}
    shown = ada.request("GET", "/v1/jobs/secret-1/opened")
    assert shown == {"payload": {"seconds": 0.0625, "note": "xyzzy"}, "result": {"slept": 0.0625}}
    assert refusal(lambda: eve.request("GET", "/v1/jobs/secret-1/opened")).code == "not_found"
    hers = eve.request("POST", "/v1/secrets/customer-17/forget")  # It has the same name, and is another.
    assert (hers["key_id"], hers["existed"]) == ("umbrella/customer-17", False)
    boss = client("boss", "*", "administer")
    unnamed = boss.request("POST", "/v1/secrets/customer-17/forget")
    assert (unnamed["key_id"], unnamed["existed"]) == ("default/customer-17", False)
    assert ada.request("GET", "/v1/jobs/secret-1/opened") == shown
    wrong = refusal(lambda: ada.submit("test.nap", {"seconds": "long"}, secret="customer-17"))
    assert wrong.code == "payload_invalid"  # It is checked before it is encrypted.
    wish = {"reason": "asked to be forgotten", "tenant": "acme"}
    for existed in (True, False):  # Once more is harmless.
        answer = boss.request("POST", "/v1/secrets/customer-17/forget", body=wish)
        assert (answer["key_id"], answer["existed"]) == ("acme/customer-17", existed)
    gone = refusal(lambda: ada.request("GET", "/v1/jobs/secret-1/opened"))
    assert (gone.status, gone.code) == (410, "content_forgotten")
    assert refusal(lambda: ada.submit("test.nap", {"seconds": 0}, secret="customer-17")).code == "content_forgotten"


def test_what_a_schedule_submits_is_as_secret_as_its_job_says(client: Callable[..., Client]) -> None:
    ada = client("ada", "acme", "submit", "operate", "audit")
    job = {"job_type": "test.nap", "payload": {"seconds": 0.03125, "note": "plugh"}, "secret": "customer-18"}
    ada.request("PUT", "/v1/schedules/secret-nightly", body={"cron": "* * * * * *", "job": job})
    nightly = "SELECT job_id FROM submissions WHERE schedule_id = 'secret-nightly' ORDER BY job_id"
    jobs = until(lambda: ada.request("POST", "/v1/sql", body={"sql": nightly})["rows"])
    job_id = jobs[0][0]
    done = until(lambda: one if (one := ada.job(job_id)).phase == "COMPLETED" else None)
    assert (done.payload, done.result, done.encrypted_with) == (None, None, "acme/customer-18")
    assert ada.request("GET", f"/v1/jobs/{job_id}/opened") == {"payload": job["payload"], "result": {"slept": 0.03125}}
    written = "SELECT count(*) FROM events WHERE contains(value::VARCHAR, 'plugh')"
    assert ada.request("POST", "/v1/sql", body={"sql": written})["rows"] == [[0]]

    ada.request("POST", "/v1/secrets/customer-18/forget")
    assert refusal(lambda: ada.request("GET", f"/v1/jobs/{job_id}/opened")).code == "content_forgotten"
    failed = until(lambda: [one for one in ada.jobs(phase="FAILED") if one.encrypted_with == "acme/customer-18"])
    assert failed[0].error is None or failed[0].error["code"] == "content_forgotten"
    ada.request("DELETE", "/v1/schedules/secret-nightly")


def test_a_large_content_is_for_whoever_sees_its_job(client: Callable[..., Client]) -> None:
    ada, eve = client("ada", "acme", "submit"), client("eve", "umbrella", "submit")
    ada.submit("test.nap", {"seconds": 0, "note": "x" * 400_000}, job_id="large-1").wait(30)
    reference = ada.job("large-1").payload_reference
    assert reference is not None
    assert len(ada.content(reference.sha256, "large-1")) > 400_000
    for work in (lambda: ada.content(reference.sha256), lambda: eve.content(reference.sha256, "large-1")):
        assert refusal(work).code == "not_found"


def test_the_console_signs_in_and_out(stack: SystemStack, folder: Path) -> None:
    with browsing(stack) as browser:
        assert browser.get("/console/").status_code == 200
        assert browser.get("/v1/session").status_code == 401
        token = tokens.signed(folder, "ada", "acme", ["submit"], 1)
        entered = browser.post("/v1/session", json={"token": token})
        assert entered.json()["name"] == "ada"
        assert "httponly" in entered.headers["set-cookie"].lower()
        assert browser.get("/v1/jobs").status_code == 200
        job = {"job_type": "test.nap", "payload": {"seconds": 0}}
        assert browser.post("/v1/jobs", json=job).status_code == 403
        same = browser.post("/v1/jobs", json=job, headers={"sec-fetch-site": "same-origin"})
        assert same.status_code == 202
        assert browser.delete("/v1/session").status_code == 204
        assert browser.get("/v1/jobs").status_code == 401


@pytest.mark.browser
@pytest.mark.timeout(300)
def test_somebody_signs_in_with_a_browser_and_out_again(stack: SystemStack, folder: Path) -> None:
    with chromium() as browser, opened(browser, stack, PHONE) as page:
        page.goto("/console/#/runners")
        page.get_by_role("heading", level=1, name="Sign in").wait_for()
        field, enter = page.get_by_label("Token"), page.get_by_role("button", name="Sign in")
        field.fill("no token of anybody")
        enter.click()
        page.get_by_role("alert").get_by_text("Expected a bearer token that counts here, but: it is no").wait_for()
        assert serious_faults(page) == []
        field_box, card_box = field.bounding_box(), page.locator("form.card").bounding_box()
        assert field_box["x"] + field_box["width"] < card_box["x"] + card_box["width"]
        field.fill(tokens.signed(folder, "ada", "acme", ["submit"], 1))
        enter.click()
        page.get_by_role("heading", level=1, name="Runners").wait_for()
        assert page.locator("#who").inner_text().startswith("ada, acme")
        page.reload()
        page.get_by_role("heading", level=1, name="Runners").wait_for()
        page.get_by_role("button", name="Sign out").click()
        page.get_by_role("heading", level=1, name="Sign in").wait_for()


def test_the_command_makes_and_uses_tokens(stack: SystemStack, tmp_path: Path) -> None:
    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "controlplane.cli.main", *arguments],
            env={"PATH": "/usr/bin:/bin", **stack.environment(), **variables}, cwd=Path.cwd(), capture_output=True, text=True,
            check=False, timeout=120,
        )  # fmt: skip

    data = ("--data-dir", str(tmp_path))
    assert run("tokens", "issue", "ada", *data).returncode == 2
    assert run("tokens", "init", *data).returncode == 0
    again = run("tokens", "init", *data)
    assert (again.returncode, "Expected no signing key yet" in again.stderr) == (1, True)
    strange = run("tokens", "issue", "ada", "--tenant", "acme", *data).stdout.strip()
    refused = run("jobs", CONTROLPLANE_TOKEN=strange)
    assert (refused.returncode, "Traceback" in refused.stderr) == (1, False)
    assert "bearer token that counts here" in refused.stderr
