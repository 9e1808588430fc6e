"""Writes the corpus to the log: assertions as the gateway would write them, in bulk, under ids that say what they are."""

import tokenize
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import Distribution
from itertools import islice
from typing import Final

import msgspec

from controlplane.demo.corpus import CONFIDENCES, PARSER, PREDICATES, Claim, claims, files
from controlplane.events import types
from controlplane.events.catalog import Service
from controlplane.events.header import outside_header
from controlplane.events.identity import Instant
from controlplane.log.connection import LogConnection
from controlplane.log.producer import LogProducer

AT_ONCE: Final = 10_000
BEGUN: Final = Instant(1_767_225_600_000_000)
"""When it says that it happened: the same corpus is the same records, whenever it is written."""


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """How much was written, and up to where."""

    packages: int
    modules: int
    assertions: int
    truths: int
    positions: list[str]


def said(package: Distribution) -> Iterator[Claim]:
    """Yield what is said of a package and of its modules; what is no text is passed over."""
    name = package.metadata["Name"]
    yield Claim(
        f"package:{name}", "version", types.TypedValue(kind=types.ValueKind.STRING, text=package.version), PARSER
    )
    for file in files(package):
        try:
            with tokenize.open(file.path) as text:
                source = text.read()
        except (OSError, SyntaxError, UnicodeDecodeError):
            continue
        yield from claims(file, source)


def _event(claim: Claim, producer: LogProducer) -> types.TruthAsserted:
    identity = f"{claim.source}/{claim.subject}/{claim.predicate}/{claim.value.text}"
    return types.TruthAsserted(
        header=outside_header("TruthAsserted", identity, producer.identity, BEGUN, correlation_id="corpus"), subject=claim.subject,
        predicate=claim.predicate, object=claim.value, confidence=CONFIDENCES[claim.source],
        source=types.Source(kind=types.SourceKind.CLIENT, name=claim.source), evidence=types.Evidence(),
    )  # fmt: skip


async def write_corpus(
    connection: LogConnection, chosen: Sequence[Distribution], *, truths: int | None = None, progress: Callable[[int, int, str], None] | None = None
) -> Written:  # fmt: skip
    """Declare the predicates and write what is said of these packages, until there are so many truths; the same again writes the same assertions.

    Raises:
        LogUnavailable: the log did not take the records.
    """
    producer = LogProducer(connection, service=Service.GATEWAY, instance="corpus")
    await producer.start()
    pairs: set[tuple[str, str]] = set()
    newest: dict[tuple[str, int], int] = {}
    modules = assertions = done = 0
    try:
        for predicate, cardinality in PREDICATES.items():
            header = outside_header(
                "PredicateDeclared", f"corpus/{predicate}", producer.identity, BEGUN, correlation_id="corpus"
            )
            await producer.publish(
                types.PredicateDeclared(
                    header=header, subject=f"predicate:{predicate}", predicate=predicate, cardinality=cardinality, rule=types.FusionRule.DEFAULT
                )
            )  # fmt: skip
        for package in chosen:
            if truths is not None and len(pairs) >= truths:
                break
            some = said(package)
            while batch := list(islice(some, AT_ONCE)):
                places = await producer.send([producer.record(_event(one, producer)) for one in batch])
                newest |= {(place.topic, place.partition): place.offset for place in places}
                pairs.update((one.subject, one.predicate) for one in batch)
                modules += sum(one.predicate == "package" for one in batch)
                assertions += len(batch)
            done += 1
            if progress is not None:
                progress(done, len(chosen), package.metadata["Name"])
    finally:
        await producer.stop()
    return Written(
        packages=done, modules=modules, assertions=assertions, truths=len(pairs),
        positions=[f"{topic}/{number}/{offset}" for (topic, number), offset in sorted(newest.items())],
    )  # fmt: skip
