"""Who asks, and who may do what: one table of rules, read from the top; a path that no rule names is the administrators'."""

import re
from contextvars import ContextVar
from enum import StrEnum
from typing import Final

import msgspec

from controlplane.api.problems import refused
from controlplane.events.header import EVERY_TENANT, concerns


class Role(StrEnum):
    """What somebody may do within their tenant."""

    READ = "read"
    """See jobs and truths; everybody who has an identity may."""
    SUBMIT = "submit"
    """Submit jobs and command one's own, assert truths."""
    OPERATE = "operate"
    """Schedules, bulk commands, dead letters."""
    AUDIT = "audit"
    """SQL, digests, reports."""
    ADMINISTER = "administer"
    """Everything."""


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who makes a request."""

    name: str
    tenant: str
    """The one whose jobs and truths are seen and written; `*` for all."""
    roles: frozenset[Role]
    known: bool = True
    """False where everybody is let in, so that nobody has to say who they are."""

    @property
    def of_all_tenants(self) -> bool:
        """Whether no tenant is hidden."""
        return self.tenant == EVERY_TENANT

    @property
    def home(self) -> str:
        """Return the tenant of what is written without naming one."""
        return "default" if self.of_all_tenants else self.tenant

    def may(self, role: Role) -> bool:
        """Say whether a role is among what was granted."""
        return role is Role.READ or role in self.roles or Role.ADMINISTER in self.roles

    def sees(self, tenant: str) -> bool:
        """Say whether what belongs to a tenant is shown."""
        return concerns(self.tenant, tenant)

    def tenant_for(self, wanted: str | None) -> str:
        """Return the tenant to write for.

        Raises:
            Refused: it is not the caller's.
        """
        if wanted is None or wanted == self.tenant:
            return wanted or self.home
        if self.of_all_tenants:
            return wanted
        text = f"Expected your own tenant {self.tenant}, but found {wanted[:128]}."
        raise refused("forbidden", text, field="tenant", expected=self.tenant, found=wanted)

    def source_for(self, wanted: str | None) -> str:
        """Return the source of an assertion: who says it.

        Raises:
            Refused: the caller would speak for somebody else.
        """
        if wanted is None or wanted == self.name or not self.known or self.may(Role.ADMINISTER):
            return wanted or self.name
        text = f"Expected you to speak for yourself, {self.name}, but found {wanted[:128]}."
        raise refused("forbidden", text, field="source", expected=self.name, found=wanted)


ANYBODY: Final = Caller(
    name="anonymous", tenant=EVERY_TENANT, roles=frozenset({Role.ADMINISTER}), known=False
)  # fmt: skip
"""Whoever asks where no identities are configured: a machine of one's own."""

CALLER: ContextVar[Caller] = ContextVar("caller", default=ANYBODY)
"""Who makes the request at hand."""


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """What a request needs whose method and path are like this."""

    methods: str
    path: str
    """Regular expression of the whole path."""
    role: Role
    of_all_tenants: bool = False
    """What it changes holds for every tenant."""


def _rule(methods: str, path: str, role: Role, *, of_all_tenants: bool = False) -> Rule:
    return Rule(methods=methods, path=path, role=role, of_all_tenants=of_all_tenants)


RULES: Final = (
    _rule("POST", r"/v1/sql", Role.AUDIT),
    _rule("GET", r"/v1/(digest|audit|checkpoints)(/.*)?", Role.AUDIT, of_all_tenants=True),
    _rule(
        "POST PUT DELETE", r"/v1/(limits|shares|pauses|predicates|sources)(/.*)?", Role.ADMINISTER, of_all_tenants=True
    ),
    _rule("POST", r"/v1/deadletters/.*", Role.OPERATE, of_all_tenants=True),
    _rule("POST PUT DELETE", r"/v1/(schedules|bulk)(/.*)?", Role.OPERATE),
    _rule("POST", r"/v1/secrets/.*", Role.OPERATE),
    _rule("POST", r"/v1/(jobs|assertions)(/.*)?", Role.SUBMIT),
    _rule("GET HEAD", r"/v1/.*", Role.READ),
)
"""The first rule that fits says what a request needs."""
OTHERS: Final = _rule("", r"/v1/.*", Role.ADMINISTER, of_all_tenants=True)
OPEN: Final = re.compile(r"/(?!v1/).*|/v1/session")
"""What strangers may see: the console's own files, the documentation, schemas, health; and where to sign in."""

_COMPILED: Final = [(frozenset(rule.methods.split()), re.compile(rule.path), rule) for rule in RULES]


def rule_of(method: str, path: str) -> Rule:
    """Return the rule that a request is under."""
    for methods, pattern, rule in _COMPILED:
        if method in methods and pattern.fullmatch(path):
            return rule
    return OTHERS


def authorise(caller: Caller, method: str, path: str) -> None:
    """Return if a caller may make a request.

    Raises:
        Refused: a role is missing, or it concerns all tenants.
    """
    rule = rule_of(method, path)
    if not caller.may(rule.role):
        granted = ", ".join(sorted(caller.roles)) or Role.READ.value
        text = f"Expected the role {rule.role} for {method} {path}, but {caller.name} has {granted}."
        raise refused("forbidden", text, field="roles", expected=rule.role.value, found=granted)
    if rule.of_all_tenants and not caller.of_all_tenants:
        text = f"Expected somebody who answers for all tenants for {method} {path}, but {caller.name} is of {caller.tenant}."
        raise refused("forbidden", text, field="tenant", expected=EVERY_TENANT, found=caller.tenant)
