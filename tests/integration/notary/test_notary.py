"""The notary on a real broker: every record comes under a signature once, and whoever changes the broker's files is found out."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from controlplane.events.catalog import CHECKPOINTS, Service
from controlplane.events.codec import decode
from controlplane.events.types import LogPosition
from controlplane.local.stack import EmbeddedStack
from controlplane.log.connection import LogConnection
from controlplane.log.producer import LogProducer, OutgoingRecord
from controlplane.log.reader import LogReader
from controlplane.log.topics import ensure_topics
from controlplane.notary.keys import private_key, public_keys, public_keys_file, publish
from controlplane.notary.ledger import read_range
from controlplane.notary.notary import TOLD_SECONDS, Notary
from controlplane.notary.prove import prove
from controlplane.notary.verify import LogVerdict, latest_anchors, verify_log
from controlplane.settings import Settings
from tests.integration.notary.segments import rewrite, with_value

TOPIC = "controlplane.jobs"
PARTITIONS = 6
PER_PARTITION = 30
LEDGERS = 4
ALONE = 1
"""The partition of the checkpoints that holds those of controlplane.jobs/5 only, by the CRC-32 of their key."""
EVERY_RECORDS = 8
WITHIN_SECONDS = 30.0


def settings_for(stack: EmbeddedStack, folder: Path) -> Settings:
    return Settings(
        kafka_bootstrap=stack.kafka_bootstrap, data_dir=folder, partitions_jobs=PARTITIONS, partitions_routing=1, partitions_other=LEDGERS
    )  # fmt: skip


async def write(connection: LogConnection, counts: dict[str, int], first: int, end: int) -> None:
    """Append records one by one, so that each is a batch of its own on the broker's disk."""
    producer = LogProducer(connection, service=Service.JOBFORGE, partitions=counts)
    await producer.start()
    try:
        for number in range(first, end):
            await producer.send([
                OutgoingRecord(topic=TOPIC, partition=place, key=b"job-%d" % place, value=b"value-%04d" % number, headers=(("n", b"1"),))
                for place in range(PARTITIONS)
            ])  # fmt: skip
    finally:
        await producer.stop()


@asynccontextmanager
async def signing(
    settings: Settings, counts: dict[str, int], registry: CollectorRegistry | None = None
) -> AsyncIterator[asyncio.Task[None]]:
    """A notary that works during the block, and signs the rest when it ends."""
    key = private_key(settings)
    notary = Notary(
        LogConnection.from_settings(settings), key, publish(key, public_keys_file(settings)), counts,
        every_records=EVERY_RECORDS, every_seconds=0.5, registry=registry or CollectorRegistry(),
    )  # fmt: skip
    stop = asyncio.Event()
    work = asyncio.create_task(notary.run(stop))
    try:
        yield work
    finally:
        stop.set()
        await asyncio.wait([work])
    if not work.cancelled():
        work.result()


async def all_signed(settings: Settings, records: int) -> LogVerdict:
    """Return the verdict once nothing is unsigned."""
    async with asyncio.timeout(WITHIN_SECONDS):
        while True:
            found = await verify_log(LogConnection.from_settings(settings), public_keys(public_keys_file(settings)))
            if found.records == records and not found.unsigned_records:
                return found
            await asyncio.sleep(0.2)


async def told_young(registry: CollectorRegistry) -> None:
    """Wait until the notary tells that nothing old is without a signature: these brokers say so of every partition, news or none."""
    async with asyncio.timeout(WITHIN_SECONDS):
        while (registry.get_sample_value("controlplane_notary_oldest_unsigned_seconds") or 0.0) > TOLD_SECONDS + 1.0:  # noqa: ASYNC110 -- a gauge
            await asyncio.sleep(0.2)


async def checkpoints(settings: Settings) -> list[Any]:
    async with LogReader(LogConnection.from_settings(settings), client_id="test") as reader:
        ends = await reader.end_offsets([(CHECKPOINTS.name, number) for number in range(LEDGERS)])
        return [decode(one.value) for place, end in ends.items() for one in await read_range(reader, place, 0, end)]


