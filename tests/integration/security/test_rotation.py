"""Certificates are replaced while brokers and services run: the next connection has the new one, and nobody restarts."""

import asyncio
import json
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from controlplane.events.catalog import Service
from controlplane.local.stack import EmbeddedStack, find_running
from controlplane.log.access import rules
from controlplane.log.connection import LogUnavailable
from controlplane.log.producer import LogProducer, OutgoingRecord
from controlplane.log.renewal import reload_certificates
from controlplane.security.certificates import (
    ADMIN,
    adopt_authority,
    announce_authority,
    ensure_certificates,
    retire_authorities,
    tls_files,
)
from controlplane.security.serving import OnlyPeers, serving
from controlplane.telemetry.health import health_app
from controlplane.tls import client_context
from tests.integration.security.conftest import Connect

pytestmark = pytest.mark.xdist_group("security")
WITHIN_SECONDS = 60.0
NOW = 90  # Days: whatever ends within them is renewed, so everything is.


def shown_at(port: int, certificates: Path) -> str:
    """Return the serial number of the certificate that a server shows."""
    context = client_context(tls_files(certificates, ADMIN))
    with (
        socket.create_connection(("127.0.0.1", port), 10) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secured,
    ):
        certificate = secured.getpeercert()
        assert certificate is not None
        return str(certificate["serialNumber"])


def command(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "controlplane.cli.main", *arguments], capture_output=True, text=True, check=False, timeout=120,
        env={"PATH": "/usr/bin:/bin", "CONTROLPLANE_DATA_DIR": str(folder)}, cwd=Path.cwd(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_command_renews_the_broker_and_connections_that_are_open_go_on(
    secured_stack: EmbeddedStack, connect: Connect
) -> None:
    certificates, folder = secured_stack.certificates, secured_stack.data_dir
    running = find_running(folder)
    assert certificates is not None
    assert running is not None
    ports = [int(running.kafka_bootstrap.rpartition(":")[2])] if running.kafka_bootstrap else []
    before = [shown_at(port, certificates) for port in ports]
    assert json.loads(command(folder, "acl", "apply", "--dry-run", "--json"))["added"] == []

    async def write_on_through_a_renewal() -> None:
        producer = LogProducer(connect(Service.RUNNER), service=Service.RUNNER)
        await producer.start()
        record = OutgoingRecord(topic="controlplane.joblogs", partition=0, key=b"k", value=b"v")
        first = (await producer.send([record]))[0].offset
        told = json.loads(await asyncio.to_thread(command, folder, "certs", "renew", "--json"))
        assert {one["outcome"] for one in told["identities"]} == {"renewed"}
        assert (await producer.send([record]))[0].offset == first + 1
        await producer.stop()

    asyncio.run(write_on_through_a_renewal())
    give_up_at = time.monotonic() + WITHIN_SECONDS
    while set(before) & {shown_at(port, certificates) for port in ports}:  # The broker learns of it from its own log.
        assert time.monotonic() < give_up_at
        time.sleep(0.1)
    asyncio.run(rules(connect(ADMIN)))


async def test_a_service_shows_its_renewed_certificate_and_forgets_a_retired_authority(tmp_path: Path) -> None:
    ensure_certificates(tmp_path, ["truthcore", "gateway", "runner"])
    app = OnlyPeers(health_app("test", {}), ["gateway"])
    async with serving(app, "127.0.0.1", 0, tls_files(tmp_path, "truthcore")) as port:
        url = f"https://127.0.0.1:{port}"
        before = await asyncio.to_thread(shown_at, port, _admin(tmp_path))
        ensure_certificates(tmp_path, ["truthcore"], renew_within_days=NOW)
        assert await asyncio.to_thread(shown_at, port, tmp_path) != before

        gateway, runner = tls_files(tmp_path, "gateway"), tls_files(tmp_path, "runner")
        old = client_context(gateway).fresh()  # type: ignore[attr-defined] # As a process that never looks again has it.
        async with httpx.AsyncClient(verify=client_context(gateway)) as one, httpx.AsyncClient(verify=client_context(runner)) as other:  # fmt: skip
            assert (await one.get(f"{url}/health/live")).status_code == 200
            assert (await one.get(f"{url}/nowhere")).status_code == 404
            assert (await other.get(f"{url}/metrics")).status_code == 200
            refused = await other.get(f"{url}/v1/jobs")
            assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
            assert refused.json()["message"] == "Expected a certificate of gateway, but found that of runner."
        announce_authority(tmp_path)
        adopt_authority(tmp_path)
        ensure_certificates(tmp_path, ["truthcore", "gateway"])
        retire_authorities(tmp_path)
        old.load_verify_locations(tmp_path / "ca.pem")
        async with httpx.AsyncClient(verify=old) as one:
            with pytest.raises(httpx.TransportError):
                await one.get(f"{url}/health/live")
        async with httpx.AsyncClient(verify=client_context(gateway)) as one:
            assert (await one.get(f"{url}/health/live")).status_code == 200
        async with httpx.AsyncClient() as plain:
            with pytest.raises(httpx.TransportError):
                await plain.get(f"http://127.0.0.1:{port}/health/live")


def _admin(folder: Path) -> Path:
    ensure_certificates(folder, [ADMIN])
    return folder


def test_a_stack_renews_what_is_due_and_leaves_the_rest(secured_stack: EmbeddedStack, connect: Connect) -> None:
    certificates, address = secured_stack.certificates, connect(ADMIN).bootstrap
    assert certificates is not None
    port = int(address.rpartition(":")[2])
    before = shown_at(port, certificates)
    assert secured_stack.renew_certificates() == ()
    assert set(secured_stack.renew_certificates(within_days=NOW)) >= {"broker", "gateway", ADMIN}
    give_up_at = time.monotonic() + WITHIN_SECONDS
    while shown_at(port, certificates) == before:
        assert time.monotonic() < give_up_at
        time.sleep(0.1)


async def test_files_that_the_broker_cannot_use_are_refused_and_it_goes_on(
    secured_stack: EmbeddedStack, connect: Connect, tmp_path: Path
) -> None:
    certificates = secured_stack.certificates
    assert certificates is not None
    (tmp_path / "broken.pem").write_text("nothing")
    with pytest.raises(LogUnavailable, match=r"broken\.pem"):
        await reload_certificates(connect(ADMIN), 1, str(tmp_path / "broken.pem"), str(certificates / "ca.pem"))
    await rules(connect(ADMIN))


async def test_a_client_without_a_certificate_is_refused_by_the_gateways_own_configuration(tmp_path: Path) -> None:
    ensure_certificates(tmp_path, ["gateway"])
    async with serving(health_app("test", {}), "127.0.0.1", 0, tls_files(tmp_path, "gateway")) as port:
        bare = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
        async with httpx.AsyncClient(verify=bare) as client:
            with pytest.raises(httpx.TransportError):
                await client.get(f"https://127.0.0.1:{port}/health/live")
