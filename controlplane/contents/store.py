"""A content-addressed store over any fsspec file system: a folder when embedded, an object store elsewhere."""

import hashlib
import re
from typing import Final

import fsspec
import msgspec

from controlplane.events.types import Content, ContentReference

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

    def __init__(self, url: str, *, inline_limit_bytes: int) -> None:
        """Open the store at an fsspec URL, for example `file:///var/lib/controlplane/contents` or `s3://bucket/contents`."""
        self._files, root = fsspec.core.url_to_fs(url)
        self._root = str(root).rstrip("/")
        self._inline_limit_bytes = inline_limit_bytes

    def _path(self, digest: str) -> str:
        return f"{self._root}/{digest[:2]}/{digest}"

    def check_in(self, content: Content) -> Content:
        """Return what goes on the log: the content itself when it is small, a reference once its bytes are kept.

        A crash before the event is published leaves bytes that nothing names; they are written again or never read.

        Raises:
            ContentTooLarge: the content is above the limit of the store.
        """
        size = len(content.data)
        if size <= self._inline_limit_bytes:
            return content
        if size > LARGEST_CONTENT_BYTES:
            raise ContentTooLarge(f"Expected at most {LARGEST_CONTENT_BYTES} bytes, but found {size}.")
        digest = hashlib.sha256(content.data).hexdigest()
        path = self._path(digest)
        if not self._files.exists(path):
            self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
            # Written aside and then named: a reader never sees half of it.
            self._files.pipe_file(f"{path}.part", content.data)
            self._files.mv(f"{path}.part", path)
        reference = ContentReference(uri=SCHEME + digest, sha256=digest, size_bytes=size)
        return msgspec.structs.replace(content, data=b"", reference=reference)

    def check_out(self, content: Content) -> bytes:
        """Return the bytes of a content, fetched and checked against the digest when they are kept outside.

        Raises:
            ContentMissing: the store does not have it, or the reference is not one of this store's.
            ContentCorrupt: the bytes are not those that the log names.
        """
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
