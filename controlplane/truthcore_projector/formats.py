"""Answers as tables: Arrow streams and Parquet files, each saying in its own metadata what it reflects."""

from collections.abc import Mapping
from typing import Any, Final, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from fastapi import Request
from fastapi.responses import Response

from controlplane.api.models import Reflects
from controlplane.api.tables import REFLECTS, TRUNCATED

Format = Literal["json", "arrow", "parquet"]

MEDIA_TYPES: Final[Mapping[Format, str]] = {
    "json": "application/json", "arrow": "application/vnd.apache.arrow.stream", "parquet": "application/vnd.apache.parquet",
}  # fmt: skip

AS_TABLES: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "content": {
            MEDIA_TYPES[form]: {"schema": {"type": "string", "format": "binary"}} for form in ("arrow", "parquet")
        }
    }
}
"""What a path says of its answers that may be tables, beside JSON."""


def wanted_format(request: Request, named: Format | None) -> Format:
    """Return the form that a request names, or that its Accept header does; JSON when neither says anything else."""
    if named is not None:
        return named
    accept = request.headers.get("accept", "")
    return next((form for form in ("arrow", "parquet") if MEDIA_TYPES[form] in accept), "json")


def table_response(
    table: pa.Table, form: Format, reflects: Reflects, *, truncated: bool, following: str | None = None
) -> Response:
    """Return a table in a form; its schema's metadata says what it reflects, and whether there were more rows."""
    said = {REFLECTS: reflects.model_dump_json().encode(), TRUNCATED: b"true" if truncated else b"false"}
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), **said})
    sink = pa.BufferOutputStream()
    if form == "parquet":
        pq.write_table(table, sink, compression="zstd")
    else:
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    headers = {
        "controlplane-answered-by": ",".join(reflects.answered_by), "controlplane-lag-records": str(reflects.lag_records),
    }  # fmt: skip
    if following is not None:
        headers["controlplane-next-cursor"] = following
    return Response(bytes(sink.getvalue()), media_type=MEDIA_TYPES[form], headers=headers)
