"""A process that reads numbers as a member of a group, for tests that kill and freeze it.

It keeps what it saw, and its positions, in one SQLite file that all members share: `python -m tests.integration.log.worker BOOTSTRAP FILE
NAME SESSION_SECONDS TOPIC...`.
"""

import asyncio
import signal
import sqlite3
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from controlplane.log.connection import LogConnection
from controlplane.log.positions import Partition
from controlplane.log.transport import batch_app, run_app

GROUP = "numbers"


class Ledger:
    """Numbers, positions and what happened to members, in one file; each method is one transaction."""

    def __init__(self, file: Path) -> None:
        self._database = sqlite3.connect(file, timeout=30.0, isolation_level=None)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.executescript(
            "CREATE TABLE IF NOT EXISTS seen (topic, partition, number, member);"
            "CREATE TABLE IF NOT EXISTS positions (topic, partition, next, PRIMARY KEY (topic, partition));"
            "CREATE TABLE IF NOT EXISTS happened (member, what, partitions);"
        )

    def close(self) -> None:
        self._database.close()

    def rows(self, query: str) -> list[Any]:
        return self._database.execute(query).fetchall()

    def note(self, member: str, what: str, partitions: set[Partition]) -> None:
        text = " ".join(f"{topic}/{number}" for topic, number in sorted(partitions))
        self._database.execute("INSERT INTO happened VALUES (?, ?, ?)", (member, what, text))

    def positions(self, partitions: set[Partition]) -> dict[Partition, int]:
        stored = {(topic, number): position for topic, number, position in self.rows("SELECT * FROM positions")}
        return {one: stored.get(one, 0) for one in partitions}

    def take(self, member: str, records: Sequence[Any]) -> None:
        """Keep a batch and its position; nothing of what is kept already, and a gap is an error."""
        topic, partition = records[0].topic, records[0].partition
        self._database.execute("BEGIN IMMEDIATE")
        position = self.positions({(topic, partition)})[(topic, partition)]
        assert records[0].offset <= position, f"Expected no gap, but {position} is followed by {records[0].offset}."
        self._database.executemany(
            "INSERT INTO seen VALUES (?, ?, ?, ?)",
            [(topic, partition, int(one.value), member) for one in records if one.offset >= position],
        )
        following = max(position, records[-1].offset + 1)
        self._database.execute("INSERT OR REPLACE INTO positions VALUES (?, ?, ?)", (topic, partition, following))
        self._database.execute("COMMIT")


async def work(bootstrap: str, file: Path, member: str, session_seconds: float, topics: Sequence[str]) -> None:
    """Read until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    with closing(Ledger(file)) as ledger:

        async def take_over(assigned: set[Partition]) -> Mapping[Partition, int]:
            ledger.note(member, "took over", assigned)
            return ledger.positions(assigned)

        async def hand_over(revoked: set[Partition]) -> None:
            ledger.note(member, "handed over", revoked)

        app = batch_app(
            GROUP, LogConnection(bootstrap=bootstrap), take_over=take_over, hand_over=hand_over,
            session_seconds=session_seconds, client_id=member,
        )  # fmt: skip

        async def read(stream: Any) -> None:
            async for event in stream.noack().events():
                ledger.take(member, event.value)
                event.ack()

        app.agent(app.topic(*topics, key_serializer="raw", value_serializer="raw"))(read)
        await run_app(app, stop)


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1], Path(sys.argv[2]), sys.argv[3], float(sys.argv[4]), sys.argv[5:]))
