"""The notary's key is made once, kept private, and can be replaced without losing what the old one signed."""

import stat
from pathlib import Path

import pytest

from controlplane.notary.keys import KeyInvalid, private_key, public_keys, public_keys_file, publish
from controlplane.security.checkpoint import Checkpoint, open_note, sign
from controlplane.settings import Settings

CHECKPOINT = Checkpoint(origin="controlplane.jobs/3", tree_size=1, root_hash=b"r" * 32)


def test_a_key_is_made_once_and_is_private(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    first = private_key(settings)
    assert stat.S_IMODE((tmp_path / "notary" / "notary.pem").stat().st_mode) == 0o600
    assert private_key(settings).private_bytes_raw() == first.private_bytes_raw()


def test_checkpoints_of_the_old_key_count_after_it_was_replaced(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    file = public_keys_file(settings)
    old = private_key(settings)
    publish(old, file)
    (tmp_path / "notary" / "notary.pem").unlink()
    new = private_key(settings)
    assert len(publish(new, file)) == 2
    assert len(publish(new, file)) == 2  # Known already.
    for key in (old, new):
        assert open_note(sign(CHECKPOINT, key), public_keys(file)) == CHECKPOINT


def test_a_key_that_is_named_and_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        KeyInvalid, match=r"Expected an Ed25519 key without a password in .*missing.pem, but: .*No such file"
    ):
        private_key(Settings(notary_key=tmp_path / "missing.pem"))


@pytest.mark.parametrize("content", ["", "x", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"])
def test_a_file_without_keys_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "notary.pub"
    file.write_text(content)
    with pytest.raises(KeyInvalid, match="Expected"):
        public_keys(file)
