"""Log lines for people or for programs, each with the correlation id of what it is about."""

import logging
import sys
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from controlplane.events.texts import valid_text
from controlplane.settings import Settings
from controlplane.telemetry import tracing

CONTEXT_FIELDS: Final = ("correlation_id", "job_id", "attempt_id", "runner_id", "position", "code")
"""What a line may carry beside its message: `logger.info("...", extra={"job_id": job_id})`."""


def _context(record: logging.LogRecord) -> dict[str, Any]:
    context = {name: value for name in CONTEXT_FIELDS if (value := getattr(record, name, None)) is not None}
    spans = tracing.active()
    return context if spans is None else {**context, **spans.current_ids()}


class JsonFormatter(logging.Formatter):
    """Write one JSON object per line: time (RFC 3339, UTC), level, service, logger, message, context, error."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self.service = service

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of one record."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "service": self.service,
            "logger": record.name,
            "message": valid_text(record.getMessage()),
            **_context(record),
        }
        if record.exc_info:
            line["error"] = valid_text(self.formatException(record.exc_info))
        return msgspec.json.encode(line).decode()


class TextFormatter(logging.Formatter):
    """Write one line that a person can scan: time, level, service, message, then the context as name=value."""

    def __init__(self, service: str) -> None:
        super().__init__(f"%(asctime)s %(levelname)-7s {service} %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of one record."""
        context = " ".join(f"{name}={value}" for name, value in _context(record).items())
        line = super().format(record)
        return f"{line}  [{context}]" if context else line


def configure_logging(settings: Settings, service: str) -> None:
    """Send the log lines of this process to standard error in the form that the settings ask for."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service) if settings.log_format == "json" else TextFormatter(service))
    logging.basicConfig(level=settings.log_level, handlers=[handler], force=True)
    logging.getLogger("aiokafka").setLevel(logging.ERROR)
    for chatty in ("faust", "mode", "uvicorn.access", "httpx"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
