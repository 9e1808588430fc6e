"""The embedded stack on one data folder: a broker and Valkey that start together and come back where they were."""

import asyncio
import hashlib
import logging
import os
import sys
import tempfile
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Final, Self, TypeVar

import msgspec

from controlplane.local import kafka, valkey
from controlplane.local.errors import ChildNotReady, EmbeddedStackError, MissingDependency
from controlplane.local.folder import (
    HeldFolder,
    StackRecord,
    end_leftovers,
    hold,
    is_held,
    mark,
    now_text,
    read_record,
)
from controlplane.local.java import java_environment
from controlplane.local.kafka import KafkaCluster, KafkaNode, node_tls
from controlplane.local.ports import choose_port, is_free, wait_until_free
from controlplane.local.process import ON_CRASH, Child, Restart
from controlplane.local.supervisor import Supervisor
from controlplane.local.training import ready_java
from controlplane.local.valkey import ValkeyNode
from controlplane.log.connection import LogConnection
from controlplane.log.renewal import reload_certificates
from controlplane.security.certificates import ADMIN, BROKER, RENEW_WITHIN_DAYS, Outcome, ensure_certificates, tls_files
from controlplane.security.permissions import NAMESPACE, store_users

PLATFORMS: Final = ("linux", "darwin")
SOCKET_PATH_LIMIT_BYTES: Final = 100  # Linux allows 107, macOS 103.
START_ATTEMPTS: Final = 3
LET_GO_WITHIN_SECONDS: Final = 2.0
KAFKA_READY_WITHIN_SECONDS: Final = 60.0
KAFKA_STOP_WITHIN_SECONDS: Final = 20.0
VALKEY_READY_WITHIN_SECONDS: Final = 60.0  # It answers only when it has read its file.

_Part = TypeVar("_Part")
logger = logging.getLogger(__name__)


class Server:
    """One server of the stack: its process, and how a test ends and begins it."""

    def __init__(self, child: Child) -> None:
        """Wrap the child that runs the server."""
        self.child = child

    @property
    def pid(self) -> int | None:
        """The pid while the server's process lives."""
        return self.child.pid

    def start(self) -> None:
        """Start the server and wait until it serves.

        Raises:
            ChildNotReady: it does not serve within its bound.
        """
        self.child.start()

    def wait_ready(self) -> None:
        """Wait until the server serves, for instance after a crash that its restart heals.

        Raises:
            ChildNotReady: it does not serve within its bound.
        """
        self.child.wait_ready()

    def stop(self) -> None:
        """End the server in order and keep it down."""
        self.child.stop()

    def kill(self) -> None:
        """End the server by SIGKILL and keep it down until `start`."""
        self.child.kill()

    def suspend(self) -> None:
        """Freeze the server, as a stalled machine would."""
        self.child.suspend()

    def resume(self) -> None:
        """Let a frozen server go on."""
        self.child.resume()


class ValkeyServer(Server):
    """Valkey, which can also lose all that it knew."""

    def __init__(self, child: Child, node: ValkeyNode) -> None:
        """Wrap the child and remember where its data is."""
        super().__init__(child)
        self._node = node

    def wipe(self) -> None:
        """Kill the server and remove its data; `start` then begins an empty one."""
        self.kill()
        valkey.wipe_valkey(self._node)


