"""The acceptance tests run with security off and on; CONTROLPLANE_TEST_SECURE=1 (`make test-secure`) runs all of them with it on alone."""

import os
from typing import Any, Final

import httpx
import pytest

from controlplane.cli.stack import SystemStack
from controlplane.security.certificates import ADMIN

ALWAYS: Final = os.environ.get("CONTROLPLANE_TEST_SECURE") == "1"
SECURITY: Final = [*([] if ALWAYS else [pytest.param(False, id="plain")]), pytest.param(True, id="secure")]
"""Values of `Settings.secure` for the tests that CI runs both ways."""


def identity_files(stack: SystemStack, identity: str = ADMIN) -> dict[str, Any]:
    """Return an identity's files in the words of librdkafka and the tools that are built on it; nothing where security is off."""
    tls = stack.tls(identity)
    if tls is None:
        return {}
    return {
        "ssl.ca.location": str(tls.ca), "ssl.certificate.location": str(tls.certificate), "ssl.key.location": str(tls.key)
    }  # fmt: skip


def browsing(stack: SystemStack, **options: Any) -> httpx.Client:
    """Return a plain HTTP client of the stack's gateway, by its certificate where security is on."""
    return httpx.Client(base_url=stack.gateway_url, timeout=60, verify=stack.verification(), **options)


def kafka_settings(stack: SystemStack, identity: str = ADMIN) -> dict[str, Any]:
    """Return the settings with which librdkafka reaches the stack's brokers."""
    files = identity_files(stack, identity)
    return {"bootstrap.servers": stack.kafka_bootstrap, **files, **({"security.protocol": "ssl"} if files else {})}
