"""The whole system on this machine: the embedded servers, or those that are configured, and the services beside them."""

import asyncio
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

from controlplane.client import Client
from controlplane.events.catalog import Service
from controlplane.local.errors import EmbeddedStackError
from controlplane.local.ports import choose_port, is_free, wait_until_free
from controlplane.local.process import Child
from controlplane.local.stack import LET_GO_WITHIN_SECONDS, EmbeddedStack
from controlplane.log.access import bring_about
from controlplane.log.connection import LogConnection, LogRefused, LogUnavailable
from controlplane.log.topics import ensure_topics
from controlplane.security.certificates import ADMIN, tls_files
from controlplane.security.permissions import grants, is_ours, store_users
from controlplane.settings import Settings, TlsFiles
from controlplane.tls import client_context

PROBE_SECONDS: Final = 2.0
READY_SECONDS: Final = 60.0
COPIED_SECONDS: Final = 600.0
"""A TruthCore that begins with a copy of another's file answers when it has read all of it."""
LET_IN_WITHIN_SECONDS: Final = 60.0
LET_IN_AGAIN_SECONDS: Final = 0.2
STORE_USERS: Final = (ADMIN, *(user.name for user in store_users()))
"""Who is told where the schedule store is."""


def answers(url: str, tls: TlsFiles | None = None) -> str | None:
    """Return None when a service is ready at a URL, or what was found instead."""
    context = client_context(tls) if tls else None
    try:
        with urllib.request.urlopen(url, timeout=PROBE_SECONDS, context=context) as response:  # noqa: S310 -- our own URL
            return None if response.status == 200 else f"it answered {response.status}"
    except (urllib.error.URLError, OSError) as error:
        return str(error)


async def let_in(administrator: LogConnection, settings: Settings) -> None:
    """Give each service its rights on a broker that has just started, and make the topics, which no service may.

    Raises:
        LogUnavailable: the broker does not answer within the bound; LogRefused: it refuses this administrator.
    """
    give_up_at = time.monotonic() + LET_IN_WITHIN_SECONDS
    while True:
        try:
            await ensure_topics(administrator, settings)
            await bring_about(administrator, grants(), is_ours)
        except LogRefused:
            raise
        except LogUnavailable:  # It answers before it has told itself that it is there.
            if time.monotonic() >= give_up_at:
                raise
            await asyncio.sleep(LET_IN_AGAIN_SECONDS)
        else:
            return


