"""The probe of containers: ready, not ready, nobody there; in plain text and with certificates."""

import asyncio
from pathlib import Path

import pytest

from controlplane.security.certificates import ensure_certificates, tls_files
from controlplane.security.serving import serving
from controlplane.settings import Settings
from controlplane.telemetry.health import Dependency, State, health_app
from controlplane.telemetry.probe import fault


@pytest.mark.parametrize("secure", [False, True])
async def test_the_probe_says_what_the_service_says(secure: bool, tmp_path: Path) -> None:
    settings = Settings()
    if secure:
        ensure_certificates(tmp_path, ["jobforge"])
        files = tls_files(tmp_path, "jobforge")
        settings = Settings(tls_ca=files.ca, tls_certificate=files.certificate, tls_key=files.key)
    state = State.OK

    async def log() -> Dependency:
        return Dependency(state=state)

    async with serving(health_app("jobforge", {"log": log}), "127.0.0.1", 0, settings.tls) as port:
        assert await asyncio.to_thread(fault, port, settings) is None
        state = State.DOWN
        assert "503" in str(await asyncio.to_thread(fault, port, settings))
        if secure:
            assert (
                await asyncio.to_thread(fault, port, Settings()) is not None
            )  # Without a certificate nobody is answered.
    assert "refused" in str(fault(port, settings))
