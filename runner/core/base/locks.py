"""Who works on a bench: one runner and one launcher at a time. TRUSTED.

A lock is an flock on a file in the bench, so it ends with its holder however that dies, also across containers
on one host. The file says who holds it, for people and for `glovebox stop`.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, TextIO

from runner.core.base.errors import BusyError, GloveboxError

_LOOK = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe is not waited for
_HOLDER = re.compile(r"(?P<name>.{0,80}) pid (?P<pid>\d{1,10}) namespace (?P<namespace>\d{1,20})\n")


class Holder(NamedTuple):
    """What the holder wrote: its name, its process and whether we can see that process."""

    name: str
    pid: int
    visible: bool


@contextmanager
def hold(path: Path, name: str, patience: float = 0.5) -> Iterator[None]:
    """Hold the lock at `path` as `name`; raises BusyError if it is not free within `patience` seconds.

    The default outlasts somebody who only looks (`held` has to take a lock to know that it is free).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + patience
    with _opened(path) as file:
        while not take(file.fileno()):
            if time.monotonic() >= deadline:
                found = holder(path)
                who = f"{found.name}, pid {found.pid}" if found else "by another process"
                raise BusyError(f"already running: {who}", where=str(path), fix="wait, or run: glovebox stop")
            time.sleep(0.1)
        file.truncate(0)
        file.write(f"{name} pid {os.getpid()} namespace {_namespace()}\n")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def _opened(path: Path) -> TextIO:
    try:
        return path.open("a+")
    except OSError as error:
        what = f"cannot be held: {error.strerror or 'not a file'}"
        raise GloveboxError(what, where=str(path), fix="make the bench writable, or copy it") from None


def held(path: Path) -> bool:
    """Whether somebody holds the lock now, as far as who may only read it can tell."""
    with suppress(OSError), open(os.open(path, _LOOK), "rb") as file:
        return not take(file.fileno(), fcntl.LOCK_SH)
    return False


def holder(path: Path) -> Holder | None:
    """Who the file says holds the lock."""
    with suppress(OSError), open(os.open(path, _LOOK), "rb") as file:
        if match := _HOLDER.match(file.read(256).decode(errors="replace")):
            return Holder(match["name"], int(match["pid"]), int(match["namespace"]) == _namespace())
    return None


def take(descriptor: int, kind: int = fcntl.LOCK_EX) -> bool:
    """Whether an open file's lock is ours now; it is until the file is closed."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _namespace() -> int:
    return os.stat("/proc/self/ns/pid").st_ino
