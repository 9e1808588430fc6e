"""Answers as tables: Arrow for programs, pandas for notebooks."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from controlplane.api.models import Reflects, SqlAnswer, TruthView
from controlplane.api.tables import as_text, truth_table
from controlplane.client.errors import LibraryMissing

if TYPE_CHECKING:
    import pyarrow as pa


class Truths(list[TruthView]):
    """Truths as a list, with what the answer reflects; also as a table."""

    def __init__(self, truths: Iterable[TruthView], reflects: Reflects) -> None:
        """Take the truths of an answer."""
        super().__init__(truths)
        self.reflects = reflects

    def to_arrow(self) -> "pa.Table":
        """Return one row per truth: its value as text, and as a number where it is one; `sources` vote for it."""
        return truth_table(self)

    def to_dataframe(self) -> Any:
        """Return the table as a pandas DataFrame.

        Raises:
            LibraryMissing: pandas is not installed.
        """
        return _dataframe(self.to_arrow())


class Rows(SqlAnswer):
    """The answer of a query, also as a table."""

    def to_arrow(self) -> "pa.Table":
        """Return the rows with the types that their values have; a column of mixed types, or of larger integers than 64 bits hold, is text."""
        import pyarrow as pa

        columns = [[row[number] for row in self.rows] for number in range(len(self.columns))]
        return pa.Table.from_arrays([_column(values) for values in columns], names=self.columns)

    def to_dataframe(self) -> Any:
        """Return the rows as a pandas DataFrame.

        Raises:
            LibraryMissing: pandas is not installed.
        """
        return _dataframe(self.to_arrow())


def read_arrow(content: bytes) -> "pa.Table":
    """Return the table of an Arrow stream; its schema's metadata says what it reflects."""
    import pyarrow as pa

    with pa.ipc.open_stream(content) as reader:
        return reader.read_all()


def _column(values: list[Any]) -> "pa.Array":
    import pyarrow as pa

    try:
        return pa.array(values)
    except OverflowError:  # Whole numbers from 2^63 on: as DuckDB's UBIGINT, if all are such.
        if all(value is None or (type(value) is int and 0 <= value < 2**64) for value in values):
            return pa.array(values, type=pa.uint64())
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        pass
    return pa.array([None if value is None else as_text(value) for value in values])


def _dataframe(table: "pa.Table") -> Any:
    try:
        import pandas as pd  # noqa: F401 -- pyarrow's own message does not say what to do
    except ImportError as error:
        raise LibraryMissing(
            "Expected pandas to be installed for a DataFrame, but it is not: pip install pandas."
        ) from error
    return table.to_pandas()
