"""Whether submissions are admitted, and what is said when they are not."""

import pytest

from controlplane.api.models import Reflects
from controlplane.api.problems import Refused
from controlplane.api.replicas import Standing
from controlplane.gateway.governance import Governance
from controlplane.log.connection import LogConnection
from controlplane.replicas.choice import Replica, behind_seconds


def replica(shard: int, lag_seconds: float) -> Replica:
    reflects = Reflects(positions={}, lag_records=1, lag_seconds=lag_seconds)
    return Replica(url="", standing=Standing(name="", shard=shard, shards=2, reading=True, reflects=reflects))


def governance(replicas: list[Replica], most: float | None) -> Governance:
    return Governance(
        LogConnection(bootstrap="nowhere:1"),
        1,
        behind_seconds=lambda: behind_seconds(replicas),
        most_behind_seconds=most,
    )


def test_submissions_are_refused_by_name_while_what_can_be_read_is_too_far_behind() -> None:
    # The first shard has a replica that is near; whoever reads of the second has to read 40 s old answers.
    late = [replica(0, 90.0), replica(0, 1.0), replica(1, 40.0)]
    with pytest.raises(Refused) as refused:
        governance(late, 30.0).admit()
    error = refused.value.error
    assert (error.code, error.field, error.expected, error.found) == (
        "overloaded",
        "projection_lag",
        "at most 30 s",
        "40.0",
    )
    assert error.retry_after_seconds


@pytest.mark.parametrize(
    ("replicas", "most"),
    [
        ([replica(0, 90.0), replica(0, 1.0), replica(1, 29.0)], 30.0),
        ([replica(0, 90.0)], None),
        ([Replica(url="")], 30.0),  # Nobody answers: writes go on.
    ],
)
def test_otherwise_submissions_are_admitted(replicas: list[Replica], most: float | None) -> None:
    governance(replicas, most).admit()
