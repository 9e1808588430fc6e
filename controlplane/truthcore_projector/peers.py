"""The other shards, asked over HTTP: one open snapshot at a replica of each."""

import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import httpx
import pyarrow as pa

from controlplane.api.models import Reflects
from controlplane.api.problems import refused
from controlplane.api.replicas import PartAnswer, Standing
from controlplane.events.errors import ERROR_CODES
from controlplane.replicas.choice import Replica
from controlplane.replicas.directory import Directory
from controlplane.truthcore_projector.cursors import Parameters
from controlplane.truthcore_projector.parts import ARROW, read_table, statement_bytes
from controlplane.truthcore_projector.visibility import as_seen

ANSWER_SECONDS: Final = 40.0


class PartLost(Exception):
    """Expected a replica of another shard to go on answering, but it does not."""


class RemotePart:
    """A snapshot of another shard."""

    def __init__(self, client: httpx.Client, replica: Replica, opened: PartAnswer) -> None:
        """Take a part that was opened."""
        self._client = client
        self._replica = replica
        self.standing: Final[Standing] = opened.standing
        self._url = f"{replica.url}/v1/parts/{opened.part}"

    def table(self, query: str, parameters: Parameters, about: Sequence[str] = ()) -> pa.Table:
        """Return the rows of a statement.

        Raises:
            PartLost: the replica has gone, or forgot the snapshot.
        """
        try:
            answer = self._client.post(
                self._url, content=statement_bytes(query, parameters, about), headers={"content-type": ARROW}
            )
        except httpx.TransportError as error:
            self._replica.standing = None
            raise PartLost(f"{self._replica.url}: {error!r}") from error
        if answer.status_code == 404:
            raise PartLost(f"{self._replica.url} does not know the part any more.")
        if answer.status_code != 200:
            raise _refusal(answer)
        return read_table(answer.content)

    def close(self) -> None:
        """Let the snapshot go; what cannot be told to the replica ends there by itself."""
        try:
            self._client.delete(self._url)
        except httpx.TransportError:
            self._replica.standing = None


class Peers:
    """The replicas of the other shards."""

    def __init__(self, directory: Directory, verify: ssl.SSLContext | bool = True) -> None:
        """Take what is known of the replicas."""
        self.directory = directory
        self._client = httpx.Client(timeout=ANSWER_SECONDS, verify=verify)

    def close(self) -> None:
        """Disconnect."""
        self._client.close()

    @contextmanager
    def parts(
        self, shards: Sequence[int], wanted: Mapping[Any, int], texts: Sequence[str], wait_seconds: float
    ) -> Iterator[list[RemotePart]]:
        """Open a snapshot of each of these shards while the block runs.

        Raises:
            Refused: no replica of a shard answers, or it does not reach the wanted positions in time.
        """
        with ExitStack() as stack:
            parts: list[RemotePart] = []
            for shard in shards:
                parts.append(self._open(shard, wanted, texts, wait_seconds))
                stack.callback(parts[-1].close)
            yield parts

    def _open(self, shard: int, wanted: Mapping[Any, int], texts: Sequence[str], wait_seconds: float) -> RemotePart:
        body = {"min_position": list(texts), "wait_seconds": wait_seconds}
        fault: object = "none is known"
        for replica in self.directory.best(wanted, shard):
            try:
                with self.directory.asking(replica):
                    answer = self._client.post(f"{replica.url}/v1/parts", json=body, headers=as_seen())
            except httpx.TransportError as error:
                fault = repr(error)
                continue
            if answer.status_code != 200:
                raise _refusal(answer)
            return RemotePart(self._client, replica, PartAnswer.model_validate_json(answer.content))
        text = f"Expected a TruthCore of shard {shard} to answer, but: {fault}."
        raise refused("projection_unavailable", text)


def _refusal(answer: httpx.Response) -> Exception:
    """Return a peer's refusal as our own."""
    problem = answer.json() if "json" in answer.headers.get("content-type", "") else {}
    code = problem.get("code")
    return refused(
        code if code in ERROR_CODES else "internal", problem.get("message", f"A peer answered {answer.status_code}.")
    )


def merged(standings: Sequence[Standing]) -> Reflects:
    """Return what an answer made of all shards reflects: of a partition that several read, what each has."""
    positions: dict[str, dict[int, int]] = {}
    for one in standings:
        for topic, some in one.reflects.positions.items():
            for partition, offset in some.items():
                known = positions.setdefault(topic, {})
                known[partition] = min(offset, known.get(partition, offset))
    return Reflects(
        positions={topic: dict(sorted(positions[topic].items())) for topic in sorted(positions)},
        lag_records=sum(one.reflects.lag_records for one in standings),
        lag_seconds=max(one.reflects.lag_seconds for one in standings),
        answered_by=[one.name for one in standings],
    )
