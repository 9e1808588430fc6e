"""Valkey's configuration, URLs and kept password."""

import stat
from pathlib import Path

from controlplane.local.valkey import ValkeyNode, kept_password, valkey_configuration


def node(folder: str = "/data/valkey", password: str = "se/cret") -> ValkeyNode:
    return ValkeyNode(folder=Path(folder), unix_socket=Path("/run/valkey.sock"), port=7001, password=password)


def test_every_write_is_on_disk_within_a_second_and_none_is_evicted() -> None:
    lines = valkey_configuration(node()).splitlines()
    assert {"appendonly yes", "appendfsync everysec", "maxmemory-policy noeviction", "bind 127.0.0.1"} <= set(lines)


def test_values_are_quoted() -> None:
    lines = valkey_configuration(node(folder='/a "b"', password="p\\q")).splitlines()
    assert r'dir "/a \"b\"/data"' in lines
    assert r'requirepass "p\\q"' in lines


def test_urls_carry_the_password_escaped() -> None:
    assert node().url == "unix://:se%2Fcret@/run/valkey.sock?db=0"
    assert node().tcp_url == "redis://:se%2Fcret@127.0.0.1:7001/0"


def test_password_is_made_once_and_private(tmp_path: Path) -> None:
    folder = tmp_path / "valkey"
    first = kept_password(folder)
    assert len(first) >= 32
    assert kept_password(folder) == first
    assert kept_password(tmp_path / "other") != first
    assert stat.S_IMODE((folder / "password").stat().st_mode) == 0o600
