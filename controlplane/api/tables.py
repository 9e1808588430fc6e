"""Truths as a table, alike wherever it is made; what a table says of itself in its schema's metadata."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from controlplane.api.models import TruthView
from controlplane.events.values import canonical_json

if TYPE_CHECKING:
    import pyarrow as pa

REFLECTS: Final = b"controlplane.reflects"
"""Metadata: what the table reflects, as JSON."""
TRUNCATED: Final = b"controlplane.truncated"
"""Metadata: `true` if there were more rows."""
TRUTH_COLUMNS: Final = {
    "subject": "string", "predicate": "string", "value": "string", "number": "double", "kind": "string", "unit": "string",
    "confidence": "double", "rule": "string", "conflict": "bool",
}  # fmt: skip
"""Columns of truths and their Arrow types; `sources` follows, a list of strings."""


def truth_table(truths: Iterable[TruthView]) -> "pa.Table":
    """Return one row per truth: its value as text, and as a number where it is one; `sources` vote for it."""
    import pyarrow as pa

    columns = [(name, pa.type_for_alias(alias)) for name, alias in TRUTH_COLUMNS.items()]
    schema = pa.schema([*columns, ("sources", pa.list_(pa.string()))])
    return pa.Table.from_pylist([_row(truth) for truth in truths], schema=schema)


def _row(truth: TruthView) -> dict[str, Any]:
    value = truth.value
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    # Where many values are true at once, all candidates are; of one, a boolean equals a number.
    chosen = (value, truth.kind, truth.unit)
    for_it = [one for one in truth.candidates if truth.contract.many or (one.value, one.kind, one.unit) == chosen]
    return {
        "subject": truth.subject, "predicate": truth.predicate, "value": as_text(value),
        "number": float(value) if is_number else None, "kind": truth.kind, "unit": truth.unit,
        "confidence": truth.confidence, "rule": truth.rule, "conflict": truth.conflict,
        "sources": sorted({vote.source for one in for_it for vote in one.votes}),
    }  # fmt: skip


def as_text(value: object) -> str:
    """Return a value as text: a text itself, anything else as JSON."""
    return value if isinstance(value, str) else canonical_json(value)
