"""Whether a session records while somebody looks, and waiting for what it has half recorded. TRUSTED, reads only."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from runner.core.base import locks

_PATIENCE = 30.0  # seconds that what a session has half recorded is waited for, in all: disks and witnesses are slow
_LOOKS = 0.05  # seconds between two looks for what a session records just now


class Beside:
    """A session that may be at work on the bench whose lock this is."""

    def __init__(self, lock: Path) -> None:
        self._lock, self._written, self._seen = lock, _written(lock), locks.held(lock)
        self._patience = _PATIENCE

    def at_work(self) -> bool:
        """Whether one records, or has at any time since this was made: who takes the lock writes who it is."""
        self._seen = self._seen or locks.held(self._lock) or _written(self._lock) != self._written
        return self._seen

    def wait(self, there: Callable[[], bool], look: Callable[[], None]) -> None:
        """`look` again and again until something is there that a session records just now."""
        began = time.monotonic()
        while not there() and self.at_work() and time.monotonic() - began < self._patience:
            time.sleep(_LOOKS)
            look()
        self._patience -= time.monotonic() - began


def _written(path: Path) -> int:
    with suppress(OSError):
        return os.lstat(path).st_mtime_ns
    return 0
