"""Keys that can be forgotten: what is encrypted with one stays on the log for ever, and is unreadable once its key is gone.

Envelope encryption: each name has a data key of its own, which is kept outside of the log, itself encrypted with the installation's master key.
Forgetting a name replaces its file with a mark, so that the name is never used again. AES-256 in Galois/Counter Mode (NIST SP 800-38D), the
name as additional data, a random nonce of 96 bits in front.
"""

import hashlib
import secrets
import time
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from controlplane.contents.files import WholeFiles, published

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
REMEMBERED_SECONDS: Final = 5.0
"""Forgetting counts everywhere within this time."""
REMEMBERED_KEYS: Final = 10_000
_FORGOTTEN: Final = b"forgotten"


class KeyForgotten(LookupError):
    """Expected a key that is kept, but it was forgotten, and what it encrypted with it."""


class KeyMissing(LookupError):
    """Expected a key that is kept, but there is none of that name, or the master key is another."""


class KeyRing:
    """The data keys of an installation, by name."""

    def __init__(self, url: str, master_key: bytes) -> None:
        """Open the keys at an fsspec URL; `master_key` has 32 bytes."""
        self._files = WholeFiles(url)
        self._master = AESGCM(master_key)
        self._remembered: dict[str, tuple[bytes, float]] = {}

    def encrypt(self, name: str, data: bytes) -> bytes:
        """Return data that only this name's key opens; the key is made when there is none.

        Raises:
            KeyForgotten: the name was forgotten.
            KeyMissing: its key is not to be had: the master key is another, or what was written of it cannot be read.
        """
        return _sealed(AESGCM(self._key(name, make=True)), name, data)

    def decrypt(self, name: str, data: bytes) -> bytes:
        """Return what was encrypted under a name.

        Raises:
            KeyForgotten: the name was forgotten.
            KeyMissing: there is no such key, or it does not open this.
        """
        return _opened(AESGCM(self._key(name, make=False)), name, data)

    def forget(self, name: str) -> bool:
        """Forget a name's key for ever; returns whether there was one."""
        file = _file_of(name)
        had = self._files.read(file) not in {b"", _FORGOTTEN}
        self._files.replace(file, _FORGOTTEN)
        self._remembered.pop(name, None)
        return had

    def _key(self, name: str, *, make: bool) -> bytes:
        key, good_until = self._remembered.get(name, (b"", 0.0))
        if time.monotonic() < good_until:
            return key
        key = self._read(name, make=make)
        if len(self._remembered) >= REMEMBERED_KEYS:
            self._remembered.clear()
        self._remembered[name] = (key, time.monotonic() + REMEMBERED_SECONDS)
        return key

    def _read(self, name: str, *, make: bool) -> bytes:
        file = _file_of(name)
        wrapped = self._files.read(file)
        if make and not wrapped:
            self._files.publish(file, _sealed(self._master, name, secrets.token_bytes(KEY_BYTES)))
            wrapped = self._files.read(file)  # Another process may have been first.
        if not wrapped:
            raise KeyMissing(f"Expected the key {name}, but there is none.")
        if wrapped == _FORGOTTEN:
            raise KeyForgotten(f"Expected the key {name}, but it was forgotten, and with it what it encrypted.")
        return _opened(self._master, name, wrapped)


def _file_of(name: str) -> str:
    digest = hashlib.sha256(name.encode()).hexdigest()
    return f"{digest[:2]}/{digest}"


def _sealed(cipher: AESGCM, name: str, data: bytes) -> bytes:
    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce + cipher.encrypt(nonce, data, name.encode())


def _opened(cipher: AESGCM, name: str, data: bytes) -> bytes:
    try:
        return cipher.decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], name.encode())
    except (InvalidTag, ValueError) as error:
        raise KeyMissing(f"Expected the key {name} to open this, but it is another key's, or was changed.") from error


def kept_master_key(file: Path) -> bytes:
    """Return the master key in a file, made on first use and readable by its owner alone.

    Raises:
        KeyMissing: the file holds something else.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    if not file.exists():
        published(file, secrets.token_bytes(KEY_BYTES), 0o600)
    key = file.read_bytes()
    if len(key) != KEY_BYTES:
        raise KeyMissing(f"Expected {KEY_BYTES} bytes in {file}, but found {len(key)}.")
    return key
