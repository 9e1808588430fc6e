"""`controlplane secrets` and what `job` says of them: which key it is, and whether there was one."""

import json
from typing import Any

import pytest

from tests.unit.cli.answers import REFLECTS, Commands

OPENED = {"payload": {"iban": "DE02"}, "result": [1, "two"]}


def test_what_is_opened_is_shown_as_json(commands: Commands) -> None:
    for argv in (["secrets", "open", "letter-1"], ["secrets", "open", "letter-1", "--json"]):
        done = commands.run(*argv, answer=OPENED)
        assert (done.exit_code, json.loads(done.stdout)) == (0, OPENED), done.output


def forgotten(key_id: str, *, existed: bool) -> dict[str, Any]:
    return {
        "job_id": None, "event_id": "e", "position": "controlplane.controls/2/0", "correlation_id": f"secret:{key_id}", "key_id": key_id,
        "existed": existed,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "tenant", "existed", "said"),
    [
        (["--tenant", "acme"], "acme", True, "Forgot acme/customer-17, on the log at controlplane.controls/2/0."),
        ([], "default", True, "Forgot default/customer-17, on the log"),
        ([], "default", False, "There was no key default/customer-17 to forget: it was never made, or forgotten before"),
    ],
)  # fmt: skip
def test_the_whole_key_is_named_and_whether_it_was_there(
    commands: Commands, options: list[str], tenant: str, existed: bool, said: str
) -> None:
    answer = forgotten(f"{tenant}/customer-17", existed=existed)
    done = commands.run("secrets", "forget", "customer-17", "--reason", "asked", *options, answer=answer)
    assert done.exit_code == 0
    assert done.stdout.startswith(said)
    assert str(commands.seen[0].url).endswith("/v1/secrets/customer-17/forget")
    assert commands.bodies == [{"reason": "asked"} | ({"tenant": tenant} if options else {})]
    done = commands.run("secrets", "forget", "customer-17", "--json", answer=answer)
    assert json.loads(done.stdout)["existed"] is existed


def test_a_job_says_with_which_key_it_is_encrypted(commands: Commands) -> None:
    view = {
        "job_id": "letter-1", "job_type": "letter.write", "phase": "COMPLETED", "pool": "default", "priority": 5, "tenant": "acme",
        "correlation_id": "letter-1", "submitted_at": None, "concluded_at": None, "encrypted_with": "acme/customer-17",
    }  # fmt: skip
    done = commands.run("job", "letter-1", answer={"job": view, "reflects": REFLECTS})
    assert "encrypted with acme/customer-17\n" in done.stdout
