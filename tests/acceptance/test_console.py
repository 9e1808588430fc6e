"""The console in a real browser, on the real system with real work."""

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import httpx
import pytest

from tests.acceptance.browser import DESKTOP, PHONE, chromium, opened, serious_faults, show
from tests.acceptance.waiting import until

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("studio"), pytest.mark.timeout(300)]

PAGES: Final = ("", "jobs", "runners", "truths", "events", "controls", "deadletters", "audit", "query")
HEADINGS: Final = ("Overview", "Jobs", "Runners", "Truths", "Topics", "Controls", "Dead letters", "Audit", "Query")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as one:
        yield one


@pytest.fixture
def page(browser: Any, work: SimpleNamespace) -> Iterator[Any]:
    with opened(browser, work.stack) as one:
        yield one


# What the pages show


def test_the_overview_says_what_goes_on_and_what_needs_somebody(page: Any) -> None:
    main = show(page, "", "Overview")
    main.get_by_text("6 slots busy").or_(main.get_by_text("slots busy, 1 runner")).first.wait_for()
    for label in ("Throughput per second", "Jobs waiting", "From submission to conclusion", "Runner slots"):
        main.get_by_role("heading", name=label).wait_for()
    main.get_by_text("could not be used").wait_for()
    main.get_by_role("link", name="feed-1").wait_for()
    area = main.get_by_role("img", name="Throughput per second")
    area.focus()
    page.keyboard.press("ArrowLeft")
    assert (
        "submitted"
        in page.locator("figure", has=page.get_by_role("img", name="Throughput per second"))
        .locator(".readout")
        .inner_text()
    )
    main.get_by_role("link", name="1 min", exact=True).click()
    page.wait_for_url("**window=60")


def test_jobs_are_found_by_phase_text_and_tenant_and_the_address_says_so(page: Any) -> None:
    main = show(page, "jobs", "Jobs")
    main.get_by_role("navigation", name="Phase").get_by_role("link", name="failed").click()
    page.wait_for_url("**phase=FAILED")
    rows = main.locator("tbody tr")
    until(lambda: page.locator("tbody tr").count() == 1)
    assert "feed-1" in rows.first.inner_text()
    main.get_by_label("Search").fill("thumb")
    main.get_by_role("button", name="Filter").click()
    main.get_by_text("No job matches.").wait_for()
    main.get_by_role("navigation", name="Phase").get_by_role("link", name="all").click()
    main.get_by_role("link", name="thumbnail-1").wait_for()
    assert "search=thumb" in page.url
    page.reload()
    main.get_by_role("link", name="thumbnail-1").wait_for()
    page.go_back()
    main.get_by_text("No job matches.").wait_for()


def test_a_job_shows_its_attempts_in_time_its_log_and_its_events(page: Any) -> None:
    main = show(page, "jobs/report-1")
    main.get_by_role("img", name="attempt 1 on studio").wait_for()
    main.get_by_role("img", name="attempt 2 on studio").wait_for()
    assert "the fonts were not there yet" in main.inner_text()
    assert '"image:two.pdf"' in main.inner_text()
    main.get_by_role("link", name="Events").click()
    main.get_by_text("JobRetryScheduled").first.wait_for()
    main.locator("summary", has_text="JobSubmitted").click()
    main.get_by_text('"report.render"').first.wait_for()


def test_a_result_that_is_too_large_or_encrypted_is_said_to_be_there(page: Any, work: SimpleNamespace) -> None:
    work.client.submit("image.enlarge", {"image": "image:one"}, job_id="large-1").wait(60)
    work.client.submit("report.render", {"image": "image:two"}, job_id="secret-1", secret="customer-17", retry={"initial_backoff_seconds": 0.1}).wait(60)  # fmt: skip
    main = show(page, "jobs/large-1")
    main.get_by_text("400,002 bytes: too large for the log").wait_for()
    assert "None." not in main.inner_text()
    with page.expect_download() as begun:
        main.get_by_role("link", name="Download the result").click()
    assert Path(begun.value.path()).stat().st_size == 400_002
    main = show(page, "jobs/secret-1")
    main.get_by_text("controlplane secrets open secret-1").first.wait_for()
    section = main.locator("section", has=page.get_by_role("heading", name="Payload and result"))
    assert section.inner_text().count("Encrypted with default/customer-17") == 2
    assert serious_faults(page) == []


