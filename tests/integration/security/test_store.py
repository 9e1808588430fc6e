"""JobForge's user of the schedule store may do what its code does on its own keys, and nothing else; and TLS by URL."""

import asyncio
import os
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib.resources import files
from pathlib import Path

import pytest
import redis
import redis.asyncio
import yaml
from redis.exceptions import AuthenticationError, NoPermissionError

from controlplane.events.catalog import Service
from controlplane.jobforge_agent.changes import Changes
from controlplane.jobforge_agent.service import store_url
from controlplane.jobforge_agent.store import Store
from controlplane.local.ports import choose_port
from controlplane.local.stack import EmbeddedStack
from controlplane.security.certificates import ensure_certificates, tls_files
from controlplane.security.permissions import CONNECTION_COMMANDS, JOBFORGE_COMMANDS
from controlplane.tls import server_context

pytestmark = pytest.mark.xdist_group("security")
ROOT = Path(__file__).parents[3]
SENT_AS = {
    "register_script": (),
    "pipeline": (),
    "execute": (),
    "aclose": (),
    "delete": ("del",),
    "incr": ("incr", "incrby"),
}
"""Methods of the client whose command has another name, or that send none."""


def commands_of_the_code() -> set[str]:
    """Every command that JobForge's modules send and that their scripts call, read from their source."""
    found: set[str] = set()
    for path in (files("controlplane.jobforge_agent") / "scripts").iterdir():
        found |= {name.lower() for name in re.findall(r"redis\.p?call\(\s*['\"](\w+)['\"]", path.read_text())}
    for path in files("controlplane.jobforge_agent").iterdir():
        if path.name.endswith(".py"):
            for name in re.findall(r"\b(?:_redis|pipe)\.([a-z]+\w*)\(", path.read_text()):
                found |= set(SENT_AS.get(name, (name,)))
    return found


def test_the_user_has_the_commands_of_the_code_and_no_other() -> None:
    assert commands_of_the_code() - {"ping"} == set(JOBFORGE_COMMANDS) - set(CONNECTION_COMMANDS)


async def test_the_store_works_as_its_user(secured_stack: EmbeddedStack) -> None:
    store = Store(secured_stack.redis_url_of(Service.JOBFORGE), "controlplane", "instance")
    await store.ping()
    await store.touch(1, {})
    owned = await store.own(0)
    assert await store.commit(Changes(), owned={0: owned}) == "ok"
    assert (await store.heads(1, 10, {"runner-1": 1})).jobs == []
    await store.runners.forget("runner-1")
    await store.controls.note([])
    assert await store.controls.load() is not None
    assert await store.outbox("instance") == {}
    await store.close()


@pytest.mark.parametrize(
    "command",
    [
        ("GET", "other:key"), ("SET", "{other}:job:1", "x"), ("MGET", "{controlplane}:registry", "{other}:registry"), ("KEYS", "*"), ("SCAN", "0"),
        ("FLUSHALL",), ("FLUSHDB",), ("CONFIG", "GET", "requirepass"), ("ACL", "LIST"), ("SHUTDOWN",), ("MONITOR",),
        ("SUBSCRIBE", "channel"), ("CLIENT", "LIST"), ("SCRIPT", "FLUSH"), ("RENAME", "{controlplane}:a", "{controlplane}:b"),
        ("EVAL", "return redis.call('get', 'other:key')", "0"), ("EVAL", "return redis.call('flushall')", "0"),
    ],
)  # fmt: skip
def test_whatever_else_is_refused(secured_stack: EmbeddedStack, command: tuple[str, ...]) -> None:
    with redis.Redis.from_url(secured_stack.redis_url_of(Service.JOBFORGE)) as client:
        with pytest.raises((NoPermissionError, redis.ResponseError), match=r"(?i)no permission|can't access|ACL"):
            client.execute_command(*command)
        assert client.ping()


