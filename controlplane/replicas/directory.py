"""Follows what each TruthCore process says of itself."""

import asyncio
import logging
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

import httpx
from pydantic import ValidationError

from controlplane.api.replicas import Standing
from controlplane.log.positions import Partition
from controlplane.replicas.choice import Replica, ranked

LOOK_SECONDS: Final = 0.5
ANSWER_SECONDS: Final = 2.0

logger = logging.getLogger(__name__)


class Directory:
    """The replicas behind some URLs; `follow` keeps it up to date."""

    def __init__(self, urls: Sequence[str], verify: ssl.SSLContext | bool = True) -> None:
        """Prepare; until somebody looked, every replica counts as down and is asked all the same."""
        self._verify = verify
        self.replicas = [Replica(url=url.rstrip("/")) for url in urls]

    def best(self, wanted: Mapping[Partition, int] | None = None, shard: int | None = None) -> list[Replica]:
        """Return the replicas, of one shard or of all, the best to ask first."""
        some = [
            one for one in self.replicas if shard is None or (one.standing is not None and one.standing.shard == shard)
        ]
        return ranked(some, wanted or {})

    @contextmanager
    def asking(self, replica: Replica) -> Iterator[None]:
        """Count a question while it is on its way; a replica that cannot be reached is down until it answers again.

        That the asker has no connection free says nothing of the replica.
        """
        replica.questions += 1
        replica.answered += 1
        try:
            yield
        except httpx.PoolTimeout:
            raise
        except httpx.TransportError as error:
            self.lost(replica, error)
            raise
        finally:
            replica.questions -= 1

    def lost(self, replica: Replica, error: object) -> None:
        """Take a replica for down."""
        if replica.standing is not None:
            logger.warning("TruthCore at %s is not asked any more: %r", replica.url, error)
            replica.standing = None

    async def follow(self) -> None:
        """Ask every replica how it stands, again and again, until cancelled."""
        async with httpx.AsyncClient(timeout=ANSWER_SECONDS, verify=self._verify) as client:
            await asyncio.gather(*(self._follow(client, one) for one in self.replicas))

    async def _follow(self, client: httpx.AsyncClient, replica: Replica) -> None:
        while True:
            await self.look(client, replica)
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self, client: httpx.AsyncClient, replica: Replica) -> None:
        """Ask one replica how it stands."""
        try:
            answer = await client.get(f"{replica.url}/v1/standing")
            standing = Standing.model_validate_json(answer.raise_for_status().content)
        except (httpx.HTTPError, ValidationError) as error:
            self.lost(replica, error)
            return
        if replica.standing is None:
            logger.info(
                "TruthCore at %s answers: %s, shard %d of %d.",
                replica.url,
                standing.name,
                standing.shard,
                standing.shards,
            )
        replica.standing = standing
