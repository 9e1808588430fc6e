"""A headless Chromium for the console's tests: the one that the machine has; nothing is downloaded."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest

from controlplane.cli.stack import SystemStack

NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
FLAGS: Final = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
WAIT_MILLISECONDS: Final = 30_000
DESKTOP: Final = (1280, 900)
PHONE: Final = (375, 740)
HARMLESS: Final = "Failed to load resource"
"""What a browser says of any answer that is not 2xx; the console shows those to the reader."""


@contextmanager
def chromium() -> Iterator[Any]:
    """Yield a browser with an empty profile; skips the test, visibly, where none is installed."""
    sync_api = pytest.importorskip("playwright.sync_api")
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"Expected a browser to drive the console, but none of {', '.join(NAMES)} is installed.")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Any, stack: SystemStack, size: tuple[int, int] = DESKTOP, *, theme: str = "light") -> Iterator[Any]:
    """Yield a page of the console in a session of its own; fails when a script of it did, or broke the security policy."""
    secured: dict[str, Any] = {}
    if tls := stack.tls():
        shown = {"origin": stack.gateway_url, "certPath": str(tls.certificate), "keyPath": str(tls.key)}
        # The development CA is not one of the browser's.
        secured = {"client_certificates": [shown], "ignore_https_errors": True}
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme=theme, base_url=stack.gateway_url, **secured
    )
    context.set_default_timeout(WAIT_MILLISECONDS)
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error.stack)))
    page.on(
        "console", lambda said: faults.append(said.text) if said.type == "error" and HARMLESS not in said.text else None
    )
    try:
        yield page
        assert not faults, faults
    finally:
        context.close()


def show(page: Any, path: str, heading: str | None = None) -> Any:
    """Go to a page of the console and return its main part, once it is drawn."""
    page.goto(f"/console/#/{path}")
    main = page.locator("main:not([aria-busy])")
    if heading is not None:
        main.get_by_role("heading", level=1, name=heading).wait_for()
    else:
        main.locator("h1").wait_for()
    return main


def serious_faults(page: Any, *rules: str) -> list[str]:
    """Return what axe-core finds that keeps people from using the page, by all of its rules or by these."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    options = {"runOnly": {"type": "rule", "values": list(rules)}} if rules else {}
    found = axe.Axe().run(page, options=options).response["violations"]
    return [
        f"{one['id']}: {one['nodes'][0]['html'][:200]}" for one in found if one["impact"] in ("serious", "critical")
    ]
