"""What a launcher may know of a bench: what is mounted into containers, and what decides how. TRUSTED, paths only.

A launcher holds the engine's socket; it cannot so much as name the bench's keys, its ledger or its secrets. Those,
and the map of the whole, are in home.py.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from runner.core.base.errors import GloveboxError

COMPILED_FILE = "cache/compiled.tar"  # in the folder of a compile cache
# In the folder of a run:
HAND_OVER = ("graph.json", "weights.safetensors", "telemetry.jsonl")  # what a trainer writes
SCORE = "score.json"  # what an evaluator writes
GO = "{role}.go.json"  # empty until the container is released (trainer/wire/release.py)
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
SOURCE = Path(__file__).resolve().parents[3]  # what holds our packages: a checkout, or an environment's site-packages
_WHEEL = SOURCE / "runner" / "shipped"  # made with a wheel, in no checkout
SHIPPED = _WHEEL if _WHEEL.is_dir() else SOURCE  # policies/ and program.md as they come with Glovebox


@dataclass(frozen=True)
class Mountable:
    """The part of a bench that its launcher works with."""

    root: Path

    @property
    def id(self) -> str:
        """Short name of this bench on its engine."""
        return hashlib.sha256(str(self.root.resolve()).encode()).hexdigest()[:16]

    @property
    def store(self) -> Path:
        return self.root / "store"

    @property
    def snapshots(self) -> Path:
        return self.root / "snapshots"

    @property
    def policies(self) -> tuple[Path, Path]:
        """Where policy files are looked for, file by file: the bench's own folder, then the checkout's."""
        return self.root / "policies", SHIPPED / "policies"

    @property
    def launcher_lock(self) -> Path:
        return self.root / "launcher.lock"

    def work_of(self, lane: int, seat: int = 0) -> Path:
        """The train.py that an agent of a lane edits."""
        name = f"work-{lane}.{seat}" if seat else f"work-{lane}" if lane else "work"
        return self.root / name / "train.py"

    def run(self, run: str) -> Path:
        """Files of one run: hand-over, telemetry, quarantined output."""
        return self.root / "runs" / part_of_path(run)


def part_of_path(name: str) -> str:
    """`name`, if it names a file in its folder and nothing else; raises GloveboxError."""
    if not _PART.fullmatch(name):
        raise GloveboxError(f"no part of a path: {name[:40]!r}", where="ledger", fix="restore it from a backup")
    return name
