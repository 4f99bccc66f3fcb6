"""The edits an agent can make, all in place on the one mounted file. UNTRUSTED.

The mount is a single file: it cannot be renamed over, unlinked or linked, so every edit rewrites it.
"""

from __future__ import annotations

import os
from pathlib import Path

TRAIN_PY = Path(os.environ.get("GLOVEBOX_TRAIN_PY", "/work/train.py"))


class EditError(Exception):
    """The edit does not apply; the text says why."""


class Editor:
    """view, write, str_replace and insert on one file."""

    def __init__(self, path: Path = TRAIN_PY) -> None:
        self.path = path

    def text(self) -> str:
        """The whole file."""
        return self.path.read_text(encoding="utf-8")

    def view(self, first: int = 1, last: int | None = None) -> str:
        """Lines `first` to `last` (from 1, inclusive), each with its number; raises EditError."""
        lines = self.text().splitlines()
        last = len(lines) if last is None else min(last, len(lines))
        if not 1 <= first <= max(1, last):
            raise EditError(f"the file has lines 1..{len(lines)}")
        return "\n".join(f"{n:5d}  {line}" for n, line in enumerate(lines[first - 1 : last], first))

    def write(self, text: str) -> None:
        """Replace the whole file; raises EditError if it is larger than the bench takes."""
        self.put(text.encode("utf-8", errors="replace"))

    def put(self, data: bytes) -> None:
        """The same with bytes as they are."""
        try:
            with self.path.open("r+b") as file:
                file.write(data)
                file.truncate()
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise EditError(f"cannot be written: {error.strerror}") from None

    def str_replace(self, old: str, new: str) -> None:
        """Replace `old`, which must occur exactly once; raises EditError."""
        text = self.text()
        count = text.count(old) if old else 0
        if count != 1:
            raise EditError(f"the text to replace occurs {count} times, must be once")
        self.write(text.replace(old, new))

    def insert(self, line: int, text: str) -> None:
        """Insert `text` after line `line` (0: at the top); raises EditError."""
        lines = self.text().splitlines(keepends=True)
        if not 0 <= line <= len(lines):
            raise EditError(f"line {line} is outside 0..{len(lines)}")
        self.write("".join(lines[:line]) + text.rstrip("\n") + "\n" + "".join(lines[line:]))
