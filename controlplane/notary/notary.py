"""The notary at work: reads every partition, grows its tree, signs its heads onto the log. The last checkpoint on the log is its state.

It needs no lock and no leader: trees follow from the log alone, so two notaries with one key sign the same heads with the same event ids.
"""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge

from controlplane.events.catalog import CHECKPOINTS, Service
from controlplane.events.identity import Instant
from controlplane.log.connection import LogConnection, LogUnavailable
from controlplane.log.positions import Partition
from controlplane.log.producer import LogProducer
from controlplane.log.reader import Batches, LogReader, PositionGone
from controlplane.notary.heads import TreeHead, head_of, signed_event
from controlplane.notary.ledger import last_entries, signed_partitions
from controlplane.notary.tree import PartitionTree
from controlplane.security.checkpoint import origin_of

BATCH_RECORDS: Final = 5_000
"""Hashed in one go, off the event loop: tens of milliseconds."""
WAIT_SECONDS: Final = 0.5
AGAIN_SECONDS: Final = 1.0
TOLD_SECONDS: Final = 2.0
"""Where a partition ends counts as known for so long: several times as long as a broker waits for news to answer with."""

logger = logging.getLogger(__name__)


class Notary:
    """Signs while `run` runs."""

    def __init__(
        self, connection: LogConnection, key: Ed25519PrivateKey, trusted: Sequence[Ed25519PublicKey], counts: Mapping[str, int], *,
        every_records: int, every_seconds: float, registry: CollectorRegistry = REGISTRY,
    ) -> None:  # fmt: skip
        """Prepare a notary; `trusted` are the keys whose checkpoints it goes on from."""
        self._connection = connection
        self._key = key
        self._trusted = trusted
        self._counts = counts
        self._every_records = every_records
        self._every_seconds = every_seconds
        self._producer = LogProducer(connection, service=Service.NOTARY, partitions=counts)
        self._trees: dict[Partition, PartitionTree] = {}
        # Until when each partition is known to be signed: what nobody could look at, or publish, is not.
        self._signed_until_milliseconds = dict.fromkeys(signed_partitions(counts), time.time_ns() // 1_000_000)
        self.reading = False
        self._signed = Counter("controlplane_notary_checkpoints", "Checkpoints signed.", registry=registry)
        self._unsigned = Gauge(
            "controlplane_notary_unsigned_records", "Records that no checkpoint covers yet.", registry=registry
        )
        self._unsigned.set_function(lambda: float(sum(tree.unsigned for tree in self._trees.values())))
        self._oldest = Gauge(
            "controlplane_notary_oldest_unsigned_seconds",
            "Age of the oldest record that is not signed, or would be: while nobody can look, records count as having come.",
            registry=registry,
        )
        self._oldest.set_function(self._oldest_seconds)

    async def run(self, stop: asyncio.Event) -> None:
        """Sign until told to stop, then sign what was read; a blip of the log is waited out.

        Raises:
            PositionGone: records that are not signed yet are no longer on the log.
            NoteInvalid, LedgerInvalid: the last checkpoint of a partition is not one to go on from.
        """
        while not stop.is_set():
            try:
                await self._producer.start()
                async with LogReader(self._connection, client_id="controlplane-notary") as reader:
                    await self._take_up(reader)
                    self.reading = True
                    while not stop.is_set():
                        await self._turn(await reader.batch(timeout_seconds=WAIT_SECONDS, max_records=BATCH_RECORDS))
                        self._look(reader)
                    await self._publish([head for tree in self._trees.values() if (head := tree.seal())])
            except PositionGone:
                raise
            except LogUnavailable as error:
                logger.warning("The notary waits: %s", error)
                await asyncio.sleep(AGAIN_SECONDS)
            finally:
                self.reading = False
                await self._producer.stop()

    async def _take_up(self, reader: LogReader) -> None:
        """Build each tree from its last checkpoint on the log, or from the first record."""
        places = signed_partitions(self._counts)
        origins = {origin_of(*place): place for place in places}
        entries = await last_entries(reader, origins, self._counts[CHECKPOINTS.name])
        heads = {origins[origin]: head_of(entry.event, self._trusted) for origin, entry in entries.items()}
        fresh = [place for place in places if place not in heads]
        begins = await reader.beginning_offsets(fresh) if fresh else {}
        self._trees = {place: PartitionTree(place, heads.get(place) or begins[place]) for place in places}
        await reader.assign({place: tree.next_offset for place, tree in self._trees.items()})

    async def _turn(self, batches: Batches) -> None:
        """Take what came and sign what is due.

        Step 1: grow the trees. A crash after it: they are grown again from the last checkpoint.
        Step 2: publish. Given up after it: the same, and the same heads are signed again with the same ids.
        """
        due = await asyncio.to_thread(self._grow, batches)  # Step 1.
        now_milliseconds = time.time_ns() // 1_000_000
        for tree in self._trees.values():
            since = tree.unsigned_since_milliseconds
            if since is not None and now_milliseconds - since >= self._every_seconds * 1000 and (head := tree.seal()):
                due.append(head)
        await self._publish(due)  # Step 2.

    def _grow(self, batches: Batches) -> list[TreeHead]:
        return [
            head for place, records in batches.items() for head in self._trees[place].take(records, self._every_records)
        ]

    async def _publish(self, heads: Sequence[TreeHead]) -> None:
        now = Instant(time.time_ns() // 1000)
        events = [signed_event(head, self._key, self._producer.identity, now) for head in heads]
        await self._producer.send([self._producer.record(event) for event in events])
        self._signed.inc(len(events))

    def _look(self, reader: LogReader) -> None:
        """Note until when each partition is signed, now that what was due is on the log.

        That nothing came proves nothing: a reader is as silent about brokers that do not answer. So their word counts, where it is fresh.
        """
        told_milliseconds = time.time_ns() // 1_000_000 - int(TOLD_SECONDS * 1000)
        ends = reader.known_ends(self._trees, age_seconds=TOLD_SECONDS)
        for place, tree in self._trees.items():
            if place in ends and tree.next_offset >= ends[place]:
                tree.read_until_milliseconds = max(tree.read_until_milliseconds or 0, told_milliseconds)
            since = tree.unsigned_since_milliseconds
            until = tree.read_until_milliseconds if since is None else since
            if until is not None:
                self._signed_until_milliseconds[place] = until

    def _oldest_seconds(self) -> float:
        return max(0.0, time.time() - min(self._signed_until_milliseconds.values()) / 1000)
