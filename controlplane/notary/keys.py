"""The notary's key, and the public keys whose checkpoints count: today's and those before it, so that a key can be replaced."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from controlplane.settings import Settings

END: Final = "-----END PUBLIC KEY-----"


class KeyInvalid(ValueError):
    """Expected a PEM file with Ed25519 keys, but found something else."""


def private_key(settings: Settings) -> Ed25519PrivateKey:
    """Return the key that signs; without a setting it is in the data folder, made when there is none yet.

    Raises:
        KeyInvalid: the file is missing or holds no such key.
    """
    path = settings.notary_key or settings.data_dir / "notary" / "notary.pem"
    if settings.notary_key is None and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(pem)
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyInvalid(f"Expected an Ed25519 key without a password in {path}, but: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyInvalid(f"Expected an Ed25519 key in {path}, but found a {type(key).__name__}.")
    return key


def public_keys_file(settings: Settings) -> Path:
    """Return where the public keys are whose checkpoints count."""
    return settings.notary_public_keys or settings.data_dir / "notary" / "notary.pub"


def public_keys(path: Path) -> tuple[Ed25519PublicKey, ...]:
    """Return the public keys of a PEM file.

    Raises:
        KeyInvalid: the file is missing, or holds something else than such keys.
    """
    try:
        blocks = [block + END for block in path.read_text().split(END)[:-1]]
        keys = [load_pem_public_key(block.strip().encode()) for block in blocks]
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise KeyInvalid(f"Expected the notary's public keys in {path}, but: {error}") from error
    if not keys or not all(isinstance(key, Ed25519PublicKey) for key in keys):
        raise KeyInvalid(f"Expected Ed25519 public keys in {path}, but found {[type(key).__name__ for key in keys]}.")
    return tuple(key for key in keys if isinstance(key, Ed25519PublicKey))


def publish(key: Ed25519PrivateKey, path: Path) -> tuple[Ed25519PublicKey, ...]:
    """Return the keys that count, with this one among them: appended to the file when it was not there.

    Raises:
        KeyInvalid: the file holds something else than such keys.
        OSError: the file cannot be written.
    """
    own = key.public_key()
    known: Sequence[Ed25519PublicKey] = public_keys(path) if path.exists() else ()
    if any(own.public_bytes_raw() == one.public_bytes_raw() for one in known):
        return tuple(known)
    all_keys = (*known, own)
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fresh.write_bytes(b"".join(one.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo) for one in all_keys))
    os.replace(fresh, path)
    return all_keys
