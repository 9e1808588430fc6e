"""How a service reaches the brokers: addresses, and certificates when security is on."""

from typing import Any, Final

import msgspec
from aiokafka.errors import (
    AuthenticationFailedError,
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    KafkaError,
    TopicAuthorizationFailedError,
)

from controlplane.settings import Settings, TlsFiles
from controlplane.tls import client_context

__all__ = ["LogConnection", "LogRefused", "LogUnavailable", "LogUnconfigured", "TlsFiles", "refusal"]

REFUSALS: Final = (
    AuthenticationFailedError, ClusterAuthorizationFailedError, GroupAuthorizationFailedError, TopicAuthorizationFailedError
)  # fmt: skip


class LogUnconfigured(ValueError):
    """Expected the address of a Kafka cluster, but there is none."""


class LogUnavailable(ConnectionError):
    """The log did not take or give records within the bound; the same call can succeed later."""


class LogRefused(LogUnavailable):
    """The brokers answered that this service may not: somebody has to give it the right, then the same call succeeds."""


def refusal(error: KafkaError, expected: str) -> LogUnavailable:
    """Return the error of ours for one of Kafka's: somebody has to act, or waiting may help."""
    kind = LogRefused if isinstance(error, REFUSALS) else LogUnavailable
    return kind(f"Expected {expected}, but: {error!r}")


class LogConnection(msgspec.Struct, frozen=True, kw_only=True):
    """Where the log is: `host:port,...`, with TLS when files are given; and whether records are written as CloudEvents."""

    bootstrap: str
    tls: TlsFiles | None = None
    cloudevents: bool = False

    @classmethod
    def from_settings(cls, settings: Settings) -> "LogConnection":
        """Return the connection that the settings name.

        Raises:
            LogUnconfigured: no address is set.
        """
        if settings.kafka_bootstrap is None:
            raise LogUnconfigured("Expected CONTROLPLANE_KAFKA_BOOTSTRAP to name a Kafka cluster, but it is not set.")
        return cls(bootstrap=settings.kafka_bootstrap, tls=settings.kafka_tls, cloudevents=settings.cloudevents)

    def security_arguments(self) -> dict[str, Any]:
        """Return the keyword arguments that give an aiokafka client this connection's security."""
        if self.tls is None:
            return {"security_protocol": "PLAINTEXT"}
        return {"security_protocol": "SSL", "ssl_context": client_context(self.tls)}

    def client_arguments(self) -> dict[str, Any]:
        """Return the keyword arguments that every aiokafka client takes."""
        return {"bootstrap_servers": self.bootstrap, **self.security_arguments()}
