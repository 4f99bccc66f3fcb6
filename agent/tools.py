"""The four edits an agent can make, all in place on the one mounted file. UNTRUSTED.

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

    def view(self) -> str:
        """The whole file."""
        return self.path.read_text(encoding="utf-8")

    def write(self, text: str) -> None:
        """Replace the whole file."""
        with self.path.open("r+b") as file:
            file.write(text.encode("utf-8"))
            file.truncate()
            file.flush()
            os.fsync(file.fileno())

    def str_replace(self, old: str, new: str) -> None:
        """Replace `old`, which must occur exactly once; raises EditError."""
        text = self.view()
        count = text.count(old)
        if count != 1:
            raise EditError(f"the text to replace occurs {count} times, must be once")
        self.write(text.replace(old, new))

    def insert(self, line: int, text: str) -> None:
        """Insert `text` after line `line` (0: at the top); raises EditError."""
        lines = self.view().splitlines(keepends=True)
        if not 0 <= line <= len(lines):
            raise EditError(f"line {line} is outside 0..{len(lines)}")
        self.write("".join(lines[:line]) + text.rstrip("\n") + "\n" + "".join(lines[line:]))
