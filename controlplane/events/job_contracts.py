"""What runners offer: job types, their contracts, and who can take a job."""

import json
from collections.abc import Mapping
from typing import Any, Final

import jsonschema
import msgspec
from jsonschema.protocols import Validator

from controlplane.events.errors import envelope
from controlplane.events.types import Capability, Content, ErrorEnvelope, RunnerRegistered

JSON_TYPE: Final = "application/json"


class Contract(msgspec.Struct, frozen=True, kw_only=True):
    """The newest capability of one (job type, major version), with its payload validator."""

    capability: Capability
    validator: Validator | None
    version: tuple[int, ...]


def version_of(capability: Capability) -> tuple[int, ...]:
    """Return the version of a capability as numbers."""
    return tuple(int(part) for part in capability.version.split("."))


class Registry:
    """Every runner that registered, and the contracts that follow; a value that is replaced, never changed by decisions."""

    def __init__(
        self, runners: Mapping[str, RunnerRegistered], known: Mapping[str, RunnerRegistered] | None = None
    ) -> None:
        """Fold registrations: the highest minor version of a major one is its contract.

        `runners` are the processes that live, by id; `known` the last registration of every name, so that a contract outlives
        the processes that offered it.
        """
        self.runners = dict(runners)
        self._contracts: dict[tuple[str, int], Contract] = {}
        self._types: set[str] = set()
        for runner in (*(known or {}).values(), *self.runners.values()):
            for capability in runner.capabilities:
                self._add(capability)

    def _add(self, capability: Capability) -> None:
        version = version_of(capability)
        key = (capability.job_type, version[0])
        self._types.add(capability.job_type)
        known = self._contracts.get(key)
        if known is None or known.version < version:
            schema = json.loads(capability.payload_schema)
            validator = jsonschema.Draft202012Validator(schema) if schema else None
            self._contracts[key] = Contract(capability=capability, validator=validator, version=version)

    def contract(self, job_type: str, major: int) -> Contract | None:
        """Return the contract of a job type, if any runner ever offered it."""
        return self._contracts.get((job_type, major))

    def refusal(self, job_type: str, major: int, payload: Content, error_id: str) -> ErrorEnvelope | None:
        """Return why a job cannot be accepted, or None: unknown type, unknown version, payload against its contract."""
        contract = self.contract(job_type, major)
        if contract is None:
            return self._unknown(job_type, major, error_id)
        if (
            contract.validator is None
            or payload.reference
            or payload.encryption_key_id
            or payload.content_type != JSON_TYPE
        ):
            return None  # Only the runner sees what is inside; it validates again before it executes.
        return payload_refusal(contract.validator, payload.data, error_id)

    def _unknown(self, job_type: str, major: int, error_id: str) -> ErrorEnvelope:
        if job_type not in self._types:
            known = ", ".join(sorted(self._types)) or "none"
            return envelope(
                "job_type_unknown", f"Expected a job type that a runner offers ({known}), but found {job_type}.",
                error_id=error_id, field="job_type", expected=known, found=job_type,
            )  # fmt: skip
        majors = ", ".join(str(number) for name, number in sorted(self._contracts) if name == job_type)
        return envelope(
            "contract_version_unknown", f"Expected a major version of {job_type} that a runner offers ({majors}), but found {major}.",
            error_id=error_id, field="contract_major", expected=majors, found=major,
        )  # fmt: skip


def payload_refusal(validator: Validator, data: bytes, error_id: str) -> ErrorEnvelope | None:
    """Return why a payload breaks its contract, naming the field, or None."""
    try:
        value: Any = msgspec.json.decode(data) if data else None
    except msgspec.DecodeError as error:
        return envelope(
            "payload_invalid", f"Expected JSON as payload, but: {error}.",
            error_id=error_id, field="payload", expected="JSON", found=data[:100],
        )  # fmt: skip
    fault = jsonschema.exceptions.best_match(validator.iter_errors(value))
    if fault is None:
        return None
    path = ".".join(["payload", *map(str, fault.absolute_path)])
    expected = f"{fault.validator} {json.dumps(fault.validator_value)[:200]}"
    return envelope(
        "payload_invalid", f"Expected {path} to satisfy {expected}, but: {fault.message[:300]}",
        error_id=error_id, field=path, expected=expected, found=fault.instance,
    )  # fmt: skip
