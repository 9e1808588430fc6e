"""The promise of docs/secrets.md: that a key was forgotten is noticed by every other process within five seconds."""

from pathlib import Path

import pytest

from controlplane.contents.keys import KeyForgotten, KeyRing


def test_another_process_notices_within_five_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr("controlplane.contents.keys.time.monotonic", lambda: clock[-1])
    one, other = KeyRing(tmp_path.as_uri(), bytes(32)), KeyRing(tmp_path.as_uri(), bytes(32))
    hidden = one.encrypt("acme/customer-17", b"secret")
    for moment in (1000.0, 1003.0):  # However often it is read: reading does not prolong it.
        clock.append(moment)
        assert other.decrypt("acme/customer-17", hidden) == b"secret"
    assert one.forget("acme/customer-17")
    clock.append(1005.0)
    for ring in (one, other):
        with pytest.raises(KeyForgotten, match="Expected the key acme/customer-17, but it was forgotten"):
            ring.decrypt("acme/customer-17", hidden)
