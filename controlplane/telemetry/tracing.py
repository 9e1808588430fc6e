"""Whether this process traces: off, what makes spans is not even loaded, none is made and no record gets a header."""

from typing import TYPE_CHECKING

from controlplane.settings import Settings, settings

if TYPE_CHECKING:
    from controlplane.telemetry.spans import Spans

_state: "list[Spans]" = []
"""None or one: the spans of this process."""


class TracingMissing(RuntimeError):
    """Expected the extra `tracing` (pip install 'controlplane[tracing]') for CONTROLPLANE_TRACING=otlp, but it is not installed."""


def active() -> "Spans | None":
    """Return what makes spans in this process; None: tracing is off."""
    return _state[0] if _state else None


def configure_tracing(chosen: Settings, service: str) -> None:
    """Trace from now on, if the settings ask for it; where the OTLP collector is say the standard OTEL_* variables.

    Raises:
        TracingMissing: OpenTelemetry's SDK is not installed.
    """
    if chosen.tracing == "off" or _state:
        return
    try:
        from controlplane.telemetry.spans import exporting
    except ModuleNotFoundError as error:
        raise TracingMissing(TracingMissing.__doc__) from error
    _state.append(exporting(service))


def trace_client() -> None:
    """Trace what a client in somebody's program writes, if the settings of its process ask for it."""
    if not _state:
        configure_tracing(settings(), "client")
