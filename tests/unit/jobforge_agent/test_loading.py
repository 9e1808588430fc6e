"""Finding the routing policy that the configuration names."""

from pathlib import Path

import pytest

from controlplane.jobforge_agent.loading import PolicyMissing, load_policy
from controlplane.jobforge_agent.policy import Situation, least_loaded
from controlplane.settings import Settings


def test_the_shipped_policy_is_the_default() -> None:
    assert load_policy(Settings().routing_policy) is least_loaded


def test_a_policy_of_ones_own_is_found_beside_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "our_policy.py").write_text("def nobody(situation):\n    return []\n\nnumber = 7\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [])  # What it adds is undone with it.
    assert load_policy("our_policy:nobody")(Situation(jobs=[], runners={})) == []
    with pytest.raises(PolicyMissing, match="found int"):
        load_policy("our_policy:number")
    with pytest.raises(PolicyMissing, match="our_policy:nothing"):
        load_policy("our_policy:nothing")


@pytest.mark.parametrize("place", ["", "no_such_module:policy", "controlplane.settings"])
def test_what_is_not_there_is_refused_by_its_name(place: str) -> None:
    with pytest.raises(PolicyMissing, match="Expected a routing policy at"):
        load_policy(place)