def test_a_running_job_is_followed_live_and_cancelled(page: Any, work: SimpleNamespace) -> None:
    work.client.submit("video.encode", {"image": "video:long", "seconds": 100}, job_id="video-1")
    main = show(page, "jobs/video-1")
    main.get_by_role("meter", name="Progress", exact=True).wait_for()
    main.get_by_role("link", name="Log").click()
    log = main.get_by_role("log")
    log.get_by_text("encoded frame 0 at").wait_for()
    log.get_by_text("encoded frame 25 at").wait_for()
    main.get_by_role("button", name="Cancel").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Why, for the log").fill("no longer wanted")
    dialog.get_by_role("button", name="Cancel").click()
    main.locator("h1").get_by_text("cancelled").wait_for()
    main.get_by_role("link", name="Events").click()
    main.get_by_text("no longer wanted").locator("visible=true").first.wait_for()
    assert work.client.job("video-1").phase == "CANCELLED"


def test_runners_show_their_slots_and_what_they_can_do(page: Any) -> None:
    main = show(page, "runners", "Runners")
    main.get_by_role("img", name="of 6 slots busy").wait_for()
    main.get_by_role("link", name="image.measure@1.2.0").click()
    main.get_by_role("heading", level=1, name="Jobs").wait_for()
    assert "job_type=image.measure" in page.url


# Graphs and time


def test_the_causes_of_a_job_are_walked_by_keyboard_and_pointer(page: Any) -> None:
    main = show(page, "jobs/thumbnail-1?tab=graph")
    start = main.get_by_role("button", name="JobSubmitted, +0 ms")
    start.wait_for()
    aside = main.get_by_role("region", name="The chosen record")
    start.focus()
    seen = []
    for key in ("ArrowRight", "ArrowDown", "ArrowRight", "ArrowLeft"):
        page.keyboard.press(key)
        seen.append(page.evaluate("document.activeElement.getAttribute('aria-label').split(',')[0]"))
        assert seen[-1] in aside.inner_text()
    assert seen[:2] == ["JobAccepted", "JobRouted"]
    assert seen[3] == "JobRouted", "left of an effect is its cause"
    assert '"least loaded' in aside.inner_text()
    main.get_by_role("button", name="AttemptSucceeded").first.click()
    assert '"capability"' in aside.inner_text()
    time.sleep(2.0)  # It is drawn again meanwhile: what was chosen stays chosen, and has the focus.
    assert main.get_by_role("button", name="AttemptSucceeded").first.get_attribute("aria-pressed") == "true"
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith("AttemptSucceeded")
    main.get_by_role("link", name="Open this record").click()
    main.get_by_role("heading", level=1, name="AttemptSucceeded").wait_for()


def test_the_slider_goes_back_to_what_was_known(page: Any) -> None:
    main = show(page, "truths/image:one", "image:one")
    main.get_by_text("conflict").first.wait_for()
    width = main.locator("section.truth", has=page.get_by_role("heading", name="width"))
    assert width.get_by_role("meter", name="Probability of").count() == 2
    slider = main.get_by_role("slider")
    slider.focus()
    page.keyboard.press("Home")
    main.get_by_text("Nothing was known of it then.").wait_for()
    page.keyboard.press("ArrowRight")
    main.get_by_text("As the log knew it at").wait_for()
    until(lambda: page.locator("section.truth .candidate").count() > 0)
    assert "as_of=" in page.url
    assert width.get_by_role("meter", name="Probability of 640").count() == 0, "the guess came later"
    page.keyboard.press("End")
    main.get_by_text("As the log knows it now.").wait_for()
    width.get_by_role("meter", name="Probability of 640").wait_for()


def test_where_a_truth_comes_from_leads_to_the_job(page: Any) -> None:
    main = show(page, "truths/image:one", "image:one")
    width = main.locator("section.truth", has=page.get_by_role("heading", name="width"))
    width.get_by_role("link", name="Where it comes from").click()
    main.get_by_role("heading", name="Where width comes from").wait_for()
    node = main.get_by_role("button", name="image.measure,")
    node.focus()
    page.keyboard.press("Enter")
    main.get_by_role("region", name="The chosen node").get_by_role("link").first.click()
    main.get_by_role("heading", name="Attempts in time").wait_for()


