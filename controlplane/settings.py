"""Settings: every process reads the same CONTROLPLANE_* environment variables, checked once at its start."""

from functools import cache
from pathlib import Path
from typing import Annotated, Literal, Self

import msgspec
from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from controlplane.events.sizes import LARGEST_INLINE_BYTES

Port = Annotated[int, Field(ge=0, le=65535)]
Count = Annotated[int, Field(ge=1)]


class TlsFiles(msgspec.Struct, frozen=True, kw_only=True):
    """PEM files of one service: the CA that it trusts, its certificate and its key."""

    ca: Path
    certificate: Path
    key: Path


class Settings(BaseSettings):
    """What may differ between two installations. Units are in the names; defaults suit one machine."""

    model_config = SettingsConfigDict(env_prefix="CONTROLPLANE_", frozen=True, extra="forbid")

    data_dir: Path = Field(
        Path(".controlplane"), description="Folder of everything that the embedded stack and TruthCore keep."
    )
    environment: str = Field("development", description="Name shown in logs, metrics and the console.")

    secure: bool = Field(
        False,
        description="The stack on this machine speaks TLS with certificates of its own and gives each service its least rights.",
    )
    certificates_dir: Path | None = Field(
        None, description="Folder of that stack's certificates; none: certificates in the data folder."
    )
    tls_ca: Path | None = Field(
        None,
        description="PEM file of the authorities that this process trusts; set: TLS with client certificates everywhere.",
    )
    tls_certificate: Path | None = Field(None, description="PEM file of this process's certificate.")
    tls_key: Path | None = Field(None, description="PEM file of this process's key; may be the same file.")
    gateway_certificates: Literal["required", "optional"] = Field(
        "required", description="Whether whoever asks the gateway over TLS has to show a certificate."
    )

    kafka_bootstrap: str | None = Field(
        None, description="host:port,... of an existing Kafka; none: the embedded broker."
    )
    kafka_tls_ca: Path | None = Field(
        None, description="PEM file of the brokers' CA, where it is another; none: the files of CONTROLPLANE_TLS_*."
    )
    kafka_tls_certificate: Path | None = Field(
        None, description="PEM file of this service's certificate for the brokers."
    )
    kafka_tls_key: Path | None = Field(None, description="PEM file of this service's key for the brokers.")
    cloudevents: bool = Field(
        False,
        description="Records carry the attributes of CloudEvents as headers, for readers that know them: 200 bytes more each.",
    )
    kafka_replication: Count = Field(1, description="Replicas of each topic, when topics are made.")
    partitions_jobs: Count = Field(
        8, description="Partitions of submissions, progress and jobs; fixed when topics are made."
    )
    partitions_routing: Count = Field(
        16, description="Partitions of routing: runners' inboxes; fixed when topics are made."
    )
    partitions_other: Count = Field(4, description="Partitions of every other topic; fixed when topics are made.")

    redis_url: SecretStr | None = Field(
        None, description="redis://, rediss:// or unix:// URL; none: the embedded Valkey."
    )
    redis_namespace: str = Field("controlplane", description="Hash tag of all keys of this scheduling store.")

    gateway_host: str = Field("127.0.0.1", description="Address that the gateway listens on.")
    gateway_port: Port = Field(8400, description="Port of the gateway; 0: a free one.")
    requests_per_second: float | None = Field(
        None,
        gt=0,
        description="Requests that one client may send to the gateway, and for a moment twice as many; none: no limit.",
    )
    gateway_url: str = Field("http://127.0.0.1:8400", description="Where clients find the gateway.")
    identities: Path | None = Field(
        None, description="TOML file of who may do what at the gateway; none: everybody may do everything."
    )
    token: SecretStr | None = Field(None, description="Bearer token of the command and of clients.")
    truthcore_host: str = Field("127.0.0.1", description="Address that TruthCore listens on.")
    truthcore_port: Port = Field(8401, description="Port of TruthCore; 0: a free one.")
    truthcore_urls: str = Field("http://127.0.0.1:8401", description="Comma-separated URLs of the TruthCore replicas.")
    truthcore_name: str = Field("truthcore", description="Name of this TruthCore process in answers and logs.")
    truthcore_shard: str = Field(
        "0/1", description="Part of the log that this TruthCore keeps: 0/2 is the first of two; 0/1 is the whole."
    )
    truthcore_snapshot: str | None = Field(
        None,
        description="Where a TruthCore without a file begins: `peers`, the URL of a TruthCore, or the fsspec URL of a folder with snapshots; none: at the log's beginning.",
    )
    truthcore_archive_days: float | None = Field(
        None,
        gt=0,
        le=36_500,
        description="Detail (progress, log lines, heartbeats) so old leaves TruthCore's database for Parquet beside it; none: only `controlplane archive` does it.",
    )
    truthcore_database: Path | None = Field(None, description="DuckDB file; none: truthcore.duckdb in the data folder.")
    health_host: str = Field(
        "127.0.0.1", description="Address of the health and metrics endpoint of JobForge and runners."
    )
    health_port: Port = Field(0, description="Port of that endpoint; 0: a free one.")

    payload_limit_bytes: Count = Field(
        256 * 1024, le=LARGEST_INLINE_BYTES, description="Largest payload or result kept on the log: 921600 at most."
    )
    content_store_url: str | None = Field(
        None, description="fsspec URL of larger payloads and results; none: a folder in the data folder."
    )
    content_keys_url: str | None = Field(
        None, description="fsspec URL of the keys of encrypted payloads; none: a folder in the data folder."
    )
    content_master_key: Path | None = Field(
        None, description="File of 32 random bytes that those keys are encrypted with; none: made in the data folder."
    )
    routing_policy: str = Field(
        "controlplane.jobforge_agent.policy:least_loaded", description="module:function that gives jobs to runners."
    )
    most_jobs_in_flight: Count = Field(
        500_000, description="Jobs accepted and not concluded; beyond it submissions are answered with 503."
    )
    most_lag_seconds: float | None = Field(
        None,
        gt=0,
        description="Reads further behind the log than this have submissions answered with 503; none: however far.",
    )
    breaker_failures: Count = Field(
        5, description="So many failures of one destination, and half of what was counted, open its circuit breaker."
    )
    breaker_window_seconds: float = Field(30.0, gt=0, description="Failures are counted together for so long.")
    breaker_open_seconds: float = Field(
        10.0,
        gt=0,
        description="A breaker rests for so long before it tries again; twice as long after each failed trial.",
    )
    lease_seconds: float = Field(6.0, gt=0, description="An attempt is lost when its runner is silent for so long.")
    heartbeat_seconds: float = Field(2.0, gt=0, description="Interval of runners' heartbeats.")
    kafka_session_seconds: float = Field(6.0, gt=0, description="A JobForge instance is gone when silent for so long.")

    notary_key: Path | None = Field(
        None, description="PEM file of the notary's Ed25519 key; none: made in the data folder, notary/notary.pem."
    )
    notary_public_keys: Path | None = Field(
        None,
        description="PEM file of the public keys whose checkpoints count; none: notary/notary.pub in the data folder.",
    )
    checkpoint_records: Count = Field(10_000, description="A partition is signed when so many records came.")
    checkpoint_seconds: float = Field(60.0, gt=0, description="A partition is signed when a record waits for so long.")

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Least severe log line written."
    )
    log_format: Literal["text", "json"] = Field("text", description="Log lines for people or for programs.")
    tracing: Literal["off", "otlp"] = Field(
        "off",
        description="`otlp`: spans of every job, from its submission to its conclusion, to the collector that OTEL_EXPORTER_OTLP_ENDPOINT names.",
    )

    @model_validator(mode="after")
    def _whole_identities(self) -> Self:
        """Refuse an identity of which a part is missing: half of TLS is none."""
        for prefix in ("tls", "kafka_tls"):
            found = [getattr(self, f"{prefix}_{part}") is not None for part in ("ca", "certificate", "key")]
            if any(found) and not all(found):
                variables = f"CONTROLPLANE_{prefix.upper()}"
                raise ValueError(f"Expected all three of {variables}_CA, _CERTIFICATE and _KEY, or none.")
        return self

    @property
    def tls(self) -> TlsFiles | None:
        """The identity with which this process speaks TLS; None: it does not."""
        return _files(self.tls_ca, self.tls_certificate, self.tls_key)

    @property
    def kafka_tls(self) -> TlsFiles | None:
        """The identity that this process shows to the brokers; None: it speaks to them in plain text."""
        return _files(self.kafka_tls_ca, self.kafka_tls_certificate, self.kafka_tls_key) or self.tls

    @property
    def certificates(self) -> Path:
        """The folder of the certificates of the stack on this machine."""
        return self.certificates_dir or self.data_dir / "certificates"


def _files(ca: Path | None, certificate: Path | None, key: Path | None) -> TlsFiles | None:
    if ca is None or certificate is None or key is None:
        return None
    return TlsFiles(ca=ca, certificate=certificate, key=key)


@cache
def settings() -> Settings:
    """Return the settings of this process.

    Raises:
        pydantic.ValidationError: a variable holds what it cannot; the message names it.
    """
    return Settings()
