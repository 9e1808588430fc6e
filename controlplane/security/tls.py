"""TLS on both sides of a connection, with identities that are renewed while the process runs."""

import asyncio
import ssl
from pathlib import Path
from typing import Final

from controlplane.log.connection import TlsFiles

LOOK_EVERY_SECONDS: Final = 60.0


def server_context(files: TlsFiles, *, clients: ssl.VerifyMode = ssl.CERT_REQUIRED) -> ssl.SSLContext:
    """Return the context of a server that shows its own certificate and asks clients for theirs."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(files.ca))
    context.load_cert_chain(files.certificate, files.key)
    context.verify_mode = clients
    return context


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """Return the context of a client that checks the server's name and shows its own certificate."""
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(files.ca))
    context.load_cert_chain(files.certificate, files.key)
    return context


class RenewedFiles:
    """A context whose files are loaded again when they change: connections made from then on use the new ones."""

    def __init__(self, context: ssl.SSLContext, files: TlsFiles) -> None:
        """Watch the files of a context that was made of them."""
        self._context = context
        self._files = files
        self._seen = self._marks()

    def _marks(self) -> tuple[tuple[int, int], ...]:
        paths: tuple[Path, ...] = (self._files.ca, self._files.certificate, self._files.key)
        return tuple((found.st_mtime_ns, found.st_ino) for found in (path.stat() for path in paths))

    def reload(self) -> bool:
        """Load the files again if they changed since; returns whether they did. Authorities are added, never forgotten."""
        marks = self._marks()
        if marks == self._seen:
            return False
        self._context.load_verify_locations(cafile=str(self._files.ca))
        self._context.load_cert_chain(self._files.certificate, self._files.key)
        self._seen = marks
        return True

    async def follow(self, *, every_seconds: float = LOOK_EVERY_SECONDS) -> None:
        """Reload whenever the files change, for as long as the task runs."""
        while True:
            await asyncio.sleep(every_seconds)
            self.reload()
