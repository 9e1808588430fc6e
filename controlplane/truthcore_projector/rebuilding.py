"""A projection folded anew beside the one that answers, and the switch to it.

The names: FILE is the database that answers, FILE.next the one that is folded, FILE.ready says that FILE.next is whole.
"""

import asyncio
import os
from pathlib import Path
from typing import Final

from controlplane.log.connection import LogConnection
from controlplane.truthcore_projector.archive import MANIFEST, archive_folder
from controlplane.truthcore_projector.archiving import take_up
from controlplane.truthcore_projector.fold import Progress, fold
from controlplane.truthcore_projector.store import LayoutDiffers, Store
from controlplane.truthcore_projector.worlds import ends_at

TAIL_RECORDS: Final = 10_000
"""A rebuild is done when what was written meanwhile is no more than this: the switched projection reads it in a second."""
LOOK_SECONDS: Final = 0.5


def next_file(file: Path) -> Path:
    """Return where a projection is folded anew."""
    return file.with_name(f"{file.name}.next")


def ready_file(file: Path) -> Path:
    """Return what stands beside a projection when another is ready to take its place."""
    return file.with_name(f"{file.name}.ready")


async def rebuild_beside(connection: LogConnection, file: Path, progress: Progress | None = None) -> int:
    """Fold the log from the beginning into FILE.next while FILE answers, and say that it is ready; returns how many records that took.

    1. The log is folded, and again what was written meanwhile, until that is little; what the log no longer has is taken from FILE's archive.
    A crash: the same call goes on where it was.
    2. FILE.ready is made. From here on whoever owns FILE switches.

    Raises:
        duckdb.IOException: another process rebuilds.
        HistoryGone: neither the log nor the archive has all records.
        ArchiveDamaged: a file of the archive is not the one that it names.
        LogUnavailable: the log does not give the range.
    """
    # Step 1.
    _forget_unless_ours(next_file(file))
    archive = archive_folder(file)
    ends = await ends_at(connection, None)
    done = await take_up(connection, next_file(file), ends, archive if (archive / MANIFEST).exists() else None)
    store = Store(next_file(file), bulk=True)
    try:
        while True:
            more = await fold(connection, store, await ends_at(connection, None), progress)
            done += more
            if more <= TAIL_RECORDS:
                break
    finally:
        await asyncio.to_thread(store.close)
    # Step 2.
    ready_file(file).touch()
    return done


def _forget_unless_ours(file: Path) -> None:
    """Remove what a rebuild of another release left; one of this release goes on."""
    try:
        Store(file, bulk=True).close()
    except LayoutDiffers:
        file.with_name(f"{file.name}.wal").unlink(missing_ok=True)
        file.unlink()


def set_aside(file: Path) -> Path:
    """Give a projection of another layout another name, so that one can be folded anew under its own; returns the name.

    1. Its write-ahead log goes: it must not be applied to another file. A crash: the file lacks its last transactions, and whoever goes back to it
    reads them again from its positions. 2. The file moves, over one that was set aside before.
    """
    aside = file.with_name(f"{file.name}.other-layout")
    # Step 1.
    file.with_name(f"{file.name}.wal").unlink(missing_ok=True)
    # Step 2.
    os.replace(file, aside)
    return aside


def switch(file: Path) -> bool:
    """Put a projection that is ready into its place; only for the owner of FILE, while nobody has it open. Says whether there was one.

    1. The old write-ahead log goes: it must not be applied to the new file. A crash: the old file lacks its last transactions, and reads
    them again from its positions. 2. FILE.next becomes FILE. A crash: FILE.ready is left, and removed at the next start. 3. FILE.ready goes.
    """
    if not ready_file(file).exists():
        return False
    switched = next_file(file).exists()
    if switched:
        # Step 1.
        file.with_name(f"{file.name}.wal").unlink(missing_ok=True)
        # Step 2.
        os.replace(next_file(file), file)
    # Step 3.
    ready_file(file).unlink()
    return switched


async def until_ready(file: Path) -> None:
    """Return once another projection is ready to take the place of this one."""
    while not ready_file(file).exists():  # noqa: ASYNC110 -- another process makes it
        await asyncio.sleep(LOOK_SECONDS)
