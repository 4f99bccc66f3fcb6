"""Reads the agent's train.py once, safely, and puts content back in place. TRUSTED, hostile file.

The agent can write the file at any moment, and on some set-ups replace it. It is opened without following
links and without blocking (a FIFO or a lease must not hang us), must be one regular file with one link,
at most `cap` bytes of UTF-8 without characters nobody sees (invisible.py), must not name another
encoding in a coding line (PEP 263: Python would run something else than what people read), and must not change while
it is read, twice. That is the second wall: the agent stands still by then (freezing.py).
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from pathlib import Path

from runner.core.airlock import invisible
from runner.core.base import files
from runner.core.base.errors import SnapshotError
from runner.core.base.home import Home
from runner.core.base.values import Snapshot

_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_TRIES = 3
_LONE_RETURN = re.compile(r"\r(?!\n)")  # ends a line for Python, and for few editors
# What Python takes for a coding line; it looks for one in the first two lines.
_CODING = re.compile(rb"[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)")
_UTF8 = re.compile(rb"utf-?8(-.*)?")


def take(source: Path, store: Path, cap: int) -> Snapshot:
    """Read `source` and keep a read-only content-addressed copy in `store`; raises SnapshotError."""
    return keep(read(source, cap), store)


def keep(data: bytes, store: Path) -> Snapshot:
    """A read-only content-addressed copy of a train.py that was read, or that we derived from one."""
    digest = hashlib.sha256(data).hexdigest()
    path = store / f"{digest}.py"
    if not path.exists():
        files.write(path, data, mode=0o444)
    return Snapshot(sha256=digest, size=len(data), path=path)


def kept(home: Home, sha256: str) -> bytes | None:
    """What was kept of that content, None if it is lost."""
    try:
        return home.source(sha256).read_bytes()
    except OSError:
        return None


def read(source: Path, cap: int) -> bytes:
    """The bytes of `source` if it is what it should be; raises SnapshotError."""
    for _ in range(_TRIES):
        data = _read_stable(source, cap)
        if data is not None:
            _check_text(data, source)
            return data
    raise _refuse("changing", "the file changes while it is read", source, "finish writing before run_experiment")


def _read_stable(source: Path, cap: int) -> bytes | None:
    try:
        descriptor = os.open(source, _READ_FLAGS)
    except FileNotFoundError:
        raise _refuse("missing", "no such file", source, "write train.py in place") from None
    except OSError as error:
        raise _refuse("not_regular", f"cannot be opened: {error.strerror}", source, "use a regular file") from None
    try:
        before = _one_file(descriptor, source, "write train.py in place")
        data = bytearray()
        while len(data) <= cap and (chunk := os.read(descriptor, cap + 1 - len(data))):
            data += chunk
        if len(data) > cap or before.st_size > cap:
            raise _refuse("too_large", f"larger than {cap} bytes", source, "shorten train.py")
        again = os.pread(descriptor, cap + 1, 0)  # what is written through a mapping changes no time for a while
        after = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    stable = (before.st_size, before.st_mtime_ns, before.st_ctime_ns) == (
        after.st_size,
        after.st_mtime_ns,
        after.st_ctime_ns,
    )
    return bytes(data) if stable and data == again and len(data) == after.st_size else None


def _one_file(descriptor: int, path: Path, fix: str) -> os.stat_result:
    """The state of what is open, if it is a regular file of one name; raises SnapshotError."""
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise _refuse("not_regular", "not a regular file", path, fix)
    if found.st_nlink != 1:
        raise _refuse("hard_link", "has more than one link", path, fix)
    return found


def _check_text(data: bytes, source: Path) -> None:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise _refuse("not_utf8", "not UTF-8 text", source, "save train.py as UTF-8") from None
    named = [found[1] for line in data.split(b"\n", 2)[:2] if (found := _CODING.match(line))]
    if not all(_UTF8.fullmatch(name.lower().replace(b"_", b"-")) for name in named):
        raise _refuse("not_utf8", "names another encoding than UTF-8", source, "remove the coding line")
    if text.startswith("\ufeff"):
        what = "begins with a byte order mark, as some editors on Windows write"
        raise _refuse("control_character", what, source, "save it as UTF-8 without one")
    if next(invisible.hidden(text), None) is not None or _LONE_RETURN.search(text):
        raise _refuse("control_character", "holds a character that nobody sees", source, "remove it")


def _refuse(reason: str, what: str, source: Path, fix: str) -> SnapshotError:
    return SnapshotError(reason, what, where=str(source), fix=fix)


def restore(target: Path, data: bytes) -> None:
    """Write `data` into the same inode: a rename would detach a running container from the file.

    Raises SnapshotError if the target is no longer a single regular file.
    """
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _refuse("not_regular", f"cannot be opened: {error.strerror}", target, "restart the agent") from None
    try:
        _one_file(descriptor, target, "restart the agent")
        os.ftruncate(descriptor, 0)
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def provision(target: Path, data: bytes, gid: int) -> None:
    """Create the file the agent will edit: owned by us, group-writable, never owned by the agent.

    If the agent owned it, chmod 4755 from inside would change the host's inode.
    """
    target.unlink(missing_ok=True)
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        if os.fstat(file.fileno()).st_gid != gid:
            os.fchown(file.fileno(), -1, gid)
        os.fchmod(file.fileno(), 0o660)


def provide(path: Path, group: int, content: bytes) -> None:
    """`content` in the agent's file, in place if it is the one we made."""
    if _ours(path, group):
        restore(path, content)
        return
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    provision(path, content, group)


def _ours(path: os.PathLike[str], group: int) -> bool:
    try:
        state = os.lstat(path)
    except FileNotFoundError:
        return False
    plain = stat.S_ISREG(state.st_mode) and state.st_nlink == 1 and stat.S_IMODE(state.st_mode) == 0o660
    return plain and state.st_uid == os.geteuid() and state.st_gid == group