def test_topics_show_decoded_records_by_filter(page: Any) -> None:
    main = show(page, "events", "Topics")
    main.get_by_role("navigation", name="Topic").get_by_role("link", name="truth", exact=True).click()
    page.wait_for_url("**topic=controlplane.truth")
    main.get_by_label("Event").fill("PredicateDeclared")
    main.get_by_role("button", name="Filter").click()
    width = main.locator("tbody tr", has_text="predicate:width")
    until(lambda: width.count() == 1)
    until(lambda: page.locator("tbody tr", has_text="PredicateDeclared").count() == page.locator("tbody tr").count())
    width.locator("summary").click()
    width.get_by_text('"SINGLE"').wait_for()  # Others may declare a predicate, too.


# Fresh by itself


def test_the_log_tells_a_page_when_to_draw_itself_again(page: Any, work: SimpleNamespace) -> None:
    page.clock.install()
    main = show(page, "jobs?tenant=told", "Jobs")
    live = page.get_by_role("button", name="Live")
    main.get_by_text("No job matches.").wait_for()
    until(lambda: live.get_attribute("data-by") == "stream")
    page.clock.pause_at(page.evaluate("Date.now() + 1000"))
    page.clock.run_for(4000)  # What it asked by itself before the stream came is behind it.
    job = work.client.submit("image.guess", {"image": "image:told"}, tenant="told")
    job.wait(60)
    # Its clock stands, but for these moments: asking by itself is due only after 15 seconds.
    for _ in range(10):
        page.clock.run_for(1000)
        if main.get_by_role("link", name=job.job_id).count():
            break
        time.sleep(1.0)
    main.get_by_role("link", name=job.job_id).wait_for()


def test_a_page_asks_by_itself_where_no_stream_comes(page: Any, work: SimpleNamespace) -> None:
    page.route("**/v1/events/stream*", lambda route: route.abort())
    main = show(page, "jobs?tenant=asked", "Jobs")
    main.get_by_text("No job matches.").wait_for()
    assert page.get_by_role("button", name="Live").get_attribute("data-by") == "asking"
    job = work.client.submit("image.guess", {"image": "image:asked"}, tenant="asked")
    main.get_by_role("link", name=job.job_id).wait_for()


# What operators do


def test_bulk_commands_say_how_many_before_and_after(page: Any, work: SimpleNamespace) -> None:
    for number in range(3):
        work.client.submit(
            "video.encode", {"image": f"video:{number}", "seconds": 100}, job_id=f"bulk-{number}", tenant="bulk"
        )
    main = show(page, "jobs?tenant=bulk", "Jobs")
    until(lambda: page.locator("tbody tr input").count() == 3)
    main.get_by_text("All that match").click()
    main.get_by_role("button", name="Cancel all").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("all 3 jobs like this: tenant bulk").wait_for()
    dialog.get_by_role("button", name="Cancel").click()
    page.get_by_text("3 jobs found, 0 of them refused.").wait_for()
    until(lambda: all(work.client.job(f"bulk-{number}").phase == "CANCELLED" for number in range(3)))


def test_a_job_is_submitted_from_the_console_and_a_wrong_payload_is_explained(page: Any) -> None:
    main = show(page, "jobs", "Jobs")
    for payload, said in (("{nonsense", "Expected JSON as payload"), ('{"image": 1}', "image")):
        main.get_by_role("button", name="Submit a job").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Type").fill("image.guess")
        dialog.get_by_label("Payload, as JSON").fill(payload)
        dialog.get_by_role("button", name="Submit").click()
        page.locator("#said.bad", has_text=said).wait_for()
    main.get_by_role("button", name="Submit a job").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Type").fill("image.guess")
    dialog.get_by_label("Payload, as JSON").fill('{"image": "image:three"}')
    dialog.get_by_role("button", name="Submit").click()
    main.locator("h1").get_by_text("completed").wait_for()


def test_a_type_is_paused_and_resumed(page: Any, work: SimpleNamespace) -> None:
    main = show(page, "controls", "Controls")
    main.get_by_role("button", name="Pause…").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("pool:NAME or type:JOB_TYPE").fill("type:image.guess")
    dialog.get_by_role("button", name="Pause").click()
    row = main.get_by_role("row", name="type:image.guess")
    row.wait_for()
    assert "type:image.guess" in work.client.request("GET", "/v1/controls")["pauses"]
    row.get_by_role("button", name="Resume").click()
    row.wait_for(state="detached")


