"""What is checked in comes out again, byte for byte, or says why it cannot."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.contents import ContentCorrupt, ContentMissing, ContentStore
from controlplane.events.types import Content, ContentReference


def store_in(folder: Path, inline_limit_bytes: int = 10) -> ContentStore:
    return ContentStore(folder.as_uri(), inline_limit_bytes=inline_limit_bytes)


@given(data=st.binary(max_size=200), limit=st.integers(0, 100))
def test_content_comes_back_whatever_its_size(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, limit: int
) -> None:
    store = store_in(tmp_path_factory.mktemp("contents"), limit)
    kept = store.check_in(Content(data=data))
    assert (kept.reference is None) == (len(data) <= limit)
    assert store.check_out(kept) == data


def test_equal_contents_are_kept_once(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    first, second = (store.check_in(Content(data=b"x" * 100)) for _ in range(2))
    assert first == second
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


def test_changed_bytes_are_refused(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    kept = store.check_in(Content(data=b"x" * 100))
    next(path for path in tmp_path.rglob("*") if path.is_file()).write_bytes(b"y" * 100)
    with pytest.raises(ContentCorrupt, match="Expected content with SHA-256"):
        store.check_out(kept)


@pytest.mark.parametrize(
    "uri",
    ["file:///etc/passwd", "content://sha256/../../etc/passwd", "content://sha256/" + "0" * 64, "https://127.0.0.1/x"],
)
def test_a_reference_leads_nowhere_but_into_the_store(tmp_path: Path, uri: str) -> None:
    kept = store_in(tmp_path).check_in(Content(data=b"x" * 100))
    assert kept.reference is not None
    sha256 = uri[-64:] if uri.startswith("content") else kept.reference.sha256
    forged = msgspec.structs.replace(kept, reference=ContentReference(uri=uri, sha256=sha256, size_bytes=100))
    with pytest.raises(ContentMissing):
        store_in(tmp_path).check_out(forged)
