"""The pinned class path and its cache folder."""

import hashlib
from pathlib import Path

import pytest

from controlplane.local.jars import KAFKA_VERSION, Jar, cache_folder, missing_jars, parse_jars, pinned_jars


def jar(content: bytes) -> Jar:
    digest = hashlib.sha256(content).hexdigest()
    return Jar(group="org.example", artifact="part", version="1.0", sha256=digest, size_bytes=len(content))


def test_lines_are_coordinates_digests_and_sizes() -> None:
    jars = parse_jars("# why\n\norg.example:part:1.0 abc 12\norg.example:other-part:2 def 3\n")
    assert [(each.file_name, each.group, each.sha256, each.size_bytes) for each in jars] == [
        ("part-1.0.jar", "org.example", "abc", 12),
        ("other-part-2.jar", "org.example", "def", 3),
    ]


def test_the_pinned_class_path_holds_this_broker_once() -> None:
    jars = pinned_jars()
    assert f"kafka_2.13-{KAFKA_VERSION}.jar" in [each.file_name for each in jars]
    assert len({each.file_name for each in jars}) == len(jars)
    assert all(len(each.sha256) == 64 and each.size_bytes > 0 for each in jars)


def test_a_jar_that_is_cut_short_is_missing(tmp_path: Path) -> None:
    wanted = jar(b"whole")
    assert missing_jars((wanted,), tmp_path) == (wanted,)
    (tmp_path / wanted.file_name).write_bytes(b"whol")
    assert missing_jars((wanted,), tmp_path) == (wanted,)
    (tmp_path / wanted.file_name).write_bytes(b"whole")
    assert missing_jars((wanted,), tmp_path) == ()


def test_the_cache_folder_can_be_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CONTROLPLANE_CACHE_DIR", raising=False)
    usual = cache_folder()
    monkeypatch.setenv("CONTROLPLANE_CACHE_DIR", str(tmp_path))
    assert cache_folder() == tmp_path
    assert usual != tmp_path
