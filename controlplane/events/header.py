"""Headers: where an event says what it is, what caused it and who wrote it."""

from typing import Final

import msgspec

from controlplane.events.identity import Instant, name_based_id
from controlplane.events.types import EventHeader, LogPosition, Producer

EVERY_TENANT: Final = "*"
"""Tenant of a command by somebody who may command the jobs of all tenants; no tenant can have this name."""


def concerns(asking: str, tenant: str) -> bool:
    """Say whether somebody of the one tenant may see and touch what belongs to the other."""
    return asking in {tenant, EVERY_TENANT}


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """The consumed record that an event follows from: its position and the chain that it belongs to."""

    position: LogPosition
    correlation_id: str
    tenant: str = "default"
    actor: str | None = None
    scope: str = ""
    """Tells effects of one record on several jobs apart: the job."""

    @property
    def name(self) -> str:
        """Return what ids of effects follow from."""
        position = self.position
        place = f"{position.topic}/{position.partition}/{position.offset}"
        return f"{place}/{self.scope}" if self.scope else place


def caused_header(cause: Cause, event_name: str, ordinal: int, producer: Producer, now: Instant) -> EventHeader:
    """Return the header of an event that is a function of its cause: deciding again gives the same event id."""
    return EventHeader(
        event_id=name_based_id(f"{cause.name}/{event_name}/{ordinal}"), occurred_at=now, correlation_id=cause.correlation_id,
        causation=cause.position, producer=producer, tenant=cause.tenant, actor=cause.actor,
    )  # fmt: skip


def leased_header(cause: Cause, event_name: str, attempt_id: str, producer: Producer, now: Instant) -> EventHeader:
    """Return the header of a decision that shared state took part in: its id follows from the lease, not the cause."""
    return EventHeader(
        event_id=name_based_id(f"{event_name}/{attempt_id}"), occurred_at=now, correlation_id=cause.correlation_id,
        causation=cause.position, producer=producer, tenant=cause.tenant, actor=cause.actor,
    )  # fmt: skip


def outside_header(
    event_name: str, identity: str, producer: Producer, now: Instant, *, correlation_id: str | None = None, tenant: str = "default",
    actor: str | None = None, causation: LogPosition | None = None,
) -> EventHeader:  # fmt: skip
    """Return the header of an event that a client brings; the same identity gives the same event id, so repeats are one.

    `causation` is for a job's own submissions: the position of the JobRouted record that its runner consumed.
    """
    return EventHeader(
        event_id=name_based_id(f"{event_name}/{identity}"), occurred_at=now, correlation_id=correlation_id or identity,
        causation=causation, producer=producer, tenant=tenant, actor=actor,
    )  # fmt: skip
