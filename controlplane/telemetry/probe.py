"""Ask the service on a port of this machine whether it can do its work: `python -m controlplane.telemetry.probe 8402`, for containers."""

import sys
import urllib.error
import urllib.request
from typing import Final

from controlplane.settings import Settings
from controlplane.tls import client_context

ANSWER_WITHIN_SECONDS: Final = 5.0


def fault(port: int, settings: Settings) -> str | None:
    """Return why the service on this port is not ready, or nothing; over TLS it is asked with this process's own identity."""
    scheme = "https" if settings.tls else "http"
    url = f"{scheme}://127.0.0.1:{port}/health/ready"
    try:
        with urllib.request.urlopen(
            url, timeout=ANSWER_WITHIN_SECONDS, context=client_context(settings.tls) if settings.tls else None
        ):
            return None
    except OSError as error:  # urllib's own errors and those of TLS are such.
        return f"Expected {url} to be ready, but: {error}"


if __name__ == "__main__":
    found = fault(int(sys.argv[1]), Settings())
    if found:
        print(found, file=sys.stderr)
    sys.exit(found is not None)
