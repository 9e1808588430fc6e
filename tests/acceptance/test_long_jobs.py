"""A job of thousands of records is told to its end: by the client, as a stream, in the clear, and on its page of the console."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, Final

import pytest

from controlplane.client import Client
from tests.acceptance.browser import chromium, opened, show
from tests.acceptance.security import browsing
from tests.acceptance.test_gateway import told
from tests.acceptance.waiting import until

COMMANDS: Final = 1_020
"""Each is two records, with what became of it: more than two pages."""

pytestmark = [pytest.mark.xdist_group("studio"), pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def long(work: SimpleNamespace) -> str:
    """A job that waited long, was moved all the time, and then was done."""
    client: Client = work.client
    client.request("PUT", "/v1/pauses/type:image.measure", body={"reason": "a test of waiting"})
    until(lambda: "type:image.measure" in client.request("GET", "/v1/controls")["pauses"])
    job = client.submit("image.measure", {"image": "image:long"}, job_id="long-1", secret="customer-18")
    for number in range(COMMANDS):
        client.reprioritise(job.job_id, number % 2)
    client.request("DELETE", "/v1/pauses/type:image.measure")
    assert job.wait(60).phase == "COMPLETED"
    until(lambda: client.truths("image:long", "width"))
    return job.job_id


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as one:
        yield one


def test_the_client_tells_each_record_once_and_then_ends(work: SimpleNamespace, long: str) -> None:
    handle = work.client.handle(long)
    events = list(handle.events())
    assert len({one.position for one in events}) == len(events) > 2 * COMMANDS
    assert {"JobSubmitted", "JobCompleted", "TruthAsserted"} <= {one.event_type for one in events}
    assert work.client.job_events(long) == events
    assert handle.result() == work.client.request("GET", f"/v1/jobs/{long}/opened")["result"] == {"width": 370}


def test_the_stream_tells_each_record_once_and_then_ends(work: SimpleNamespace, long: str) -> None:
    with browsing(work.stack) as http:
        events, last, end = told(http, f"/v1/jobs/{long}/events/stream", max_seconds=60)
    assert [one["position"] for one in events] == [one.position for one in work.client.job_events(long)]
    assert end["reason"] == "concluded"
    assert last


@pytest.mark.browser
def test_its_page_shows_what_is_known_because_of_it_and_leads_to_its_last_event(
    work: SimpleNamespace, browser: Any, long: str
) -> None:
    with opened(browser, work.stack) as page:
        main = show(page, f"jobs/{long}")
        main.get_by_role("heading", name="What is known because of it").wait_for()
        main.get_by_role("link", name="Events 500+").click()
        later, row = main.get_by_role("link", name="Later"), main.locator("tbody tr").first
        later.wait_for()
        while later.count():
            before = row.inner_text()
            later.click()
            until(lambda shown=before: row.inner_text() != shown)
        main.locator("summary", has_text="JobCompleted").wait_for()
        main.get_by_role("link", name="First").click()
        main.locator("summary", has_text="JobSubmitted").wait_for()


@pytest.mark.browser
def test_an_event_source_of_a_concluded_job_tells_it_once_and_stays_closed(work: SimpleNamespace, browser: Any) -> None:
    follow = """path => new Promise((done) => {
      const told = [], source = new EventSource(path);
      source.onmessage = (event) => told.push(JSON.parse(event.data).position);
      source.onerror = () => { if (source.readyState === EventSource.CLOSED) done(told); };
    })"""
    with opened(browser, work.stack) as page:
        show(page, "jobs/thumbnail-1")
        told_once = page.evaluate(follow, "/v1/jobs/thumbnail-1/events/stream")
    assert told_once == [one.position for one in work.client.job_events("thumbnail-1")]
