"""The contract of a predicate: what its declaration says of values, units and fusion, and what holds without one.

Stated defaults: an undeclared predicate takes values of any kind and unit, and the newest counts (`LATEST`). A declaration may
leave parts open: a missing kind allows any, a missing unit keeps each assertion's own, rule `DEFAULT` follows from
the cardinality (`SINGLE`: `BAYES`, `MULTIPLE`: `NOISY_OR`, `UNDECLARED`: `LATEST`).
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

Value = tuple[str, str, str | None]
"""(kind, canonical text, unit)"""

DEFAULT_RULES: Final = {"SINGLE": "BAYES", "MULTIPLE": "NOISY_OR", "UNDECLARED": "LATEST"}
MANY_VALUED_RULE: Final = "NOISY_OR"


class Contract(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for a predicate; the defaults are those of an undeclared one."""

    value_kind: str | None = None
    cardinality: str = "UNDECLARED"
    rule: str = DEFAULT_RULES["UNDECLARED"]
    unit: str | None = None
    declared_at: str | None = None
    """Position of the declaration in force; None: nobody declared it."""

    @property
    def many(self) -> bool:
        """Say whether several values are true at one moment."""
        return self.cardinality == "MULTIPLE" or (self.cardinality == "UNDECLARED" and self.rule == MANY_VALUED_RULE)


UNDECLARED: Final = Contract()


def contract_of(row: Mapping[str, Any] | None) -> Contract:
    """Return the contract that a row of `predicates` states."""
    if row is None:
        return UNDECLARED
    return Contract(
        value_kind=row["value_kind"], cardinality=row["cardinality"], rule=rule_of(row["rule"], row["cardinality"]),
        unit=row["unit"], declared_at=f"{row['topic']}/{row['partition']}/{row['offset']}",
    )  # fmt: skip


def rule_of(declared_rule: str | None, cardinality: str | None) -> str:
    """Return the rule in force: the declared one, or the default of the declared cardinality; `LATEST` for the undeclared."""
    if declared_rule not in (None, "DEFAULT"):
        return str(declared_rule)
    return DEFAULT_RULES.get(cardinality or "UNDECLARED", DEFAULT_RULES["UNDECLARED"])


def misfit(contract: Contract, value: Value) -> str | None:
    """Return why a value breaks a contract, or None when it keeps it."""
    kind, _, unit = value
    if contract.value_kind is not None and kind != contract.value_kind:
        return f"Expected a {contract.value_kind.lower()}, as declared, but found a {kind.lower()}."
    if contract.unit is not None and kind == "NUMBER" and unit not in (None, contract.unit):
        return f"Expected the unit {contract.unit!r}, as declared, but found {unit!r}."
    return None


def in_unit(contract: Contract, value: Value) -> Value:
    """Return a value that keeps the contract with its unit written out: a number without one is in the declared unit."""
    kind, text, unit = value
    return (kind, text, unit or contract.unit) if kind == "NUMBER" else value
