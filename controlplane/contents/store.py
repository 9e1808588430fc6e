"""A content-addressed store over any fsspec file system: a folder when embedded, an object store elsewhere."""

import hashlib
import re
import secrets
from typing import Final, Self

import fsspec
import msgspec

from controlplane.contents.keys import KeyMissing, KeyRing, kept_master_key
from controlplane.events.types import Content, ContentReference
from controlplane.settings import Settings

LARGEST_CONTENT_BYTES: Final = 1 << 30
SCHEME: Final = "content://sha256/"
_REFERENCE: Final = re.compile(r"content://sha256/[0-9a-f]{64}")


class ContentTooLarge(ValueError):
    """Expected content within the limit of the store, but found more."""


class ContentMissing(LookupError):
    """Expected the referenced content in the store, but it is not there."""


class ContentCorrupt(ValueError):
    """Expected content with the digest and size on the log, but found other bytes."""


class ContentStore:
    """Keep contents above a limit outside of the log; equal contents are kept once, and a repeated write is harmless.

    The reference on the log names the digest and nothing else: where the store is, is each service's own setting, so that
    no event can make a service read from a place of the event's choosing.
    """

    def __init__(self, url: str, *, inline_limit_bytes: int, keys: KeyRing | None = None) -> None:
        """Open the store at an fsspec URL, for example `file:///var/lib/controlplane/contents` or `s3://bucket/contents`."""
        self.keys: Final = keys
        self._files, root = fsspec.core.url_to_fs(url)
        self._root = str(root).rstrip("/")
        self._inline_limit_bytes = inline_limit_bytes

    def _path(self, digest: str) -> str:
        return f"{self._root}/{digest[:2]}/{digest}"

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Open the store and the keys that the settings name, or those in the data folder."""
        url = settings.content_store_url or (settings.data_dir / "contents").resolve().as_uri()
        keys = settings.content_keys_url or (settings.data_dir / "keys").resolve().as_uri()
        master = kept_master_key(settings.content_master_key or settings.data_dir / "master.key")
        return cls(url, inline_limit_bytes=settings.payload_limit_bytes, keys=KeyRing(keys, master))

    def check_in(self, content: Content, *, key_id: str | None = None) -> Content:
        """Return what goes on the log: the content itself when it is small, a reference once its bytes are kept.

        With `key_id` it is encrypted first, with the key of that name.

        A crash before the event is published leaves bytes that nothing names; they are written again or never read.

        Raises:
            ContentTooLarge: the content is above the limit of the store.
            KeyForgotten, KeyMissing: the key was forgotten, or is not to be had.
        """
        if key_id is not None:
            data = self._ring(key_id).encrypt(key_id, content.data)
            content = msgspec.structs.replace(content, data=data, encryption_key_id=key_id)
        size = len(content.data)
        if size <= self._inline_limit_bytes:
            return content
        if size > LARGEST_CONTENT_BYTES:
            raise ContentTooLarge(f"Expected at most {LARGEST_CONTENT_BYTES} bytes, but found {size}.")
        digest = hashlib.sha256(content.data).hexdigest()
        path = self._path(digest)
        if not self._files.exists(path):
            self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
            # Written aside, each writer for itself, and then named: a reader never sees half of it.
            aside = f"{path}.{secrets.token_hex(8)}.part"
            self._files.pipe_file(aside, content.data)
            self._files.mv(aside, path)
        reference = ContentReference(uri=SCHEME + digest, sha256=digest, size_bytes=size)
        return msgspec.structs.replace(content, data=b"", reference=reference)

    def check_out(self, content: Content) -> bytes:
        """Return the bytes of a content in the clear, fetched and checked against the digest when they are kept outside.

        Raises:
            KeyForgotten, KeyMissing: they are encrypted, and the key is no more, or not here.
            ContentMissing: the store does not have it, or the reference is not one of this store's.
            ContentCorrupt: the bytes are not those that the log names.
        """
        data = self._fetched(content)
        key_id = content.encryption_key_id
        return data if key_id is None else self._ring(key_id).decrypt(key_id, data)

    def _ring(self, key_id: str) -> KeyRing:
        if self.keys is None:
            raise KeyMissing(f"Expected the key {key_id}, but this process has no keys.")
        return self.keys

    def _fetched(self, content: Content) -> bytes:
        reference = content.reference
        if reference is None:
            return content.data
        if not _REFERENCE.fullmatch(reference.uri) or not reference.uri.endswith(reference.sha256):
            raise ContentMissing(f"Expected a reference like {SCHEME}<digest>, but found {reference.uri[:100]!r}.")
        try:
            data: bytes = self._files.cat_file(self._path(reference.sha256))
        except FileNotFoundError as error:
            raise ContentMissing(f"Expected {reference.uri} in the content store, but it is not there.") from error
        found = hashlib.sha256(data).hexdigest()
        if found != reference.sha256:
            raise ContentCorrupt(f"Expected content with SHA-256 {reference.sha256}, but found {found}.")
        return data
