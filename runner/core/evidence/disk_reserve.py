"""Disk space the ledger can still use when a disk is full. TRUSTED.

A session holds a file of SIZE bytes beside the ledger. When writing a record fails and the disk has no room left, the
file is given up, the record is completed in its space, and the session ends with an error that says so.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from runner.core.base.errors import GloveboxError
from runner.core.base.home import Home

SIZE = 32 << 20  # a night's records are a few megabytes


def place(home: Home) -> Path:
    """The file that takes the space."""
    return home.root / "reserve"


def hold(home: Home) -> None:
    """Take the space; raises GloveboxError if there is not even that much."""
    if place(home).exists() and place(home).stat().st_size == SIZE:
        return
    descriptor = os.open(place(home), os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, SIZE)
    except OSError as error:
        place(home).unlink(missing_ok=True)
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise full(home) from None
    finally:
        os.close(descriptor)


def give_up(home: Home) -> bool:
    """Free the space if the disk is full; False if it is not, or nothing was held."""
    if shutil.disk_usage(home.root).free > SIZE // 4 or not place(home).exists():
        return False
    place(home).unlink()
    return True


def full(home: Home, done: str = "") -> GloveboxError:
    """What a person is told."""
    fix = "free space (glovebox gc), then run again"
    return GloveboxError(f"the disk is full{done}", where=str(home.root), fix=fix)
