"""Ports of the whole system: what is configured, and free ones that everybody knows where 0 is."""

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from controlplane.cli.stack import SystemStack
from controlplane.local.errors import EmbeddedStackError
from controlplane.settings import Settings


def started(
    settings: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[SystemStack, dict[str, tuple[int, int]]]:
    """Return a stack whose services are not started, and for each the port that it was given and the one it is waited for at."""
    found: dict[str, tuple[int, int]] = {}

    def service(_: SystemStack, name: str, variables: Mapping[str, str], url: str, __: float = 0) -> None:
        given = next(value for variable, value in variables.items() if variable.endswith("_PORT"))
        found[name] = (int(given), urlsplit(url).port or 0)

    monkeypatch.setattr(SystemStack, "_service", service)
    stack = SystemStack(settings, folder, replicas=2)
    monkeypatch.setattr(stack.embedded, "publish", lambda *_: None)
    monkeypatch.setattr(stack.embedded.supervisor, "wait_ready", lambda: None)
    stack._start_services()
    return stack, found


@pytest.mark.parametrize("zero", [True, False])
def test_every_service_is_waited_for_where_it_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zero: bool
) -> None:
    ports: dict[str, Any] = (
        {"gateway_port": 0, "truthcore_port": 0} if zero else {"gateway_port": 18123, "truthcore_port": 18200}
    )
    settings = Settings(kafka_bootstrap="127.0.0.1:1", redis_url="redis://127.0.0.1:1", **ports)
    stack, found = started(settings, tmp_path, monkeypatch)
    assert all(given == asked > 1023 for given, asked in found.values())
    assert len(set(found.values())) == len(found)
    if not zero:
        assert [found[name][0] for name in ("gateway", "truthcore", "truthcore-2")] == [18123, 18200, 18201]
    assert urlsplit(stack.gateway_url).port == found["gateway"][0]
    assert stack.environment()["CONTROLPLANE_GATEWAY_URL"] == stack.gateway_url


@pytest.mark.parametrize("chosen", [True, False])
def test_a_port_that_another_program_has_is_not_taken_for_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: bool
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        monkeypatch.setattr("controlplane.cli.stack.LET_GO_WITHIN_SECONDS", 0.0)
        ports: dict[str, Any] = {"gateway_port": taken} if chosen else {}
        settings = Settings(kafka_bootstrap="127.0.0.1:1", redis_url="redis://127.0.0.1:1", truthcore_port=0, **ports)
        if chosen:
            with pytest.raises(EmbeddedStackError, match=f"port {taken} .CONTROLPLANE_GATEWAY_PORT. to be free"):
                started(settings, tmp_path, monkeypatch)
        else:
            settings = settings.model_copy(update={"gateway_port": taken})
            settings.model_fields_set.discard("gateway_port")
            assert started(settings, tmp_path, monkeypatch)[1]["gateway"][0] != taken
