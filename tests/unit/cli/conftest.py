"""What the tests of commands share."""

import pytest

from tests.unit.cli.answers import Commands


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    """Return what runs commands, and answers their requests."""
    return Commands(monkeypatch)
