"""The brokers' access rules: read, compared with those wanted, and made so. Which ones are wanted is not this module's business."""

import asyncio
from collections.abc import Callable, Collection
from enum import IntEnum
from typing import Any, Final

import msgspec
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, SecurityDisabled, for_code
from aiokafka.protocol.admin import CreateAclsRequest, DeleteAclsRequest, DescribeAclsRequest

from controlplane.log.clients import administrator
from controlplane.log.connection import LogConnection, LogUnavailable, refusal

IN_FORCE_WITHIN_SECONDS: Final = 30.0
AGAIN_SECONDS: Final = 0.05
ANY: Final = 1
DENY: Final = 2
ALLOW: Final = 3
LITERAL: Final = 3
PREFIXED: Final = 4
USER: Final = "User:"


class Kind(IntEnum):
    """What a rule is about, with the numbers of Kafka's protocol."""

    TOPIC = 2
    GROUP = 3
    CLUSTER = 4
    TRANSACTIONAL_ID = 5
    DELEGATION_TOKEN = 6
    USER = 7


class Operation(IntEnum):
    """What a rule is about doing, with the numbers of Kafka's protocol."""

    ALL = 2
    READ = 3
    WRITE = 4
    CREATE = 5
    DELETE = 6
    ALTER = 7
    DESCRIBE = 8
    CLUSTER_ACTION = 9
    DESCRIBE_CONFIGS = 10
    ALTER_CONFIGS = 11
    IDEMPOTENT_WRITE = 12
    CREATE_TOKENS = 13
    DESCRIBE_TOKENS = 14
    TWO_PHASE_COMMIT = 15


class Rule(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """What one principal may do with one thing, or with all things whose name begins so; what no rule allows is refused."""

    principal: str
    kind: Kind
    name: str
    operation: Operation
    prefixed: bool = False
    host: str = "*"
    denies: bool = False

    def __str__(self) -> str:
        """Return the rule in words."""
        may = "may not" if self.denies else "may"
        kind = self.kind.name.lower().replace("_", " ")
        place = "" if self.host == "*" else f" from {self.host}"
        star = "*" if self.prefixed else ""
        return f"{self.principal} {may} {self.operation.name.lower()} {kind} {self.name}{star}{place}"


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """What differs between the rules that are wanted and those in force."""

    missing: tuple[Rule, ...]
    unwanted: tuple[Rule, ...]
    kept: int
    """Rules that are as wanted."""


async def rules(connection: LogConnection) -> frozenset[Rule]:
    """Return every rule in force.

    Raises:
        LogUnavailable: no broker answers, or they keep no rules.
        LogRefused: this principal may not see them.
    """
    async with administrator(connection) as admin:
        return await _Rules(admin).rules()


async def differences(connection: LogConnection, wanted: Collection[Rule], ours: Callable[[Rule], bool]) -> Changes:
    """Return what `bring_about` would change.

    Raises:
        LogUnavailable: no broker answers, or they keep no rules.
    """
    return _compared(await rules(connection), wanted, ours)


async def bring_about(connection: LogConnection, wanted: Collection[Rule], ours: Callable[[Rule], bool]) -> Changes:
    """Make the rules that are missing, remove those of ours that are not wanted, and return when every broker has them in force.

    Doing it again changes nothing. What is missing is made first, so that nobody who works loses a right in between.

    Raises:
        LogUnavailable: no broker answers, they keep no rules, or a change did not come into force in time.
        LogRefused: this principal may not change them.
    """
    async with administrator(connection) as admin:
        asked = _Rules(admin)
        changes = _compared(await asked.rules(), wanted, ours)
        for rule in changes.missing:
            await asked.create(rule)
        for rule in changes.unwanted:
            await asked.delete(rule)
        await asked.wait_in_force(frozenset(changes.missing), frozenset(changes.unwanted))
    return changes


def _compared(found: frozenset[Rule], wanted: Collection[Rule], ours: Callable[[Rule], bool]) -> Changes:
    asked = frozenset(wanted)
    return Changes(
        missing=tuple(sorted(asked - found)),
        unwanted=tuple(sorted(rule for rule in found - asked if ours(rule))),
        kept=len(asked & found),
    )


class _Rules:
    """Asks for rules and changes them."""

    def __init__(self, admin: AIOKafkaAdminClient) -> None:
        self._admin = admin

    async def rules(self, node: int | None = None) -> frozenset[Rule]:
        answer = await self._ask(DescribeAclsRequest(ANY, None, ANY, None, None, ANY, ANY), node)
        _hold(answer.error_code, answer.error_message, "the brokers to tell their access rules")
        return frozenset(
            Rule(
                principal=principal.removeprefix(USER), kind=Kind(kind), name=name, operation=Operation(operation),
                prefixed=pattern == PREFIXED, host=host, denies=permission == DENY,
            )
            for kind, name, pattern, bindings in answer.resources
            for principal, host, operation, permission in bindings
        )  # fmt: skip

    async def create(self, rule: Rule) -> None:
        answer = await self._ask(CreateAclsRequest(*_fields(rule)))
        for code, message in answer.creation_responses:
            _hold(code, message, f"the brokers to take the rule that {rule}")

    async def delete(self, rule: Rule) -> None:
        answer = await self._ask(DeleteAclsRequest(*_fields(rule)))
        for code, message, matching in answer.filter_responses:
            _hold(code, message, f"the brokers to drop the rule that {rule}")
            for one in matching:
                _hold(one[0], one[1], f"the brokers to drop the rule that {rule}")

    async def wait_in_force(self, present: frozenset[Rule], absent: frozenset[Rule]) -> None:
        """Return when every broker says so: each learns of a change by itself."""
        try:
            async with asyncio.timeout(IN_FORCE_WITHIN_SECONDS):
                for broker in self._admin._client.cluster.brokers():  # noqa: SLF001 -- the client offers no other way to each broker
                    while True:
                        found = await self.rules(broker.nodeId)
                        if present <= found and not absent & found:
                            break
                        await asyncio.sleep(AGAIN_SECONDS)
        except TimeoutError as error:
            raise LogUnavailable(
                f"Expected the access rules in force on every broker within {IN_FORCE_WITHIN_SECONDS} s, but they are not."
            ) from error

    async def _ask(self, request: Any, node: int | None = None) -> Any:
        try:
            return await self._admin._send_request(request, node)  # noqa: SLF001 -- aiokafka knows the requests, its client has no calls for them
        except KafkaError as error:
            raise refusal(error, "the brokers to answer about access rules") from error


def _fields(rule: Rule) -> tuple[int, str, int, str, str, int, int]:
    pattern = PREFIXED if rule.prefixed else LITERAL
    permission = DENY if rule.denies else ALLOW
    return (rule.kind, rule.name, pattern, f"{USER}{rule.principal}", rule.host, rule.operation, permission)


def _hold(code: int, message: str | None, expected: str) -> None:
    if code == SecurityDisabled.errno:
        raise LogUnavailable(f"Expected {expected}, but they keep none: no authorizer is configured on the brokers.")
    if code:
        raise refusal(for_code(code)(message or ""), expected)
