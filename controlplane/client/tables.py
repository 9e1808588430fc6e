"""Answers as tables: Arrow for programs, pandas for notebooks."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from controlplane.api.models import Reflects, SqlAnswer, TruthView
from controlplane.client.errors import LibraryMissing
from controlplane.events.values import canonical_json

if TYPE_CHECKING:
    import pyarrow as pa

TRUTH_COLUMNS: Final = {
    "subject": "string", "predicate": "string", "value": "string", "number": "double", "kind": "string", "unit": "string",
    "confidence": "double", "rule": "string", "conflict": "bool",
}  # fmt: skip
"""Columns of truths and their Arrow types; `sources` follows, a list of strings."""


class Truths(list[TruthView]):
    """Truths as a list, with what the answer reflects; also as a table."""

    def __init__(self, truths: Iterable[TruthView], reflects: Reflects) -> None:
        """Take the truths of an answer."""
        super().__init__(truths)
        self.reflects = reflects

    def to_arrow(self) -> "pa.Table":
        """Return one row per truth: its value as text, and as a number where it is one; `sources` vote for it."""
        import pyarrow as pa

        columns = [(name, pa.type_for_alias(alias)) for name, alias in TRUTH_COLUMNS.items()]
        schema = pa.schema([*columns, ("sources", pa.list_(pa.string()))])
        return pa.Table.from_pylist([_row(truth) for truth in self], schema=schema)

    def to_dataframe(self) -> Any:
        """Return the table as a pandas DataFrame.

        Raises:
            LibraryMissing: pandas is not installed.
        """
        return _dataframe(self.to_arrow())


class Rows(SqlAnswer):
    """The answer of a query, also as a table."""

    def to_arrow(self) -> "pa.Table":
        """Return the rows with the types that their values have; a column of mixed types is text."""
        import pyarrow as pa

        columns = [[row[number] for row in self.rows] for number in range(len(self.columns))]
        return pa.Table.from_arrays([_column(values) for values in columns], names=self.columns)

    def to_dataframe(self) -> Any:
        """Return the rows as a pandas DataFrame.

        Raises:
            LibraryMissing: pandas is not installed.
        """
        return _dataframe(self.to_arrow())


def _row(truth: TruthView) -> dict[str, Any]:
    value = truth.value
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    for_it = next((one for one in truth.candidates if one.value == value), None)
    return {
        "subject": truth.subject, "predicate": truth.predicate, "value": _text(value),
        "number": float(value) if is_number else None, "kind": truth.kind, "unit": truth.unit,
        "confidence": truth.confidence, "rule": truth.rule, "conflict": truth.conflict,
        "sources": sorted({vote.source for vote in for_it.votes}) if for_it else [],
    }  # fmt: skip


def _text(value: object) -> str:
    return value if isinstance(value, str) else canonical_json(value)


def _column(values: list[Any]) -> "pa.Array":
    import pyarrow as pa

    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if value is None else _text(value) for value in values])


def _dataframe(table: "pa.Table") -> Any:
    try:
        import pandas as pd  # noqa: F401 -- pyarrow's own message does not say what to do
    except ImportError as error:
        raise LibraryMissing(
            "Expected pandas to be installed for a DataFrame, but it is not: pip install pandas."
        ) from error
    return table.to_pandas()
