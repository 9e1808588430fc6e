"""How the parts of a JobForge instance end together."""

import asyncio

import pytest

from controlplane.jobforge_agent import service
from controlplane.jobforge_agent.agent import PartitionLost


def test_all_parts_end_with_the_first_also_one_that_takes_it_for_a_time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "CANCEL_AGAIN_SECONDS", 0.01)
    swallowed = 0

    async def breaks() -> None:
        await asyncio.sleep(0)
        raise PartitionLost("another instance has it")

    async def goes_on() -> None:
        nonlocal swallowed
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                swallowed += 1
                if swallowed == 3:
                    raise

    async def ends() -> None:
        async with asyncio.timeout(30):
            await service._until_one_ends(breaks(), goes_on())

    with pytest.raises(PartitionLost):
        asyncio.run(ends())
    assert swallowed == 3
