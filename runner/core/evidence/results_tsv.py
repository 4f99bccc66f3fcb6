"""results.tsv: upstream's five columns first, then ours. TRUSTED; descriptions come from the agent.

A spreadsheet must not run a description (OWASP, CSV injection): tabs, newlines and control characters become
spaces, double quotes become single ones (a quoted cell could swallow rows), and a cell that would start a
formula is prefixed with an apostrophe.
"""

from __future__ import annotations

import errno
import os
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from runner.core.base import files
from runner.core.base.values import Experiment, Status

COLUMNS = (
    "commit",
    "val_bpb",
    "memory_gb",
    "status",
    "description",
    "experiment",
    "outcome",
    "val_bpb_bytes",
    "claimed",
    "causality",
    "seconds",
    "reason",
    "snapshot",
    "confirmed",
    "pairs",
    "gain",
    "probability",
)
FORMULA = ("=", "+", "-", "@")  # full-width forms too: some spreadsheets read them alike
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_UPSTREAM_STATUS = {Status.KEEP: "keep", Status.DISCARD: "discard"}


def cell(text: str) -> str:
    """One neutral cell."""
    text = _CONTROL.sub(" ", text).replace('"', "'").strip()
    return f"'{text}" if text and unicodedata.normalize("NFKC", text)[:1] in FORMULA else text


def line(e: Experiment) -> str:
    """One row; upstream knows keep, discard and crash, so the fourth column is one of the three."""
    scored = e.val_bpb is not None
    values = (
        e.commit[:7],
        f"{e.val_bpb or 0.0:.6f}",
        f"{e.memory_gb:.1f}",
        _UPSTREAM_STATUS.get(e.status, "crash"),
        cell(e.description),
        str(e.id),
        e.status,
        f"{e.val_bpb_bytes:.6f}" if scored and e.val_bpb_bytes is not None else "",
        f"{e.claimed:.6f}" if e.claimed is not None else "",
        e.causality or "",
        f"{e.seconds:.1f}",
        e.reason or "",
        e.snapshot,
        f"{e.confirmed:.6f}" if e.confirmed is not None else "",
        str(e.pairs) if e.pairs else "",
        f"{e.gain:.6f}" if e.gain is not None else "",
        f"{e.probability:.3f}" if e.probability is not None else "",
    )
    return "\t".join(values)


def write(path: Path, experiments: Sequence[Experiment]) -> None:
    """Replace the file atomically."""
    text = "\n".join(["\t".join(COLUMNS), *(line(e) for e in experiments)]) + "\n"
    files.write(path, text)


class Results:
    """The file of one tag: a row is added as a line, as long as the file is as it was left; else all is written anew.

    A line that a crash tore is mended with the next session's `rewrite`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._left: tuple[int, ...] | None = None  # rows, and what the kernel noted when it was last written

    def rewrite(self, experiments: Sequence[Experiment]) -> None:
        """Write all of it."""
        write(self._path, experiments)
        self._left = self._now(len(experiments))

    def add(self, experiments: Sequence[Experiment]) -> None:
        """Bring the file up to all `experiments`, of which the newest is probably all that is missing."""
        if self._left is None or self._left != self._now(len(experiments) - 1):
            self.rewrite(experiments)
            return
        self._left, added = None, f"{line(experiments[-1])}\n".encode()  # until it is there as a whole
        with files.append(self._path) as file:
            if file.write(added) != len(added):
                raise OSError(errno.ENOSPC, "no room for a line", str(self._path))
            os.fsync(file.fileno())
        self._left = self._now(len(experiments))

    def _now(self, rows: int) -> tuple[int, ...] | None:
        try:
            found = self._path.lstat()
        except OSError:
            return None
        return rows, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