def test_a_dead_letter_is_looked_at_and_given_up(page: Any) -> None:
    main = show(page, "deadletters", "Dead letters")
    main.get_by_role("button", name="Redrive").first.click()
    page.get_by_role("dialog").get_by_role("button", name="Redrive").click()
    page.locator("#said.bad", has_text="Expected a record that can be read").wait_for()
    main.get_by_role("button", name="Give up").first.click()
    page.get_by_role("dialog").get_by_label("Why, for the log").fill("garbage of a test")
    page.get_by_role("dialog").get_by_role("button", name="Give up").click()
    main.get_by_text("None: every record could be used.").wait_for()


def test_the_audit_page_has_digests_and_checkpoints(page: Any) -> None:
    main = show(page, "audit", "Audit")
    digests = main.get_by_role("region", name="Digests").locator("tbody tr")
    assert digests.count() >= 8
    assert len(digests.first.locator(".digest").inner_text()) == 64
    main.get_by_role("region", name="Checkpoints").get_by_text("submissions/").first.wait_for()


def test_a_question_in_sql_is_answered_and_a_wrong_one_explained(page: Any) -> None:
    main = show(page, "query", "Query")
    main.get_by_label("SQL").fill("SELECT phase, count(*) AS jobs FROM jobs WHERE job_id = 'feed-1' GROUP BY ALL")
    page.keyboard.press("Control+Enter")
    main.get_by_role("cell", name="FAILED").wait_for()
    show(page, "query?sql=DROP%20TABLE%20events")
    page.get_by_role("alert").wait_for()


def test_keys_lead_everywhere(page: Any) -> None:
    show(page, "", "Overview")
    page.keyboard.press("?")
    page.get_by_role("dialog").get_by_role("button", name="Close").click()
    for key, heading in (("j", "Jobs"), ("t", "Truths"), ("a", "Audit"), ("o", "Overview")):
        page.keyboard.press("g")
        page.keyboard.press(key)
        page.get_by_role("heading", level=1, name=heading).wait_for()
    page.keyboard.press("/")
    page.keyboard.type("image:one")
    page.keyboard.press("Enter")
    page.get_by_role("heading", level=1, name="image:one").wait_for()
    page.get_by_role("button", name="Switch between dark and light").click()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_what_is_not_there_is_said(page: Any) -> None:
    show(page, "jobs/nobody")
    alert = page.get_by_role("alert")
    assert "Expected a job 'nobody', but the log does not know it." in alert.inner_text()


# For everybody


@pytest.mark.parametrize(
    ("size", "theme", "rules"),
    [
        (DESKTOP, "light", ()),
        (DESKTOP, "dark", ("color-contrast",)),
        (PHONE, "light", ("color-contrast", "scrollable-region-focusable")),
    ],
    ids=["desk", "dark", "phone"],
)
def test_every_page_is_accessible_and_as_wide_as_its_window(
    browser: Any, work: SimpleNamespace, size: tuple[int, int], theme: str, rules: tuple[str, ...]
) -> None:
    places = [
        *zip(PAGES, HEADINGS, strict=True), ("jobs/report-1", None), ("jobs/thumbnail-1?tab=graph", None),
        ("jobs/report-1?tab=events", None), ("truths/image:one?lineage=width", "image:one"),
    ]  # fmt: skip
    faults: dict[str, list[str]] = {}
    with opened(browser, work.stack, size, theme=theme) as page:
        for path, heading in places:
            show(page, path, heading)
            assert page.evaluate("document.documentElement.dataset.theme") == theme
            if found := serious_faults(page, *rules):
                faults[path] = found
            wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert wider <= 0, f"{path} is {wider} pixels wider than its window"
    assert faults == {}


def test_nothing_but_its_own_files_is_loaded_and_the_policy_is_strict(browser: Any, work: SimpleNamespace) -> None:
    answer = httpx.get(f"{work.url}/console/", verify=work.stack.verification())
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert "<script>" not in answer.text
    assert "style=" not in answer.text
    asked: list[str] = []
    with opened(browser, work.stack) as page:
        page.on("request", lambda request: asked.append(request.url))
        show(page, "", "Overview")
    assert [url for url in asked if not url.startswith((work.url, "data:"))] == []
