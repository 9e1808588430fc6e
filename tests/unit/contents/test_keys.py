"""What is encrypted opens with its own key alone, and with none once that was forgotten."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.contents import keys
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
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and file.read_bytes() != b"forgotten"]


def test_two_that_make_a_key_at_once_have_the_same(tmp_path: Path) -> None:
    one, other = ring(tmp_path), ring(tmp_path)
    first, second = one.encrypt("k", b"1"), other.encrypt("k", b"2")
    assert (other.decrypt("k", first), one.decrypt("k", second)) == (b"1", b"2")


def test_a_key_that_came_in_between_is_not_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, late = ring(tmp_path), ring(tmp_path)
    hidden = one.encrypt("k", b"1")
    monkeypatch.setattr(late._files, "exists", lambda _: False)  # It looked before the other wrote.
    assert one.decrypt("k", late.encrypt("k", b"2")) == b"2"
    assert late.decrypt("k", hidden) == b"1"


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