class EmbeddedStack:
    """Kafka and Valkey of one data folder, and the supervisor that runs them and whatever else is added to it."""

    def __init__(
        self,
        data_dir: Path,
        *,
        restart: Restart = ON_CRASH,
        with_kafka: bool = True,
        with_valkey: bool = True,
        certificates: Path | None = None,
        namespace: str = NAMESPACE,
    ) -> None:
        """Prepare a stack; nothing runs before `start`.

        With a folder of certificates the broker speaks TLS, asks for client certificates, and lets in only what access rules allow, and
        Valkey gives each user only the commands that it needs on the keys of this namespace.
        """
        self.data_dir = Path(data_dir).absolute()
        self.certificates = None if certificates is None else Path(certificates).absolute()
        self._store_users = () if certificates is None else store_users(namespace)
        self.restart = restart
        self.supervisor = Supervisor(log_folder=self.data_dir / "logs", changed=self._record)
        self._with_kafka, self._with_valkey = with_kafka, with_valkey
        self._held: HeldFolder | None = None
        self._recording = Lock()
        self._record_now = StackRecord()
        self._kafka: Server | None = None
        self._valkey: ValkeyServer | None = None
        self._cluster: KafkaCluster | None = None
        self._valkey_node: ValkeyNode | None = None

    @property
    def kafka(self) -> Server:
        """The broker."""
        return _running(self._kafka, "Kafka")

    @property
    def valkey(self) -> ValkeyServer:
        """Valkey."""
        return _running(self._valkey, "Valkey")

    @property
    def kafka_bootstrap(self) -> str:
        """Where Kafka clients begin."""
        return _running(self._cluster, "Kafka").bootstrap

    @property
    def redis_url(self) -> str:
        """Valkey's URL through its Unix socket; it holds the password."""
        return _running(self._valkey_node, "Valkey").url

    def redis_url_of(self, user: str) -> str:
        """Valkey's URL for one user; without users that of everybody. It holds the password."""
        return _running(self._valkey_node, "Valkey").url_of(user)

    @property
    def redis_tcp_url(self) -> str:
        """Valkey's URL through its loopback port; it holds the password."""
        return _running(self._valkey_node, "Valkey").tcp_url

    def start(self) -> Self:
        """Start both servers and wait until they serve.

        Raises:
            FolderInUse: another stack runs on the folder.
            MissingDependency: a package is missing, or this platform has none.
            ChildNotReady: a server did not come up; the message quotes its log.
        """
        if sys.platform not in PLATFORMS:
            raise MissingDependency(
                f"Expected one of the platforms {', '.join(PLATFORMS)}, but this is {sys.platform}."
            )
        if self._held:
            raise EmbeddedStackError(f"Expected a stack that is down, but the one on {self.data_dir} runs.")
        self._held = hold(self.data_dir)
        try:
            before = read_record(self.data_dir)
            if before.supervisor_pid is not None:  # It did not stop in order.
                end_leftovers(before)
                wait_until_free(before.ports.values(), LET_GO_WITHIN_SECONDS)
            self._record_now = StackRecord(
                supervisor_pid=os.getpid(), started_at=now_text(), ports=before.ports,
                certificates=None if self.certificates is None else str(self.certificates),
            )  # fmt: skip
            if self.certificates is not None:
                ensure_certificates(self.certificates)
            if self._with_valkey:
                self._begin_valkey()
            if self._with_kafka:
                self._start_kafka()
            if self._with_valkey:
                self.valkey.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop everything that the supervisor runs, the last added first, and let go of the folder."""
        if self._held is None:
            return
        try:
            self.supervisor.stop()
        finally:
            held, self._held = self._held, None
            try:
                held.write(StackRecord(ports=self._record_now.ports))
            finally:
                held.release()
            self._kafka = self._valkey = self._cluster = self._valkey_node = None

    def renew_certificates(self, *, within_days: int = RENEW_WITHIN_DAYS) -> tuple[str, ...]:
        """Renew what ends within so many days and return whose it was; services look at their files, the broker is told.

        Raises:
            LogUnavailable: the broker goes on with the certificate in hand.
        """
        if self.certificates is None:
            return ()
        reports = ensure_certificates(self.certificates, renew_within_days=within_days)
        renewed = tuple(one.name for one in reports if one.outcome is not Outcome.KEPT)
        if BROKER in renewed and self._cluster is not None:
            files = node_tls(self.certificates)
            connection = LogConnection(bootstrap=self._cluster.bootstrap, tls=tls_files(self.certificates, ADMIN))
            asyncio.run(reload_certificates(connection, 1, str(files.keystore), str(files.truststore)))
        return renewed

    def publish(self, name: str, address: str) -> None:
        """Write into `stack.json` where something else can be found; no secrets."""
        self._remember(addresses={name: address})

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _begin_valkey(self) -> None:
        port = choose_port(self._record_now.ports.get("valkey"))
        folder = self.data_dir / "valkey"
        node = ValkeyNode(
            folder=folder, unix_socket=socket_path(self.data_dir), port=port, password=valkey.kept_password(folder),
            users=self._store_users,
        )  # fmt: skip
        self._remember(ports={"valkey": port}, addresses={"valkey": f"{node.host}:{port}"})
        child = self.supervisor.add(
            "valkey",
            valkey.prepare_valkey(node),
            ready=lambda: valkey.why_not_serving(node),
            restart=self.restart,
            ready_within_seconds=VALKEY_READY_WITHIN_SECONDS,
        )
        self._valkey, self._valkey_node = ValkeyServer(child, node), node

    def _start_kafka(self) -> None:
        for attempts_left in reversed(range(START_ATTEMPTS)):
            node = self._kafka_node()
            self._begin_kafka(node)
            try:
                self.kafka.wait_ready()
                return
            except ChildNotReady:
                # Between choosing a port and listening on it, another process may have taken it.
                self.kafka.stop()
                if attempts_left == 0 or (is_free(node.client_port) and is_free(node.controller_port)):
                    raise
                self.supervisor.remove("kafka")

    def _kafka_node(self) -> KafkaNode:
        remembered = self._record_now.ports
        taken = [remembered["valkey"]] if "valkey" in remembered else []
        client_port = choose_port(remembered.get("kafka"), taken)
        controller_port = choose_port(remembered.get("kafka_controller"), (*taken, client_port))
        return KafkaNode(
            node_id=1, client_port=client_port, controller_port=controller_port, folder=self.data_dir / "kafka",
            tls=None if self.certificates is None else node_tls(self.certificates),
        )  # fmt: skip

    def _begin_kafka(self, node: KafkaNode) -> None:
        cluster = KafkaCluster(nodes=(node,))
        self._remember(
            ports={"kafka": node.client_port, "kafka_controller": node.controller_port},
            addresses={"kafka": cluster.bootstrap},
        )
        child = self.supervisor.add(
            "kafka",
            kafka.prepare_node(ready_java(), node, cluster),
            whole_environment=java_environment(),
            ready=lambda: kafka.why_not_serving(node),
            restart=self.restart,
            ready_within_seconds=KAFKA_READY_WITHIN_SECONDS,
            stop_within_seconds=KAFKA_STOP_WITHIN_SECONDS,
        )
        self._kafka, self._cluster = Server(child), cluster

    def _remember(self, *, ports: dict[str, int] | None = None, addresses: dict[str, str] | None = None) -> None:
        with self._recording:
            record = self._record_now
            self._record_now = msgspec.structs.replace(
                record, ports=record.ports | (ports or {}), addresses=record.addresses | (addresses or {})
            )
        self._record()

    def _record(self) -> None:
        with self._recording:
            if self._held is None:
                return
            children = {name: mark(pid) for name, pid in self.supervisor.pids().items()}
            self._record_now = msgspec.structs.replace(self._record_now, children=children)
            try:
                self._held.write(self._record_now)
            except OSError as error:  # A full disk: whoever crashed of it has to come back all the same.
                logger.warning("Expected to write %s, but: %s. The next change is written.", self._held.folder, error)


def _running(part: _Part | None, name: str) -> _Part:
    if part is None:
        raise EmbeddedStackError(f"Expected {name} of a running embedded stack, but it does not run.")
    return part


class RunningStack(msgspec.Struct, frozen=True, kw_only=True):
    """Where a stack that another process runs can be found. The Redis URL holds the password."""

    supervisor_pid: int
    started_at: str
    kafka_bootstrap: str | None
    redis_url: str | None
    addresses: dict[str, str]
    children: dict[str, int]
    certificates: Path | None
    """Folder of the certificates that it is spoken to with; None: plain text."""


def find_running(data_dir: Path) -> RunningStack | None:
    """Return the stack that runs on the data folder, or None when none does."""
    folder = Path(data_dir).absolute()
    record = read_record(folder)
    if record.supervisor_pid is None or record.started_at is None or not is_held(folder):
        return None
    redis_url = None
    if "valkey" in record.addresses:
        valkey_folder = folder / "valkey"
        redis_url = ValkeyNode(
            folder=valkey_folder,
            unix_socket=socket_path(folder),
            port=record.ports["valkey"],
            password=valkey.kept_password(valkey_folder),
            users=() if record.certificates is None else store_users(NAMESPACE),
        ).url
    return RunningStack(
        supervisor_pid=record.supervisor_pid,
        started_at=record.started_at,
        kafka_bootstrap=record.addresses.get("kafka"),
        redis_url=redis_url,
        addresses=record.addresses,
        children={name: child.pid for name, child in record.children.items()},
        certificates=None if record.certificates is None else Path(record.certificates),
    )


def socket_path(data_dir: Path) -> Path:
    """Return where Valkey's Unix socket lies: in the data folder, or in a private temporary folder when that is too deep.

    Raises:
        EmbeddedStackError: that temporary folder belongs to someone else.
    """
    path = data_dir / "valkey" / "valkey.sock"
    if len(os.fsencode(path)) <= SOCKET_PATH_LIMIT_BYTES:
        return path
    name = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"controlplane-{os.getuid()}-{name}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.stat()
    if found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise EmbeddedStackError(f"Expected {folder} to be private to this user, but others may use it.")
    return folder / "valkey.sock"
