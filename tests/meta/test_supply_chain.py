"""What the product is made of is known: a bill of materials of each lock file, and what is known against its parts."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.utils import canonicalize_name

from tests.meta.repository import ROOT
from tests.meta.test_lock import LOCKS, pins
from tools.audit_dependencies import judged
from tools.sbom import UNTOLD, bill

LOCK = "example==1.0.0 \\\n    --hash=sha256:" + "0" * 64 + "\n"
FLAW = {
    "id": "PYSEC-0000-1",
    "schema_version": "1.4.0",
    "summary": "for this test",
    "affected": [
        {
            "package": {"name": "example", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.0.1"}]}],
            "versions": ["1.0.0"],
        }
    ],
}


@cache
def written(lock: str) -> str:
    return bill((ROOT / lock).read_bytes())


@pytest.mark.parametrize("lock", LOCKS)
def test_the_bill_of_materials_names_everything_that_is_locked(lock: str) -> None:
    components = json.loads(written(lock))["components"]
    assert {(canonicalize_name(one["name"]), one["version"]) for one in components} == pins(lock)
    assert [one["name"] for one in components if not any("sha256" in p["name"] for p in one["properties"])] == []


@pytest.mark.parametrize("lock", LOCKS)
def test_the_bill_of_materials_is_valid_and_always_the_same(lock: str) -> None:
    pytest.importorskip("jsonschema")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(written(lock)) is None
    assert bill((ROOT / lock).read_bytes()) == written(lock)


def test_every_part_of_the_image_has_its_license_or_says_why_not() -> None:
    components = json.loads(written("deploy/runtime.lock"))["components"]
    silent = [
        one["name"]
        for one in components
        if not one.get("licenses") and UNTOLD not in {p["name"] for p in one["properties"]}
    ]
    assert silent == []
    assert sum(bool(one.get("licenses")) for one in components) > 0.8 * len(components)


def test_what_was_not_looked_up_is_not_called_clean() -> None:
    skipped = judged(
        {"dependencies": [{"name": "a", "skip_reason": "not found"}, {"name": "b", "version": "1", "vulns": []}]}
    )
    assert not skipped.complete
    assert "NOT AUDITED: 1 of 2" in skipped.words
    assert not judged({"dependencies": []}).complete
    assert judged({"dependencies": [{"name": "b", "version": "1", "vulns": []}]}).complete


@pytest.fixture
def database() -> Iterator[tuple[str, dict[str, Any]]]:
    """A database of vulnerabilities that gives this answer to every question."""
    answer: dict[str, Any] = {}

    class Answering(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            content = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1/query", answer
        server.shutdown()
        thread.join()


def audit(lock: Path, url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tools.audit_dependencies", str(lock), *arguments], cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "PIP_AUDIT_OSV_URL": url, "HOME": str(lock.parent)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_known_vulnerability_is_found_and_a_database_out_of_reach_is_said(
    database: tuple[str, dict[str, Any]], tmp_path: Path
) -> None:
    url, answer = database
    lock = tmp_path / "example.lock"
    lock.write_text(LOCK)
    clean = audit(lock, url, "--strict")
    assert (clean.returncode, "1 of 1 packages looked up, 0 vulnerabilities known." in clean.stderr) == (0, True), (
        clean.stderr
    )
    answer["vulns"] = [FLAW]
    found = audit(lock, url)
    assert found.returncode == 1, found.stderr
    assert "KNOWN VULNERABILITY: example 1.0.0: PYSEC-0000-1, repaired in 1.0.1" in found.stderr
    unreachable = "http://127.0.0.1:9/v1/query"  # The discard service: nobody listens.
    silent = audit(lock, unreachable)
    assert silent.returncode == 0
    assert silent.stderr.startswith("NOT AUDITED: no package")
    assert audit(lock, unreachable, "--strict").returncode == 3