async def sign_through_a_crash(settings: Settings) -> LogVerdict:
    """Write and sign; the notary is cut off in the middle and two others go on at once."""
    connection = LogConnection.from_settings(settings)
    counts = await ensure_topics(connection, settings)
    third = PER_PARTITION // 3
    registry = CollectorRegistry()
    async with signing(settings, counts, registry) as work:
        await write(connection, counts, 0, third)
        await all_signed(settings, third * PARTITIONS)
        await asyncio.sleep(TOLD_SECONDS + 1.5)  # Else it would be young for having begun.
        await told_young(registry)
        await write(connection, counts, third, 2 * third)
        work.cancel()
    async with signing(settings, counts), signing(settings, counts):
        await write(connection, counts, 2 * third, PER_PARTITION)
        return await all_signed(settings, PER_PARTITION * PARTITIONS)


def verified_elsewhere(proof: Any, settings: Settings, folder: Path) -> tuple[int, str]:
    """Check a proof with the stand-alone verifier, in a process that knows nothing of ControlPlane."""
    file = folder / "proof.json"
    file.write_text(json.dumps(proof))
    tool = Path("tools/verify_inclusion.py").absolute()
    done = subprocess.run(
        [sys.executable, "-I", str(tool), str(file), str(public_keys_file(settings))], cwd=folder, capture_output=True, text=True, check=False
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_everything_is_signed_through_crashes_and_what_an_intruder_changes_is_found(
    own_stack: EmbeddedStack, tmp_path: Path
) -> None:
    settings = settings_for(own_stack, tmp_path)
    connection = LogConnection.from_settings(settings)
    intact = asyncio.run(sign_through_a_crash(settings))
    assert intact.intact, intact.findings
    assert intact.records == PER_PARTITION * PARTITIONS

    events = asyncio.run(checkpoints(settings))
    by_id: dict[str, set[str]] = {}
    for one in events:
        by_id.setdefault(one.header.event_id, set()).add(one.note)
    assert {identity: notes for identity, notes in by_id.items() if len(notes) != 1} == {}
    assert {one.tree_size for one in events} >= set(range(EVERY_RECORDS, PER_PARTITION, EVERY_RECORDS))
    assert {one.header.causation for one in events} <= {
        LogPosition(topic=TOPIC, partition=place, offset=offset)
        for place in range(PARTITIONS)
        for offset in range(PER_PARTITION)
    }

    keys = public_keys(public_keys_file(settings))
    for offset in (0, 7, 8, PER_PARTITION - 1):
        proof = asyncio.run(prove(connection, LogPosition(topic=TOPIC, partition=2, offset=offset), keys))
        assert verified_elsewhere(proof, settings, tmp_path)[0] == 0
        proof["record"]["value"] = proof["record"]["value"][:-4] + "AAA="
        code, words = verified_elsewhere(proof, settings, tmp_path)
        assert (code, "Expected the path to lead to the signed root" in words) == (1, True), words
    anchors = asyncio.run(latest_anchors(connection, keys))
    assert len(anchors) == PARTITIONS

    own_stack.kafka.stop()
    data = own_stack.data_dir / "kafka" / "data"

    def exchanged(batches: list[bytes]) -> list[bytes]:
        batches[4], batches[20] = batches[20], batches[4]
        return batches

    rewrite(
        data / f"{TOPIC}-0",
        lambda all_: [with_value(one, b"value-0009", b"value-0008") if n == 9 else one for n, one in enumerate(all_)],
    )
    rewrite(data / f"{TOPIC}-1", lambda all_: [*all_[:11], *all_[12:]])
    rewrite(data / f"{TOPIC}-3", lambda all_: [*all_[:5], all_[5], *all_[5:]])
    rewrite(data / f"{TOPIC}-4", exchanged)
    # One who also takes the last checkpoints away: only those that were kept elsewhere tell.
    rewrite(data / f"{TOPIC}-5", lambda all_: all_[: PER_PARTITION - 2])
    rewrite(
        data / f"{CHECKPOINTS.name}-{ALONE}",
        lambda all_: [one for one in all_ if f"{TOPIC}/5\n{PER_PARTITION}\n".encode() not in one],
    )
    own_stack.kafka.start()

    found = asyncio.run(verify_log(connection, keys))
    assert {one.origin for one in found.findings} == {f"{TOPIC}/{place}" for place in (0, 1, 3, 4)}
    [changed] = [one for one in found.findings if one.origin == f"{TOPIC}/0"]
    assert changed.from_offset <= 9 < changed.to_offset < PER_PARTITION
    kept = asyncio.run(verify_log(connection, keys, anchors))
    assert {one.origin for one in kept.findings} == {f"{TOPIC}/{place}" for place in (0, 1, 3, 4, 5)}
