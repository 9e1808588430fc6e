"""Who may do what: Kafka's access rules and Redis' users, both a function of the catalog, so that neither can say more than it does."""

from typing import Final

import msgspec

from controlplane.events.catalog import EVENT_TYPES, TOPICS, Service, Topic
from controlplane.log.access import Kind, Operation, Rule

PREFIX: Final = "controlplane."
"""Every topic, group and transactional id of ours begins with it; what else is on the brokers is none of our business."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the matrix: what each service may do with a topic."""

    topic: str
    rights: dict[str, str]
    """Service to `read`, `write`, `read, write` or nothing."""


def authors(topic: Topic) -> frozenset[Service]:
    """Return who may write a topic: the authors of its events, and nobody else."""
    return frozenset(author for one in EVENT_TYPES.values() if one.topic == topic for author in one.authors)


def own_prefix(service: Service) -> str:
    """Return how the names of a service's groups and transactional ids begin."""
    return f"{PREFIX}{service.value}"


assert not any(  # One service's names are never another's.
    a != b and own_prefix(a).startswith(own_prefix(b)) for a in Service for b in Service
)


GROUP_MEMBERS: Final = frozenset({Service.JOBFORGE, Service.CLIENT})
"""JobForge shares its partitions out by a group and keeps its watermarks under one; clients may use whatever consumer they like."""
TRANSACTION_WRITERS: Final = frozenset({Service.CLIENT})
"""Nothing of ours writes in transactions; a client may submit in its own."""


def grants() -> frozenset[Rule]:
    """Return every rule on the brokers.

    No service may make, change or delete a topic, read a setting, or do anything to the cluster: the administrator does. An idempotent
    producer needs no right of its own since Kafka 3.0: the right to write some topic includes it (KIP-679).
    """
    found = [
        _grant(service, Kind.TOPIC, topic.name, operation)
        for topic in TOPICS.values()
        for operation, services in ((Operation.READ, topic.readers), (Operation.WRITE, authors(topic)))
        for service in services
    ]
    # That a topic exists, and with how many partitions, is no secret: whoever starts makes sure of it.
    found += [_grant(service, Kind.TOPIC, PREFIX, Operation.DESCRIBE, prefixed=True) for service in Service]
    found += [
        _grant(service, Kind.GROUP, own_prefix(service), Operation.READ, prefixed=True) for service in GROUP_MEMBERS
    ]
    found += [
        _grant(service, Kind.TRANSACTIONAL_ID, own_prefix(service), operation, prefixed=True)
        for service in TRANSACTION_WRITERS
        for operation in (Operation.WRITE, Operation.DESCRIBE)
    ]
    return frozenset(found)


def _grant(service: Service, kind: Kind, name: str, operation: Operation, *, prefixed: bool = False) -> Rule:
    return Rule(principal=service.value, kind=kind, name=name, operation=operation, prefixed=prefixed)


def is_ours(rule: Rule) -> bool:
    """Whether the catalog decides about a rule: it is about a name of ours, or for a principal of ours."""
    return rule.name.startswith(PREFIX) or rule.principal in set(Service)


def is_for_ours(rule: Rule) -> bool:
    """Whether a rule is for a principal of ours; rules that let others at our topics are then left alone."""
    return rule.principal in set(Service)


def matrix() -> tuple[Row, ...]:
    """Return what each service may do with each topic, in the order of the catalog."""
    allowed: dict[tuple[str, str], list[str]] = {}
    for one in sorted(grants()):
        if one.kind is Kind.TOPIC and not one.prefixed:
            allowed.setdefault((one.name, one.principal), []).append(one.operation.name.lower())
    return tuple(
        Row(topic=name, rights={one.value: ", ".join(allowed.get((name, one.value), ())) for one in Service})
        for name in TOPICS
    )


# Redis

READ_COMMANDS: Final = ("exists", "get", "hget", "hgetall", "hkeys", "hmget", "mget", "scard", "smembers", "time", "zcard", "zcount", "zrange", "zrangebyscore", "zscore")  # fmt: skip
WRITE_COMMANDS: Final = ("del", "hdel", "hincrby", "hset", "hsetnx", "incr", "incrby", "pexpire", "sadd", "set", "srem", "zadd", "zrem", "zremrangebyscore")  # fmt: skip
CONNECTION_COMMANDS: Final = ("auth", "client|setinfo", "client|setname", "discard", "eval", "evalsha", "exec", "hello", "info", "multi", "ping", "script|load", "script|exists", "select")  # fmt: skip
JOBFORGE_COMMANDS: Final = (*READ_COMMANDS, *WRITE_COMMANDS, *CONNECTION_COMMANDS)
"""What the schedule store sends, and what its scripts call; a test compares them with the code."""


class StoreUser(msgspec.Struct, frozen=True, kw_only=True):
    """A user of the schedule store: which keys, and which commands on them."""

    name: str
    keys: str
    commands: tuple[str, ...]

    def rule(self, password_hash: str) -> str:
        """Return the user as a line of the server's configuration; the password stands there only as its SHA-256."""
        allowed = " ".join(f"+{one}" for one in self.commands)
        return f"user {self.name} reset on #{password_hash} ~{self.keys} resetchannels -@all {allowed}"


ADMIN_RULE: Final = "user admin reset on #{password_hash} ~* &* +@all"
NOBODY_RULE: Final = "user default reset off"
"""Whoever names no user is nobody."""


NAMESPACE: Final = "controlplane"


def store_users(namespace: str = NAMESPACE) -> tuple[StoreUser, ...]:
    """Return the users of a schedule store: JobForge alone needs one, for the keys under its hash tag."""
    return (StoreUser(name=Service.JOBFORGE.value, keys=f"{{{namespace}}}:*", commands=JOBFORGE_COMMANDS),)


# As people read it


def beside_topics() -> list[str]:
    """Return in words what services may do beside the topics of the matrix."""
    return [
        f"every service may describe {PREFIX}*: that topics exist, and their numbers of partitions",
        *(
            str(one)
            for one in sorted(grants())
            if one.kind is not Kind.TOPIC
            and not (one.kind is Kind.TRANSACTIONAL_ID and one.operation is Operation.DESCRIBE)
        ),
        "nobody but the administrator may make, change or delete topics, read or change settings, or act on the cluster",
    ]


def page() -> str:
    """Return the page of the documentation."""
    services = [one.value for one in Service]
    lines = [f"| topic | {' | '.join(services)} |", f"|---|{'---|' * len(services)}"]
    lines += [f"| `{row.topic}` | {' | '.join(row.rights[one] for one in services)} |" for row in matrix()]
    lines += ["", "Beside them:", "", *(f"- {one}" for one in beside_topics())]
    lines += ["", "## Redis", "", "| user | keys | commands |", "|---|---|---|"]
    lines += [
        f"| `{user.name}` | `{user.keys}` | {', '.join(f'`{one}`' for one in sorted(user.commands))} |"
        for user in store_users()
    ]
    lines += ["| `admin` | all | all |", "| `default` | none | none: whoever names no user is let into nothing |"]
    return INTRODUCTION + "".join(f"{line}\n" for line in lines)


INTRODUCTION: Final = """# Who may do what

What `controlplane acl apply` puts on the brokers and `controlplane up --secure` on its own, as a function of the catalog
(`controlplane/events/catalog.py`): a topic's authors write it, its named readers read it, and nothing else is allowed. Written by
`make reference`: do not edit. `tests/integration/security/test_matrix.py` tries every service on every topic.

"""
