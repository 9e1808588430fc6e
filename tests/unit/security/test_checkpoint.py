"""Notes as C2SP writes them, and leaves that no two records share."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from controlplane.security.checkpoint import Checkpoint, NoteInvalid, key_id, leaf_of, open_note, sign

KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
OTHER = Ed25519PrivateKey.from_private_bytes(b"o" * 32)
CHECKPOINT = Checkpoint(origin="controlplane.jobs/3", tree_size=1042, root_hash=bytes(range(32)))
NOTE = sign(CHECKPOINT, KEY)


def test_the_text_is_origin_size_and_root() -> None:
    root = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
    assert NOTE.startswith(f"controlplane.jobs/3\n1042\n{root}\n\n— controlplane.jobs/3 ")
    assert NOTE.endswith("\n")
    assert sign(CHECKPOINT, KEY) == NOTE  # Ed25519 is deterministic: two notaries write the same.


def test_key_ids_and_signatures_are_those_of_the_published_example() -> None:
    """The example of Go's `sumdb/note`, which C2SP's signed-note describes."""
    text = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
    signature = base64.b64decode(
        "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
    )
    public = Ed25519PublicKey.from_public_bytes(base64.b64decode("ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")[1:])
    assert key_id("PeterNeumann", public).hex() == "c74f20a3"
    assert signature[:4] == key_id("PeterNeumann", public)
    public.verify(signature[4:], text.encode())


def test_a_note_opens_with_the_key_that_signed_it_among_others() -> None:
    assert open_note(NOTE, [OTHER.public_key(), KEY.public_key()]) == CHECKPOINT


def test_signatures_of_witnesses_are_passed_over() -> None:
    witnessed = NOTE + "— witness.example " + base64.b64encode(b"1234" + b"s" * 64).decode() + "\n"
    assert open_note(witnessed, [KEY.public_key()]) == CHECKPOINT


def test_a_note_of_an_unknown_key_is_refused() -> None:
    with pytest.raises(
        NoteInvalid, match=r"Expected the checkpoint of controlplane.jobs/3 to be signed by a trusted key"
    ):
        open_note(NOTE, [OTHER.public_key()])


@given(st.integers(0, len(NOTE.encode()) * 8 - 1))
def test_every_single_bit_change_of_a_note_is_found(bit: int) -> None:
    changed = bytearray(NOTE.encode())
    changed[bit // 8] ^= 1 << bit % 8
    try:
        text = changed.decode()
    except UnicodeDecodeError:
        return  # It is no text any more.
    try:
        assert (
            open_note(text, [KEY.public_key()]) == CHECKPOINT
        )  # Only the padding of the signature's base64 says nothing.
        assert text.rstrip("=\n")[:-1] == NOTE.rstrip("=\n")[:-1]
    except NoteInvalid:
        pass


@pytest.mark.parametrize(
    "note",
    ["", "\n", "a\n1\n", "a\n1\nAAAA\n\n— a AAAA\n", NOTE[:-1], NOTE.replace("1042", "01042"), NOTE.replace("1042", "-1"),
     NOTE.replace("1042", "1" * 30), NOTE.replace("— ", "- "), NOTE + "x" * 20_000 + "\n"],
)  # fmt: skip
def test_what_is_no_checkpoint_is_refused_in_words(note: str) -> None:
    with pytest.raises(NoteInvalid, match="Expected"):
        open_note(note, [KEY.public_key()])


contents = st.none() | st.binary(max_size=8)
records = st.tuples(
    st.text(max_size=4), st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), contents, contents,
    st.lists(st.tuples(st.text(max_size=3), contents), max_size=3),
)  # fmt: skip


@given(records, records)
def test_two_records_have_one_leaf_only_when_they_are_the_same(
    one: tuple[object, ...], other: tuple[object, ...]
) -> None:
    assert (leaf_of(*one) == leaf_of(*other)) == (one == other)  # type: ignore[arg-type]
