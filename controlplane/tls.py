"""TLS on both sides of a connection, by one identity's files, which may be renewed while the process runs."""

import logging
import ssl
from typing import Any, Final

from controlplane.settings import TlsFiles

OLDEST: Final = ssl.TLSVersion.TLSv1_2

logger = logging.getLogger(__name__)


class RenewingContext(ssl.SSLContext):
    """A context that looks at its files before each connection: one made after a renewal uses the new ones, and trusts no retired authority.

    Every server and client of Python takes a connection from `wrap_bio` or `wrap_socket`, so nothing has to be told of a renewal. Files
    that cannot be read (a renewal that was cut off) are said in the log, and the identity in hand goes on.
    """

    def __new__(
        cls, files: TlsFiles, purpose: ssl.Purpose, verify: ssl.VerifyMode = ssl.CERT_REQUIRED
    ) -> "RenewingContext":
        """Read the files; the context itself is only the place that libraries look at."""
        server = purpose is ssl.Purpose.CLIENT_AUTH
        made = super().__new__(cls, ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        made._files, made._purpose, made._verify = files, purpose, verify
        made._seen = made._marks()
        made._now = made._read()
        return made

    _files: TlsFiles
    _purpose: ssl.Purpose
    _verify: ssl.VerifyMode
    _seen: tuple[tuple[int, int], ...]
    _now: ssl.SSLContext

    def __init__(self, *_: object) -> None:
        """Everything is made in `__new__`, as ssl's own context does."""

    def _marks(self) -> tuple[tuple[int, int], ...]:
        paths = (self._files.ca, self._files.certificate, self._files.key)
        return tuple((found.st_mtime_ns, found.st_ino) for found in (path.stat() for path in paths))

    def _read(self) -> ssl.SSLContext:
        context = ssl.create_default_context(self._purpose, cafile=str(self._files.ca))
        context.load_cert_chain(self._files.certificate, self._files.key)
        context.minimum_version = OLDEST
        context.verify_mode = self._verify
        return context

    def fresh(self) -> ssl.SSLContext:
        """Return the context of the files as they are now."""
        try:
            marks = self._marks()
            if marks != self._seen:
                self._now, self._seen = self._read(), marks
        except OSError as error:  # ssl.SSLError is one.
            logger.warning(
                "Goes on with the certificate in hand; that in %s cannot be used: %s", self._files.certificate, error
            )
        return self._now

    def wrap_bio(self, *arguments: Any, **named: Any) -> ssl.SSLObject:
        """Begin a connection with the files as they are now."""
        return self.fresh().wrap_bio(*arguments, **named)

    def wrap_socket(self, *arguments: Any, **named: Any) -> ssl.SSLSocket:
        """Begin a connection with the files as they are now."""
        return self.fresh().wrap_socket(*arguments, **named)


def server_context(files: TlsFiles, *, clients: ssl.VerifyMode = ssl.CERT_REQUIRED) -> ssl.SSLContext:
    """Return the context of a server that shows its own certificate and asks clients for theirs."""
    return RenewingContext(files, ssl.Purpose.CLIENT_AUTH, clients)


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """Return the context of a client that checks the server's name and shows its own certificate."""
    return RenewingContext(files, ssl.Purpose.SERVER_AUTH)
