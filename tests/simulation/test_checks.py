"""A simulation that finds nothing proves nothing: with a guard taken out, the check that watches over it has to say so."""

import pytest

from tests.simulation.guards import GUARDS
from tests.simulation.test_seeds import play


@pytest.mark.parametrize("guard", GUARDS)
def test_a_missing_guard_is_noticed(guard: str, redis_url: str) -> None:
    played = play("--without", guard, "--redis", redis_url)
    assert played.returncode == 0, played.stdout + played.stderr
