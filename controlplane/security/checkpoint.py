"""Checkpoints: what a leaf says of a record, and the tree's head as a text that is signed.

Source: C2SP tlog-checkpoint and C2SP signed-note (Ed25519, signature type 1). The origin, which is also the name of the key in the signature's
line, is `topic/partition`.
"""

import base64
import binascii
import struct
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Any, Final

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from controlplane.security.merkle import HASH_BYTES

LEAF_VERSION: Final = b"controlplane/record/1\n"
"""Begins every leaf: another way to write a record would begin with another."""
ED25519: Final = b"\1"
KEY_ID_BYTES: Final = 4
LARGEST_NOTE_CHARACTERS: Final = 16_384
LARGEST_SIZE_DIGITS: Final = 19
SIGNATURE_MARK: Final = "— "
NONE: Final = 0xFFFFFFFF
"""Stands for the length of a key or a value that is not there, which is something else than an empty one."""

_PLACE: Final = struct.Struct(">iqq")
_LENGTH: Final = struct.Struct(">I")


class NoteInvalid(ValueError):
    """Expected a checkpoint that a trusted key has signed, but found something else."""


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """The head of a partition's tree: how many records it covers, and their root."""

    origin: str
    tree_size: int
    root_hash: bytes

    def text(self) -> str:
        """Return the text that is signed: origin, size and root, a line each."""
        return f"{self.origin}\n{self.tree_size}\n{base64.b64encode(self.root_hash).decode()}\n"


def origin_of(topic: str, partition: int) -> str:
    """Return the name of a partition's tree."""
    return f"{topic}/{partition}"


def _counted(content: bytes | None) -> bytes:
    return _LENGTH.pack(NONE) if content is None else _LENGTH.pack(len(content)) + content


def leaf_of(
    topic: str, partition: int, offset: int, timestamp_milliseconds: int, key: bytes | None, value: bytes | None,
    headers: Sequence[tuple[str, bytes | None]],
) -> bytes:  # fmt: skip
    """Return a record as the bytes of a leaf: every part with its length in front, so that no two records have the same.

    Numbers are big-endian: lengths and the partition in 4 bytes, offset and append time (milliseconds) in 8.
    """
    parts = [
        LEAF_VERSION, _counted(topic.encode()), _PLACE.pack(partition, offset, timestamp_milliseconds), _counted(key), _counted(value),
        _LENGTH.pack(len(headers)),
    ]  # fmt: skip
    for name, content in headers:
        parts += (_counted(name.encode()), _counted(content))
    return b"".join(parts)


def record_hash(record: Any) -> bytes:
    """Return the leaf hash of a record as the log's reader gives it."""
    leaf = leaf_of(
        record.topic, record.partition, record.offset, record.timestamp, record.key, record.value, record.headers
    )
    return sha256(b"\0" + leaf).digest()


def key_id(name: str, key: Ed25519PublicKey) -> bytes:
    """Return the four bytes by which a note names a key."""
    return sha256(name.encode() + b"\n" + ED25519 + key.public_bytes_raw()).digest()[:KEY_ID_BYTES]


def sign(checkpoint: Checkpoint, key: Ed25519PrivateKey) -> str:
    """Return the signed note of a checkpoint; the same checkpoint and key always give the same."""
    text = checkpoint.text()
    signature = key_id(checkpoint.origin, key.public_key()) + key.sign(text.encode())
    return f"{text}\n{SIGNATURE_MARK}{checkpoint.origin} {base64.b64encode(signature).decode()}\n"


def open_note(note: str, keys: Iterable[Ed25519PublicKey]) -> Checkpoint:
    """Return the checkpoint of a note that at least one of these keys has signed.

    Raises:
        NoteInvalid: it is no such note, no trusted key has signed it, or a trusted key's signature is wrong.
    """
    checkpoint, text, signatures = _parsed(note)
    known = {key_id(checkpoint.origin, key): key for key in keys}
    verified = 0
    for name, signature in signatures:
        key = known.get(signature[:KEY_ID_BYTES])
        if key is None or name != checkpoint.origin:
            continue  # A witness, or a key that came later.
        try:
            key.verify(signature[KEY_ID_BYTES:], text.encode())
        except InvalidSignature:
            raise NoteInvalid(f"Expected the signature of the checkpoint of {name} to fit, but it does not.") from None
        verified += 1
    if not verified:
        raise NoteInvalid(
            f"Expected the checkpoint of {checkpoint.origin} to be signed by a trusted key, but it is not."
        )
    return checkpoint


def _parsed(note: str) -> tuple[Checkpoint, str, list[tuple[str, bytes]]]:
    if len(note) > LARGEST_NOTE_CHARACTERS or not note.endswith("\n"):
        raise NoteInvalid(f"Expected a note of at most {LARGEST_NOTE_CHARACTERS} characters that ends with its line.")
    head, blank, tail = note.rpartition("\n\n")
    lines = head.split("\n")
    if not blank or len(lines) < 3 or not all(lines):
        raise NoteInvalid("Expected origin, size and root, an empty line, and signatures, but found something else.")
    origin, size, root = lines[:3]
    if not (size.isascii() and size.isdecimal() and len(size) <= LARGEST_SIZE_DIGITS and str(int(size)) == size):
        raise NoteInvalid(f"Expected a size without leading zeros in line 2, but found {size[:30]!r}.")
    root_hash = _base64(root)
    if len(root_hash) != HASH_BYTES:
        raise NoteInvalid(f"Expected a root of {HASH_BYTES} bytes in line 3, but found {len(root_hash)}.")
    return (
        Checkpoint(origin=origin, tree_size=int(size), root_hash=root_hash),
        head + "\n",
        [_signature(line) for line in tail.removesuffix("\n").split("\n")],
    )


def _signature(line: str) -> tuple[str, bytes]:
    name, space, content = line.removeprefix(SIGNATURE_MARK).rpartition(" ")
    if not line.startswith(SIGNATURE_MARK) or not space or not name:
        raise NoteInvalid(f"Expected a line with a name and a signature, but found {line[:80]!r}.")
    return name, _base64(content)


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise NoteInvalid(f"Expected base64, but found {text[:80]!r}: {error}.") from error
