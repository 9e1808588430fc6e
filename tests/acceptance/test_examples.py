"""Every example of `examples/`, run as a reader would run it, on one real stack."""

import ast
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from controlplane.cli.stack import SystemStack
from controlplane.client import Client
from controlplane.local.ports import choose_port
from controlplane.settings import Settings
from tests.acceptance.test_gateway import until

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = ["Ada", "Grace", "Edsger"]
COMPLETED = {f"visit-{name}" for name in NAMES}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SystemStack]:
    """A stack with the first runner, and the conclusions of three jobs that the FastAPI example submitted."""
    with SystemStack(Settings(secure=False), tmp_path_factory.mktemp("stack"), free_ports=True) as stack:
        stack.add_runner("runner", "examples.first_runner:runner")
        with Client(stack.gateway_url) as client:
            until(lambda: client.runners().runners)
        yield stack


@pytest.fixture(scope="module")
def visited(stack: SystemStack) -> SystemStack:
    port = choose_port(None)
    with running(stack, "-m", "uvicorn", "fastapi_service:app", "--port", str(port)), httpx.Client(timeout=60) as http:
        url = f"http://127.0.0.1:{port}/visitors"
        until(lambda: answers(f"{url}/none"))
        for name in NAMES * 2:  # Twice: the same visit is the same job.
            assert http.post(f"{url}/visit-{name}", json={"name": name}).status_code == 202
        for name in NAMES:
            visit = until(lambda name=name: (answer := http.get(f"{url}/visit-{name}")).is_success and answer)
            assert visit.json() == {"text": f"Hello, {name}!"}  # Known once it is projected.
        assert http.get(f"{url}/never").status_code == 404
    return stack


def answers(url: str) -> bool:
    try:
        return bool(httpx.get(url).status_code)
    except httpx.TransportError:
        return False


@contextmanager
def running(stack: SystemStack, *argv: str) -> Iterator[list[str]]:
    """Run an example; yields the lines that it has printed so far."""
    environment = {**os.environ, **stack.environment(), "PYTHONPATH": str(EXAMPLES.parent)}
    lines: list[str] = []
    child = subprocess.Popen(
        [sys.executable, *argv],
        cwd=EXAMPLES,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert child.stdout is not None
    reading = threading.Thread(target=lines.extend, args=(child.stdout,), daemon=True)
    reading.start()
    try:
        yield lines
    finally:
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        reading.join()
        child.stdout.close()


def jobs_in(lines: list[str]) -> set[str]:
    return {line.split()[0] for line in list(lines) if line.startswith("visit-")}


@pytest.mark.parametrize(
    "argv",
    [["aiokafka_consumer.py"], ["confluent_consumer.py"], ["faust_consumer.py", "worker", "--without-web"]],
    ids=["aiokafka", "confluent-kafka", "faust"],
)
def test_consumers_see_the_conclusions(visited: SystemStack, argv: list[str]) -> None:
    with running(visited, *argv) as lines:
        until(lambda: jobs_in(lines) == COMPLETED)


def test_the_webhook_delivers_each_conclusion_also_when_the_receiver_fails_first(
    visited: SystemStack, tmp_path: Path
) -> None:
    taken: list[Any] = []
    refused: list[str] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            first = not refused
            (refused if first else taken).append(body)
            self.send_response(503 if first else 204)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url, positions = f"http://127.0.0.1:{server.server_port}", tmp_path / "positions.json"
    try:
        with running(visited, "webhook.py", url, str(positions)):
            until(lambda: {one["job_id"] for one in list(taken)} == COMPLETED)
            until(lambda: positions.exists() and sum(json.loads(positions.read_text())) >= len(COMPLETED))
        assert refused
        assert {one["job_id"]: one["result"] for one in taken}["visit-Ada"] == {"text": "Hello, Ada!"}
    finally:
        server.shutdown()
        server.server_close()


def test_exported_history_answers_duckdb(visited: SystemStack, tmp_path: Path) -> None:
    environment = {**os.environ, **visited.environment()}
    folder = str(tmp_path / "history")
    said = ""
    for argv in (["-m", "controlplane.cli.main", "export", folder], [str(EXAMPLES / "parquet_report.py"), folder]):
        done = subprocess.run(
            [sys.executable, *argv], env=environment, capture_output=True, text=True, timeout=110, check=False
        )
        assert done.returncode == 0, done.stderr
        said = done.stdout
    report = ast.literal_eval(said)
    assert dict(zip(report["event_type"], report["events"], strict=True))["JobCompleted"] == len(COMPLETED)
