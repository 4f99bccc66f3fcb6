"""What a tag's experiments teach, computed by the runner: kinds of edits, near misses, plateau, noise. TRUSTED, pure.

Reads rows as far as the agent was told of them, so nothing here is news to it; the noise alone comes from reruns, and
is counted in leak_budget.py.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import get_args

from runner.core.base.launching import Frozen
from runner.core.base.values import NOTHING_PROPOSED, Experiment, Kind, Status
from runner.core.decision.noise import Noise
from runner.core.findings import edits

NEAR_SIGMAS = 2.0  # a discard that lost or gained less than this is a near miss
NEAR_SHOWN = 8
Source = Callable[[Experiment], bytes | None]  # a row's train.py, None if it is lost


class Tally(Frozen):
    """How experiments that changed one kind of thing fared."""

    tried: int
    kept: int
    failed: int  # no score
    best_gain: float | None  # the largest claimed


class Analysis(Frozen):
    """A tag at a glance, for the agent and for people."""

    kinds: dict[Kind, Tally]
    near_misses: list[int]  # numbers of discards within the noise of the best of their time, closest first
    plateau: int  # experiments since the last keep
    noise_bpb: float | None  # standard deviation of one run, two digits


@dataclass
class _Counts:
    tried: int = 0
    kept: int = 0
    failed: int = 0
    best_gain: float | None = None

    def add(self, row: Experiment) -> None:
        self.tried += 1
        self.kept += row.status is Status.KEEP
        self.failed += row.val_bpb is None
        if row.claimed is not None and (self.best_gain is None or row.claimed > self.best_gain):
            self.best_gain = row.claimed


class Study:
    """A tag's rows, taken in one by one as they ended; each costs the same, however many there are."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._rows = 0
        self._best: Experiment | None = None
        self._since = 0  # the last keep
        self._counts: dict[Kind, _Counts] = {}
        self._near: list[tuple[float, int]] = []  # (loss, number) of the closest discards

    def catch_up(self, rows: Sequence[Experiment]) -> None:
        """Take in the rows that ended since."""
        for row in rows[self._rows :]:
            self.take(row)

    def take(self, row: Experiment) -> None:
        """Take in the next row."""
        self._rows += 1
        if row.reason == NOTHING_PROPOSED:
            return
        for kind in kinds(self._best, row, self._source):
            self._counts.setdefault(kind, _Counts()).add(row)
        self._since += 1
        if row.status is Status.KEEP:
            self._best, self._since = row, 0
        elif row.status is Status.DISCARD and row.claimed is not None:
            bisect.insort(self._near, (-row.claimed, row.id))
            del self._near[NEAR_SHOWN:]

    def found(self, noise: Noise | None) -> Analysis:
        """What the rows so far teach."""
        sigma = two_digits(noise.sigma) if noise else None
        ordered = {kind: Tally(**vars(self._counts[kind])) for kind in get_args(Kind) if kind in self._counts}
        near = [] if sigma is None else [number for loss, number in self._near if loss < NEAR_SIGMAS * sigma]
        return Analysis(kinds=ordered, near_misses=near, plateau=self._since, noise_bpb=sigma)


def study(rows: Sequence[Experiment], noise: Noise | None, source: Source) -> Analysis:
    """Analyse rows in order."""
    found = Study(source)
    found.catch_up(rows)
    return found.found(noise)


def kinds(best: Experiment | None, row: Experiment, source: Source) -> Sequence[Kind]:
    """What a row changed in the best of its time, as it was recorded; a row that is older than this is looked at."""
    if best is None:
        return []
    return row.kinds if row.kinds is not None else edits.kinds(source(best), source(row))


def against(row: Experiment, before: Experiment | None) -> dict[str, float]:
    """Telemetry next to that of the best it was made from: last loss (difference), steps and tokens (ratios)."""
    if before is None:
        return {}
    found = {}
    if row.curve and before.curve:
        found["last_loss"] = round(row.curve[-1][1] - before.curve[-1][1], 3)
    for name in ("num_steps", "total_tokens_M", "num_params_M", "peak_vram_mb"):
        ours, theirs = row.summary.get(name), before.summary.get(name)
        if ours is not None and theirs:
            found[name] = round(ours / theirs, 2)
    return found


def two_digits(value: float) -> float:
    """Rounded to two significant digits."""
    return float(f"{value:.1e}")
