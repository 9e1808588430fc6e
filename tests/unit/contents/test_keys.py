"""What is encrypted opens with its own key alone, and with none once that was forgotten."""

import errno
import fcntl
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.contents import keys
from controlplane.contents.files import LOCK
from controlplane.contents.keys import KeyForgotten, KeyMissing, KeyRing, kept_master_key
from controlplane.contents.store import ContentStore
from controlplane.events.types import Content

MASTER = bytes(range(32))


def ring(folder: Path, master: bytes = MASTER) -> KeyRing:
    return KeyRing(folder.as_uri(), master)


@given(data=st.binary(max_size=100), name=st.text(min_size=1, max_size=20))
def test_it_opens_with_its_own_key(tmp_path_factory: pytest.TempPathFactory, data: bytes, name: str) -> None:
    folder = tmp_path_factory.mktemp("keys")
    hidden = ring(folder).encrypt(name, data)
    assert len(data) < 4 or data not in hidden
    assert ring(folder).decrypt(name, hidden) == data


def test_nothing_else_opens_it(tmp_path: Path) -> None:
    own = ring(tmp_path)
    hidden = own.encrypt("acme/a", b"secret")
    own.encrypt("acme/b", b"")
    faults: list[tuple[KeyRing, str, bytes]] = [
        (own, "acme/b", hidden),
        (own, "acme/none", hidden),
        (ring(tmp_path, bytes(32)), "acme/a", hidden),
        (own, "acme/a", b""),
        *((own, "acme/a", hidden[:at] + bytes([hidden[at] ^ 1]) + hidden[at + 1 :]) for at in range(len(hidden))),
    ]
    for opener, name, data in faults:
        with pytest.raises(KeyMissing):
            opener.decrypt(name, data)


def test_what_was_forgotten_is_so_for_everybody_and_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "REMEMBERED_SECONDS", 0.0)
    one, other = ring(tmp_path), ring(tmp_path)
    hidden = one.encrypt("acme/a", b"secret")
    assert other.decrypt("acme/a", hidden) == b"secret"
    assert (one.forget("acme/a"), one.forget("acme/a"), one.forget("acme/never")) == (True, False, False)
    for each in (one, other):
        with pytest.raises(KeyForgotten):
            each.decrypt("acme/a", hidden)
        with pytest.raises(KeyForgotten):
            each.encrypt("acme/a", b"again")
    kept = {file.read_bytes() for file in tmp_path.rglob("*") if file.is_file() and file.name != LOCK}
    assert kept == {b"forgotten"}


def test_two_that_make_a_key_at_once_have_the_same(tmp_path: Path) -> None:
    one, other = ring(tmp_path), ring(tmp_path)
    first, second = one.encrypt("k", b"1"), other.encrypt("k", b"2")
    assert (other.decrypt("k", first), one.decrypt("k", second)) == (b"1", b"2")


def elsewhere(name: str, master: bytes = MASTER) -> KeyRing:
    """Return a ring whose keys are not in a folder."""
    return KeyRing(f"memory://{name}", master)


def test_a_key_that_came_in_between_is_not_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for one, late in ((ring(tmp_path), ring(tmp_path)), (elsewhere("between"), elsewhere("between"))):
        hidden = one.encrypt("k", b"1")
        read, looks = late._files.read, iter([b""])  # It looked before the other wrote.
        monkeypatch.setattr(late._files, "read", lambda name, read=read, looks=looks: next(looks, None) or read(name))
        assert one.decrypt("k", late.encrypt("k", b"2")) == b"2"
        assert late.decrypt("k", hidden) == b"1"


def key_file(folder: Path) -> Path:
    [found] = [one for one in folder.rglob("*") if one.is_file() and len(one.name) == 64]
    return found


def test_an_empty_file_where_a_key_should_be_is_no_key(tmp_path: Path) -> None:
    ring(tmp_path).encrypt("k", b"1")
    key_file(tmp_path).write_bytes(b"")  # A release before this one crashed here.
    with pytest.raises(KeyMissing, match="there is none"):
        ring(tmp_path).decrypt("k", b"x" * 40)
    one, other = ring(tmp_path), ring(tmp_path)
    assert other.decrypt("k", one.encrypt("k", b"2")) == b"2"
    assert one.decrypt("k", other.encrypt("k", b"3")) == b"3"


@pytest.mark.parametrize("call", ["fsync", "link", "unlink"])
def test_a_crash_while_a_key_is_made_leaves_none_or_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    class Crash(BaseException):
        pass

    def crash(*_: object, **__: object) -> None:
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(os, call, crash)
        with pytest.raises(Crash):
            ring(tmp_path).encrypt("k", b"1")
    one, other = ring(tmp_path), ring(tmp_path)
    assert other.decrypt("k", one.encrypt("k", b"2")) == b"2"


def test_nobody_sees_a_key_before_it_is_whole(tmp_path: Path) -> None:
    rings = [ring(tmp_path) for _ in range(8)]
    for name in map(str, range(20)):
        start = threading.Barrier(len(rings))

        def hide(one: KeyRing, name: str = name, start: threading.Barrier = start) -> bytes:
            start.wait()
            return one.encrypt(name, b"data")

        with ThreadPoolExecutor(len(rings)) as threads:
            hidden = list(threads.map(hide, rings))
        assert {ring(tmp_path).decrypt(name, one) for one in hidden} == {b"data"}


def test_a_key_is_forgotten_where_there_are_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    one = ring(tmp_path)
    hidden = one.encrypt("k", b"1")
    assert one.forget("k")
    with pytest.raises(KeyForgotten):
        one.decrypt("k", hidden)


def test_where_a_file_has_one_name_only_the_first_key_stays_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    one, other = ring(tmp_path / "keys"), ring(tmp_path / "keys")
    assert other.decrypt("k", one.encrypt("k", b"1")) == b"1"
    read = other._files.read
    other._remembered.clear()
    looks = iter([b""])
    monkeypatch.setattr(other._files, "read", lambda name: next(looks, None) or read(name))
    assert one.decrypt("k", other.encrypt("k", b"2")) == b"2"
    assert kept_master_key(tmp_path / "master.key") == kept_master_key(tmp_path / "master.key")


def test_the_master_key_is_made_once_and_its_owners_alone(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "master.key"
    assert kept_master_key(file) == kept_master_key(file)
    assert file.stat().st_mode & 0o077 == 0
    file.write_bytes(b"short")
    with pytest.raises(KeyMissing, match="Expected 32 bytes"):
        kept_master_key(file)


@pytest.mark.parametrize("size", [5, 500])
def test_content_is_kept_encrypted_inline_and_outside(tmp_path: Path, size: int) -> None:
    store = ContentStore((tmp_path / "c").as_uri(), inline_limit_bytes=100, keys=ring(tmp_path / "k"))
    clear = b"confidential"[:size] * (size // 5)
    kept = store.check_in(Content(data=clear), key_id="acme/a")
    assert (kept.encryption_key_id, clear in kept.data, kept.reference is None) == ("acme/a", False, size == 5)
    assert all(clear not in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert store.check_out(kept) == clear
    without = ContentStore((tmp_path / "c").as_uri(), inline_limit_bytes=100)
    with pytest.raises(KeyMissing):
        without.check_out(kept)
