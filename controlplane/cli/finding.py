"""The settings of a command: those of the environment, and what the stack that runs in the data folder adds where they are silent."""

from controlplane.events.catalog import Service
from controlplane.local.stack import find_running
from controlplane.security.certificates import ADMIN, tls_files
from controlplane.settings import Settings, TlsFiles, settings

__all__ = ["ADMIN", "Service", "found_settings", "with_identity"]


def with_identity(chosen: Settings, files: TlsFiles) -> Settings:
    """Return settings with an identity."""
    return chosen.model_copy(update={"tls_ca": files.ca, "tls_certificate": files.certificate, "tls_key": files.key})


def found_settings(identity: str = ADMIN) -> Settings:
    """Return the settings; of a stack that runs here its addresses, and this identity of its certificates when it is secured."""
    chosen = settings()
    running = find_running(chosen.data_dir)
    if running is None:
        return chosen
    if chosen.tls is None and running.certificates is not None:
        chosen = with_identity(chosen, tls_files(running.certificates, identity))
    found: dict[str, str | None] = {}
    if chosen.kafka_bootstrap is None:
        found["kafka_bootstrap"] = running.kafka_bootstrap
    if "gateway_url" not in chosen.model_fields_set and "gateway" in running.addresses:
        found["gateway_url"] = running.addresses["gateway"]
    if "truthcore_urls" not in chosen.model_fields_set and "truthcore" in running.addresses:
        found["truthcore_urls"] = running.addresses["truthcore"]
    return chosen.model_copy(update=found)
