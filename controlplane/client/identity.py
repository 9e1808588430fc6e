"""With which certificate a client asks."""

import ssl

from controlplane.settings import TlsFiles, settings
from controlplane.tls import client_context


def address(url: str | None) -> str:
    """Return where the gateway is: the URL given, or that of the settings."""
    return url if url is not None else settings().gateway_url


def verification(url: str, tls: TlsFiles | None) -> ssl.SSLContext | bool:
    """Return how the server at a URL is checked and what is shown to it: the files given, those of the settings, or neither.

    Raises:
        OSError: the files cannot be used.
    """
    if tls is None and url.startswith("https:"):
        tls = settings().tls
    return True if tls is None else client_context(tls)