def test_whoever_names_no_user_is_let_into_nothing(secured_stack: EmbeddedStack) -> None:
    place = secured_stack.redis_tcp_url.rpartition("@")[2]
    password = secured_stack.redis_tcp_url.partition("admin:")[2].partition("@")[0]
    for url in (f"redis://{place}", f"redis://:{password}@{place}", f"redis://jobforge:{password}@{place}"):
        with redis.Redis.from_url(url) as client, pytest.raises((AuthenticationError, redis.ResponseError)):
            client.ping()
    configuration = (secured_stack.data_dir / "valkey" / "valkey.conf").read_text()
    assert password not in configuration


# TLS by URL


@asynccontextmanager
async def terminated(tls: ssl.SSLContext, unix_socket: str) -> AsyncIterator[int]:
    """TLS in front of the embedded Valkey, which has none, as a proxy on the server's side gives it; yields the port."""

    async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65_536):
            sink.write(data)
            await sink.drain()
        sink.close()

    async def pair(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_unix_connection(unix_socket)
        await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer), return_exceptions=True)

    server = await asyncio.start_server(pair, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def held_to_certificates(url: str, folder: Path, stranger: Path) -> None:
    """The store works with the certificate of its service, and not with another authority's, nor without one."""
    store = Store(store_url(url, tls_files(folder, Service.JOBFORGE)), "controlplane", "instance")
    await store.ping()
    assert await store.runners.version() >= 0
    await store.close()
    for wrong in (store_url(url, tls_files(stranger, Service.JOBFORGE)), f"{url}?ssl_ca_certs={folder / 'ca.pem'}"):
        store = Store(wrong, "controlplane", "instance")
        with pytest.raises(redis.ConnectionError):
            await store.ping()
        await store.close()


async def test_tls_by_url(secured_stack: EmbeddedStack, tmp_path: Path) -> None:
    folder = secured_stack.certificates
    assert folder is not None
    ensure_certificates(tmp_path, [Service.JOBFORGE])
    url = secured_stack.redis_url_of(Service.JOBFORGE)
    credentials, _, rest = url.removeprefix("unix://").partition("@")
    async with terminated(server_context(tls_files(folder, Service.JOBFORGE)), rest.partition("?")[0]) as port:
        await held_to_certificates(f"rediss://{credentials}@127.0.0.1:{port}/0", folder, tmp_path)
    assert store_url(url, tls_files(folder, Service.JOBFORGE)) == url


def redis_with_tls() -> list[str]:
    """The command of a Redis or Valkey of this machine that speaks TLS; skips, saying why, where there is none."""
    for name in ("valkey-server", "redis-server", "redis-check-rdb"):
        if path := shutil.which(name):
            return [path, "redis-server"]  # Debian's redis-tools has the server under its other name.
    pytest.skip("Expected a Redis or Valkey server with TLS on this machine (Debian: redis-tools), but found none.")


@contextmanager
def running_redis(folder: Path) -> Iterator[str]:
    """The store of compose.secure.yaml, by its own command: it speaks nothing but TLS with client certificates."""
    path, name = redis_with_tls()
    port = choose_port(None)
    composed = yaml.safe_load((ROOT / "compose.secure.yaml").read_text())["services"]["redis"]["command"][1:]
    here = {"6379": str(port), "${REDIS_PASSWORD:-first-look}": "first-look"}
    settings = [here.get(one, one).replace("/run/secrets", str(folder)) for one in composed]
    settings += ["--bind", "127.0.0.1", "--dir", str(folder)]
    with subprocess.Popen([name, *settings], executable=path, stdout=subprocess.DEVNULL, env=os.environ) as process:
        try:
            for _ in range(600):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                assert process.poll() is None, "Expected the server to run with TLS, but it ended."
                subprocess.run(["sleep", "0.1"], check=True)  # noqa: S607
            yield f"rediss://:first-look@127.0.0.1:{port}/0"
        finally:
            process.terminate()


def test_a_server_that_speaks_tls_itself(tmp_path: Path) -> None:
    folder, stranger = tmp_path / "ours", tmp_path / "other"
    ensure_certificates(folder, ["redis", Service.JOBFORGE])
    ensure_certificates(stranger, [Service.JOBFORGE])
    with running_redis(folder) as url:
        asyncio.run(held_to_certificates(url, folder, stranger))
