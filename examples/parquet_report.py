"""Ask DuckDB about exported history: `controlplane export history`, then `python parquet_report.py history`."""

import sys

import duckdb
import pyarrow as pa

REPORT = """
    SELECT event_type, count(*) AS events, min(log_time) AS first, max(log_time) AS last
    FROM read_parquet($folder || '/events/*/*.parquet', hive_partitioning = true)
    GROUP BY event_type ORDER BY events DESC, event_type
"""


def main(folder: str) -> None:
    table: pa.Table = duckdb.execute(REPORT, {"folder": folder}).to_arrow_table()
    print(table.select(["event_type", "events"]).to_pydict())


if __name__ == "__main__":
    main(sys.argv[1])
