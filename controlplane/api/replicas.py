"""What TruthCore processes say of themselves: to the gateway that chooses one, and to each other."""

from pydantic import Field

from controlplane.api.models import Model, Reflects


class Standing(Model):
    """One TruthCore process: what part of the log it keeps, and how far it is."""

    name: str
    shard: int = Field(description="Which of the shards it keeps, from 0.")
    shards: int = Field(description="How many there are; 1: it keeps the whole log.")
    folded_records: int = Field(0, description="Records that it read since it started.")
    reading: bool = Field(description="It follows the log now.")
    reflects: Reflects


class PartRequest(Model):
    """A peer asks for a snapshot that it can send statements to."""

    min_position: list[str] = Field([], max_length=1000)
    wait_seconds: float = Field(5.0, ge=0, le=30)


class PartAnswer(Model):
    """A snapshot, for as long as it is used."""

    part: str
    standing: Standing
