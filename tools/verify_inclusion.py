"""Check an inclusion proof of ControlPlane's log: this one file, Python's standard library and `cryptography`.

    python verify_inclusion.py proof.json notary.pub

The proof is what `controlplane audit prove` writes; `notary.pub` holds the notary's public keys (PEM), and should come to you by another way
than the proof does. Exits 0 when the record is in the tree that the notary signed, 1 when not, saying why.

What is computed: the leaf is SHA-256(0x00 || record); the path leads from it to the root by SHA-256(0x01 || left || right) (RFC 6962, RFC 9162);
the root is in a checkpoint that is signed with Ed25519 (C2SP tlog-checkpoint, signed-note).
"""

import base64
import binascii
import json
import struct
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

FORMAT = "controlplane/inclusion-proof/1"
PEM_END = "-----END PUBLIC KEY-----"


class ProofWrong(ValueError):
    """Expected a proof that holds, but it does not."""


def counted(content: bytes | None) -> bytes:
    """Return bytes with their length in front; nothing is length 2^32 - 1."""
    return b"\xff\xff\xff\xff" if content is None else struct.pack(">I", len(content)) + content


def unpacked(text: str | None) -> bytes | None:
    """Return the bytes of base64."""
    return None if text is None else base64.b64decode(text, validate=True)


def leaf(record: dict[str, Any]) -> bytes:
    """Return a record as the bytes of its leaf."""
    parts = [
        b"controlplane/record/1\n",
        counted(record["topic"].encode()),
        struct.pack(">iqq", record["partition"], record["offset"], record["timestamp_milliseconds"]),
        counted(unpacked(record["key"])),
        counted(unpacked(record["value"])),
        struct.pack(">I", len(record["headers"])),
    ]
    for name, content in record["headers"]:
        parts += [counted(name.encode()), counted(unpacked(content))]
    return b"".join(parts)


def root(leaf_hash: bytes, index: int, size: int, path: list[bytes]) -> bytes:
    """Return the root that a path leads to (RFC 9162, section 2.1.3.2)."""
    if not 0 <= index < size:
        raise ProofWrong(f"Expected a leaf below {size}, but found {index}.")
    place, last, found = index, size - 1, leaf_hash
    for beside in path:
        if last == 0:
            raise ProofWrong(f"Expected a shorter path in a tree of {size} leaves, but found {len(path)} hashes.")
        if place % 2 or place == last:
            found = sha256(b"\1" + beside + found).digest()
            while place and not place % 2:
                place, last = place // 2, last // 2
        else:
            found = sha256(b"\1" + found + beside).digest()
        place, last = place // 2, last // 2
    if last:
        raise ProofWrong(f"Expected a longer path in a tree of {size} leaves, but found {len(path)} hashes.")
    return found


def checkpoint(note: str, keys: list[Ed25519PublicKey]) -> tuple[str, int, bytes]:
    """Return origin, tree size and root of a checkpoint that one of the keys signed."""
    text, _, signatures = note.rpartition("\n\n")
    text += "\n"
    origin, size, root_text = text.split("\n")[:3]
    for line in signatures.splitlines():
        mark, name, content = line.split(" ")
        signature = base64.b64decode(content, validate=True)
        for key in keys:
            identity = sha256(name.encode() + b"\n\1" + key.public_bytes_raw()).digest()[:4]
            if mark == "—" and name == origin and signature[:4] == identity:
                key.verify(signature[4:], text.encode())
                return origin, int(size), base64.b64decode(root_text, validate=True)
    raise ProofWrong(f"Expected a checkpoint of {origin} that one of {len(keys)} trusted keys signed, but none did.")


def verify(proof: dict[str, Any], keys: list[Ed25519PublicKey]) -> str:
    """Return a sentence on what the proof shows.

    Raises:
        ProofWrong, InvalidSignature: it does not hold.
        KeyError, TypeError, ValueError, binascii.Error, struct.error: it is no such document.
    """
    if proof["format"] != FORMAT:
        raise ProofWrong(f"Expected a proof in the format {FORMAT}, but found {proof['format']!r}.")
    record = proof["record"]
    origin, size, signed_root = checkpoint(proof["checkpoint"], keys)
    if origin != f"{record['topic']}/{record['partition']}":
        raise ProofWrong(f"Expected a record of {origin}, but found one of {record['topic']}/{record['partition']}.")
    path = [base64.b64decode(one, validate=True) for one in proof["path"]]
    found = root(sha256(b"\0" + leaf(record)).digest(), proof["leaf_index"], size, path)
    if found != signed_root:
        raise ProofWrong(
            f"Expected the path to lead to the signed root {signed_root.hex()}, but it leads to {found.hex()}."
        )
    return f"{origin}/{record['offset']} is record {proof['leaf_index'] + 1} of the {size} that the notary signed."


def trusted(file: Path) -> list[Ed25519PublicKey]:
    """Return the Ed25519 keys of a PEM file."""
    blocks = [block.strip() + "\n" + PEM_END for block in file.read_text().split(PEM_END)[:-1]]
    keys = [load_pem_public_key(block.encode()) for block in blocks]
    return [key for key in keys if isinstance(key, Ed25519PublicKey)]


def main(arguments: list[str]) -> int:
    """Check the proof that is named and print what it shows."""
    if len(arguments) != 2:
        print("Expected two files: the proof and the notary's public keys.", file=sys.stderr)
        return 2
    try:
        print(verify(json.loads(Path(arguments[0]).read_text()), trusted(Path(arguments[1]))))
    except InvalidSignature:
        print("Expected the signature to fit the checkpoint, but it does not.", file=sys.stderr)
        return 1
    except (
        ProofWrong,
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        binascii.Error,
        struct.error,
        OSError,
    ) as error:
        print(f"Expected a proof that holds, but: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
