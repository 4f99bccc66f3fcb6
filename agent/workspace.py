"""A folder to work in: copies of train.py and program.md that can be renamed over, as editors do. UNTRUSTED.

The mounted train.py is one file: nothing can take its place. So a shell agent works on a copy in memory, and `bench`
carries it over: what is run is copied onto the mounted file, and what that holds afterwards (the best version) is
copied back, with what was tried beside it. A copy that was edited in the meantime is left as it is.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from agent.tools import TRAIN_PY, EditError, Editor

VARIABLE = "GLOVEBOX_WORKSPACE"
_MEMORY = Path("/tmp")  # noqa: S108 - of the agent's container alone
PLACE = _MEMORY / "workspace"
TRIED = "train.py.tried"
_MOST_BYTES = 1 << 20  # more than the bench ever takes


class Workspace:
    """`folder`, if an agent has one; without it `bench` works on the mounted file alone."""

    def __init__(self, folder: Path | None = None, mounted: Path = TRAIN_PY) -> None:
        given = os.environ.get(VARIABLE)
        self.folder = folder or (Path(given) if given else None)
        self.mounted = mounted
        self.state = (self.folder or _MEMORY) / ".bench"  # of `bench`, between its calls
        self._synced, self._carried = self.state / "synced", self.state / "carried"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """One experiment at a time: else another's file would run under a description; raises EditError."""
        if (lock := locked(self.state / "lock")) is None:
            raise EditError("busy")
        with lock:
            yield

    def prepare(self, program: str) -> None:
        """Make it, or make it new: train.py as it is now, unless that is being edited, and what the person asks for."""
        assert self.folder is not None
        self.folder.mkdir(parents=True, exist_ok=True)
        _replace(self.folder / "program.md", program.encode())
        self.give_back()

    @property
    def edited(self) -> bool:
        """Whether anybody changed a train.py since the best version was put into both."""
        return any(self._differs(path) for path in self._places())

    def carry(self, file: Path | None = None) -> None:
        """Copy onto the mounted file what is to be run: `file`, else whichever was edited; raises EditError."""
        data = _read(file or self._edited())
        if data != self.mounted.read_bytes():
            Editor(self.mounted).put(data)
        self.state.mkdir(parents=True, exist_ok=True)
        self._carried.write_bytes(data)

    def give_back(self, *, anyway: bool = False) -> None:
        """Copy back what the mounted file holds, `anyway` or if the copy is not being edited; keep what was tried."""
        if self.folder is None:
            return
        copy, best = self.folder / "train.py", self.mounted.read_bytes()
        there = copy.read_bytes() if copy.is_file() else None
        tried = _bytes(self._carried) or (there if anyway else None)
        if tried is not None and tried != best:
            _replace(self.folder / TRIED, tried)
        if anyway or there is None or not self._differs(copy) or there == _bytes(self._carried):
            _replace(copy, best)
        self.state.mkdir(exist_ok=True)
        self._synced.write_text(_digest(best))
        self._carried.unlink(missing_ok=True)

    def _edited(self) -> Path:
        changed = [path for path in self._places() if self._differs(path)]
        if len({path.read_bytes() for path in changed}) > 1:
            raise EditError(f"both {changed[0]} and {changed[1]} were edited (fix: name one, bench run TEXT FILE)")
        return changed[0] if changed else self.mounted

    def _places(self) -> list[Path]:
        copy = [self.folder / "train.py"] if self.folder is not None else []
        return [path for path in (*copy, self.mounted) if path.is_file()]

    def _differs(self, path: Path) -> bool:
        """Whether somebody edited it: it holds neither what was last in both nor, mounted, what we put there to run."""
        data = path.read_bytes()
        ours = path == self.mounted and data == _bytes(self._carried)
        return not ours and (_bytes(self._synced) or b"") != _digest(data).encode()


def locked(path: Path) -> IO[str] | None:
    """The open file at `path`, ours until nobody has it open any more; None while it is somebody else's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise EditError(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > _MOST_BYTES:
        raise EditError(f"{path} is larger than a train.py may be")
    return data


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _replace(path: Path, data: bytes) -> None:
    beside = path.with_name(f".{path.name}.new")
    beside.write_bytes(data)
    beside.replace(path)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