class SystemStack:
    """Kafka, Valkey, JobForge, TruthCore and the gateway, started together and stopped in order; runners are added."""

    def __init__(
        self,
        settings: Settings,
        data_dir: Path,
        *,
        agents: int = 1,
        replicas: int = 1,
        shards: int = 1,
        free_ports: bool = False,
    ) -> None:
        """Prepare the stack in a data folder, with so many TruthCore processes for each shard of the log.

        `free_ports` is for tests and benches, that run beside others.
        """
        self._settings = settings
        self._data_dir = data_dir
        self._agents = agents
        self._replicas = replicas
        self._shards = shards
        self._free_ports = free_ports
        self.certificates = (settings.certificates_dir or data_dir / "certificates") if settings.secure else None
        """Folder of the identities with which everything here is spoken to; None: plain text."""
        self.embedded = EmbeddedStack(
            data_dir, with_kafka=settings.kafka_bootstrap is None, with_valkey=settings.redis_url is None,
            certificates=self.certificates, namespace=settings.redis_namespace,
        )  # fmt: skip
        self.gateway_url = ""
        self.truthcore_url = ""
        self.truthcore_urls: dict[str, str] = {}
        self.health_urls: dict[str, str] = {}
        """Of the services that serve nothing but health and metrics, by name."""
        self.kafka_bootstrap = ""
        self.services: dict[str, Child] = {}

    def __enter__(self) -> Self:
        """Start everything; returns when all of it is ready."""
        self.embedded.start()
        try:
            self._start_services()
        except BaseException:
            self.embedded.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop everything, in reverse order."""
        self.embedded.stop()

    def tls(self, identity: str = ADMIN) -> TlsFiles | None:
        """Return the files of an identity of this stack; None when it speaks plain text."""
        return tls_files(self.certificates.absolute(), identity) if self.certificates else None

    def client(self, identity: str = ADMIN) -> Client:
        """Return a client of the gateway."""
        return Client(self.gateway_url, tls=self.tls(identity))

    def connection(self, identity: str = ADMIN) -> LogConnection:
        """Return the connection of an identity to the log."""
        return LogConnection(
            bootstrap=self.kafka_bootstrap, tls=self._settings.kafka_tls or self.tls(identity), cloudevents=self._settings.cloudevents
        )  # fmt: skip

    @property
    def scheme(self) -> str:
        """How URLs of this stack begin: https when it is secured."""
        return "https" if self.certificates else "http"

    def verification(self, identity: str = ADMIN) -> ssl.SSLContext | bool:
        """Return how httpx checks a server of this stack, and what it shows to it."""
        tls = self.tls(identity)
        return client_context(tls) if tls else True

    def environment(self, identity: str = ADMIN) -> dict[str, str]:
        """Return the variables that lead a process of this machine to this stack, as an identity of it."""
        variables = {
            "CONTROLPLANE_KAFKA_BOOTSTRAP": self.kafka_bootstrap,
            "CONTROLPLANE_DATA_DIR": str(self._data_dir),
            "CONTROLPLANE_GATEWAY_URL": self.gateway_url,
            "CONTROLPLANE_TRUTHCORE_URLS": ",".join(self.truthcore_urls.values()) or self.truthcore_url,
        }
        if identity in STORE_USERS:
            redis = self._settings.redis_url
            variables["CONTROLPLANE_REDIS_URL"] = (
                redis.get_secret_value() if redis else self.embedded.redis_url_of(identity)
            )
        if tls := self.tls(identity):
            variables |= {
                "CONTROLPLANE_TLS_CA": str(tls.ca),
                "CONTROLPLANE_TLS_CERTIFICATE": str(tls.certificate),
                "CONTROLPLANE_TLS_KEY": str(tls.key),
            }
        return variables

    def _port(
        self, setting: Literal["gateway_port", "truthcore_port"], number: int = 0, taken: Sequence[int] = ()
    ) -> int:
        """Return the port of one of several processes: one after the other from the setting on, another where a program has one that nobody chose.

        A child that was given 0, or a port of others, would not be where it is looked for, and others would answer in its place.

        Raises:
            EmbeddedStackError: a program has the port that was chosen.
        """
        first: int = getattr(self._settings, setting)
        if self._free_ports or first == 0:
            return choose_port(None, taken)
        port = first + number
        wait_until_free([port], LET_GO_WITHIN_SECONDS)  # By what an earlier stack of this folder left behind.
        if setting in self._settings.model_fields_set and not is_free(port):
            raise EmbeddedStackError(
                f"Expected port {port} (CONTROLPLANE_{setting.upper()}) to be free, but another program has it."
            )
        return choose_port(port, taken)

    def _start_services(self) -> None:
        settings = self._settings
        self.kafka_bootstrap = settings.kafka_bootstrap or self.embedded.kafka_bootstrap
        if self.certificates is not None:
            asyncio.run(let_in(self.connection(), settings))
        gateway = self._port("gateway_port")
        scheme = self.scheme
        self.gateway_url = f"{scheme}://{settings.gateway_host}:{gateway}"
        known = {"CONTROLPLANE_IDENTITIES": str(settings.identities.absolute())} if settings.identities else {}
        ports = {"CONTROLPLANE_GATEWAY_PORT": str(gateway)}
        self._start_truthcores(scheme)
        for number in range(self._agents):
            health = choose_port(None)
            name = "jobforge" if number == 0 else f"jobforge-{number + 1}"
            variables = {"CONTROLPLANE_HEALTH_PORT": str(health)}
            self.health_urls[name] = f"{scheme}://{settings.health_host}:{health}"
            self._service(name, variables, f"{self.health_urls[name]}/health/ready")
        self._service("gateway", ports | known, f"{self.gateway_url}/health/live")
        health = choose_port(None)
        self.health_urls["notary"] = f"{scheme}://{settings.health_host}:{health}"
        self._service("notary", {"CONTROLPLANE_HEALTH_PORT": str(health)}, f"{self.health_urls['notary']}/health/live")
        self.embedded.supervisor.wait_ready()
        self.embedded.publish("gateway", self.gateway_url)
        self.embedded.publish("truthcore", self.truthcore_url)

    def _start_truthcores(self, scheme: str) -> None:
        """Start every replica of every shard, each on a port and a file of its own; every one knows all of them."""
        settings = self._settings
        names = ["truthcore", *(f"truthcore-{number}" for number in range(2, self._replicas * self._shards + 1))]
        ports: list[int] = []
        for number in range(len(names)):
            ports.append(self._port("truthcore_port", number, ports))
        self.truthcore_urls = {
            name: f"{scheme}://{settings.truthcore_host}:{port}" for name, port in zip(names, ports, strict=True)
        }
        self.truthcore_url = self.truthcore_urls[names[0]]
        part = (
            f"-of-{self._shards}" if self._shards > 1 else ""
        )  # Another number of shards folds the log into other files.
        files = {name: self._data_dir / f"{name}{part}.duckdb" for name in names}
        if not part and settings.truthcore_database is not None:
            files["truthcore"] = settings.truthcore_database
        shards = {name: number % self._shards for number, name in enumerate(names)}
        begun = {shards[name] for name in names if files[name].exists()}
        new = [name for name in names if not files[name].exists() and shards[name] in begun]
        # Those that have a file answer first: a new one of the same shard begins with a copy of theirs, and folds only the tail.
        for name, port in sorted(zip(names, ports, strict=True), key=lambda one: one[0] in new):
            variables = {
                "CONTROLPLANE_TRUTHCORE_PORT": str(port), "CONTROLPLANE_TRUTHCORE_NAME": name,
                "CONTROLPLANE_TRUTHCORE_SHARD": f"{shards[name]}/{self._shards}", "CONTROLPLANE_TRUTHCORE_DATABASE": str(files[name]),
            }  # fmt: skip
            if name in new:
                self.embedded.supervisor.wait_ready()
                variables["CONTROLPLANE_TRUTHCORE_SNAPSHOT"] = settings.truthcore_snapshot or "peers"
            within = COPIED_SECONDS if name in new else READY_SECONDS
            self._service(name, variables, f"{self.truthcore_urls[name]}/health/live", within)

    def _service(
        self, name: str, variables: Mapping[str, str], url: str, within_seconds: float = READY_SECONDS
    ) -> None:
        argv = [sys.executable, "-m", "controlplane.cli.main", "service", name.partition("-")[0]]
        self.services[name] = self._add(name, argv, name.partition("-")[0], variables, url, within_seconds)

    def _add(
        self, name: str, argv: list[str], identity: str, variables: Mapping[str, str], url: str | None,
        within_seconds: float = READY_SECONDS,
    ) -> Child:  # fmt: skip
        probe = (lambda: answers(url, self.tls())) if url else (lambda: None)
        environment = {**self.environment(identity), **variables, "PYTHONPATH": _python_path()}
        return self.embedded.supervisor.add(name, argv, environment, ready=probe, ready_within_seconds=within_seconds)

    def add_runner(self, name: str, place: str, *, slots: int | None = None) -> Child:
        """Start a runner process beside the services."""
        argv = [sys.executable, "-m", "controlplane.cli.main", "runner", place]
        if slots is not None:
            argv += ["--slots", str(slots)]
        child = self.services[name] = self._add(name, argv, Service.RUNNER, {}, None)
        return child


def _python_path() -> str:
    """Return a path on which children find what this process finds."""
    return os.pathsep.join([str(Path.cwd()), *filter(None, [os.environ.get("PYTHONPATH")])])
