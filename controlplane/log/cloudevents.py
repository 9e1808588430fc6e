"""Records that say in the words of CloudEvents what they are, to readers that know nothing of ours.

Source: CloudEvents 1.0.2 and its Kafka protocol binding, binary content mode: attributes as headers `ce_*`, the value as it is.
"""

import time
from typing import Any, Final

from controlplane.events.schemas import NAMESPACE
from controlplane.events.types import Producer
from controlplane.log.session import Headers

CONTENT_TYPE: Final = b"application/avro"
MICROS: Final = 1_000_000


class CloudEvents:
    """The headers of one service's records.

    The source is the service and not the process: an event that another instance writes again has the same id, and is then the same CloudEvent.
    """

    def __init__(self, producer: Producer) -> None:
        """Write for one service."""
        self._source = f"/controlplane/{producer.service}".encode()
        self._of_type: dict[str, Headers] = {}
        self._second = -1
        self._second_text = ""

    def headers(self, event: Any) -> Headers:
        """Return the headers of an event."""
        name = type(event).__name__
        fixed = self._of_type.get(name)
        if fixed is None:
            fixed = self._of_type[name] = (
                ("ce_specversion", b"1.0"), ("ce_type", f"{NAMESPACE}.{name}".encode()), ("ce_source", self._source),
                ("content-type", CONTENT_TYPE),
            )  # fmt: skip
        header = event.header
        return (*fixed, ("ce_id", header.event_id.encode()), ("ce_time", self._time(header.occurred_at)))

    def _time(self, micros: int) -> bytes:
        second, rest = divmod(micros, MICROS)
        if second != self._second:  # The text of a second serves all events of it.
            self._second, self._second_text = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._second_text}.{rest:06d}Z".encode()
