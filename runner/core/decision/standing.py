"""What a tag's ledger says about its train.py files: scores by seed, noise, what there is to beat. TRUSTED, pure.

The loop decides by it, and verify and the report read the same rows the same way. Scores are compared within a lane:
on another GPU the same file trains a little more or less. A best that was kept elsewhere is run here first.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence

from runner.core.base.launching import Costs
from runner.core.base.values import INTERRUPTED, OUTCOMES, Experiment, Rerun, Status
from runner.core.decision import decide
from runner.core.decision.decide import Runs, Standing
from runner.core.decision.noise import Noise
from runner.core.policy.policy_files import Decision


def scores(number: int, reruns: Sequence[Rerun]) -> dict[int, float | None]:
    """Scores of an experiment's reruns by seed, as the tag's own terms gave them."""
    return {r.seed: r.val_bpb for r in reruns if r.experiment == number and r.during and r.reason != INTERRUPTED}


def runs(row: Experiment, reruns: Sequence[Rerun], lane: str | None = None) -> Runs:
    """What is known of a recorded experiment's train.py, on one lane (None: on all)."""
    found = scores(row.id, on(lane, reruns))
    if lane in (None, row.lane):
        found[decide.FIRST_SEED] = row.val_bpb
    return Runs(found, row.snapshot_size, row.memory_gb * 1024, row.val_bpb)


def on(lane: str | None, reruns: Sequence[Rerun]) -> list[Rerun]:
    """The reruns on a lane; None: all."""
    return [rerun for rerun in reruns if lane in (None, rerun.lane)]


def paired(best: int, reruns: Sequence[Rerun]) -> list[Rerun]:
    """Without those whose draws were for pairs with another best: the best may change while a candidate is rerun."""
    return [rerun for rerun in reruns if rerun.pair in (0, best)]


def fitting(policy: Decision, best: int, reruns: Sequence[Rerun], number: int, neighbours: float) -> list[Rerun]:
    """Without runs of the best that had unlike neighbours and were made for an earlier candidate than `number`.

    They are made again, beside what is at work now: else a host that falls quiet makes a change without effect win.
    """
    if policy.uneven == "mark":
        return list(reruns)
    most = policy.uneven_processors
    return [
        rerun
        for rerun in reruns
        if rerun.experiment != best or rerun.during == number or abs(rerun.neighbours - neighbours) <= most
    ]


def noise(
    policy: Decision, rows: Sequence[Experiment], reruns: Sequence[Rerun], lane: str | None = None
) -> Noise | None:
    """The tag's noise so far, on one lane (None: on all); None before it was measured.

    Under rule `odds` it is what was believed at the newest verdict.
    """
    known = believed(policy, rows)
    if known is not None:
        return known
    again: dict[int, list[Rerun]] = {}
    for rerun in on(lane, reruns):
        if rerun.during:
            again.setdefault(rerun.experiment, []).append(rerun)
    first = baseline(rows)
    measured = [runs(row, again.get(row.id, ()), lane) for row in rows if row.id in again or row is first]
    others = [Runs(scores(number, again[number]), 0) for number in sorted(again.keys() - {row.id for row in rows})]
    return decide.measured([*measured, *others], policy.least_noise_bpb)


def believed(policy: Decision, rows: Sequence[Experiment]) -> Noise | None:
    """What rule `odds` took the noise for at the newest verdict; None under other rules, and before there was one."""
    sigma = next((row.sigma for row in reversed(rows) if row.sigma is not None), None)
    return None if sigma is None else Noise(sigma, max(1, policy.scale_runs - 1))


def best(rows: Sequence[Experiment]) -> Experiment | None:
    """The last keep: what a candidate is measured against."""
    return next((row for row in reversed(rows) if _kept(row)), None)


def expected(rows: Sequence[Experiment]) -> float | None:
    """What the best was believed to gain over the baseline at the newest row that says so; None under other rules."""
    return next((row.total for row in reversed(rows) if row.total is not None), None)


def outcomes(rows: Sequence[Experiment]) -> dict[str, int]:
    """How many ended how, in the order of OUTCOMES; none of some."""
    counts = Counter(row.outcome for row in rows)
    return {outcome: counts[outcome] for outcome in OUTCOMES}


def line(rows: Sequence[Experiment]) -> list[Experiment]:
    """The kept line, oldest first: keeps, but for those that a person took back and what was built on them."""
    found: list[Experiment] = []
    for row in rows:
        if _kept(row):
            follow(found, row)
    return found


def follow(kept: list[Experiment], row: Experiment) -> list[Experiment]:
    """Add the next keep to a line; what a veto takes out of it."""
    out: list[Experiment] = []
    if row.veto is not None:
        first = next((n for n, other in enumerate(kept) if other.id == row.veto), len(kept))
        out, kept[first:] = kept[first:], []
    kept.append(row)
    return out


class TakenOut:
    """Keeps that a person took back, and what was built on them, of rows that are added to."""

    def __init__(self) -> None:
        self._seen = 0
        self._kept: list[Experiment] = []
        self._out: list[Experiment] = []

    def of(self, rows: Sequence[Experiment]) -> list[Experiment]:
        """Of these rows, which begin with those of the last call."""
        for row in rows[self._seen :]:
            self._seen += 1
            if _kept(row):
                self._out += follow(self._kept, row)
        return list(self._out)


def taken_back(rows: Sequence[Experiment], number: int) -> Experiment | None:
    """The keep before `number` in the line, to which a veto of that leads; None if it is not one to take back."""
    kept = line(rows)
    return next((before for before, row in itertools.pairwise(kept) if row.id == number), None)


def baseline(rows: Sequence[Experiment]) -> Experiment | None:
    """The first keep: what the tag began with, None before there is one."""
    return next((row for row in rows if row.status is Status.KEEP), None)


def baseline_seconds(rows: Sequence[Experiment]) -> float | None:
    """How long the training container of the first kept experiment lived."""
    first = baseline(rows)
    return first.train_seconds if first else None


def baseline_costs(rows: Sequence[Experiment]) -> Costs | None:
    """What it took to score the first kept experiment; None before there is one, and in a tag older than this."""
    first = baseline(rows)
    return first.evaluation.costs if first and first.evaluation else None


def parent(rows: Sequence[Experiment], row: Experiment) -> Experiment | None:
    """The keep that `row` was compared with, None for a baseline."""
    before = itertools.takewhile(lambda other: other.id != row.id, rows)  # rows are in the order in which they ended
    keeps = [other for other in before if other.status is Status.KEEP]
    return keeps[-1] if keeps else None


def standing(
    policy: Decision, rows: Sequence[Experiment], reruns: Sequence[Rerun], lane: str | None = None
) -> Standing | None:
    """What the next candidate of a lane is measured against, None before the first keep."""
    last, first = best(rows), next((row for row in rows if _kept(row)), None)
    if last is None or first is None:
        return None
    chosen_by = [r.seed for r in reruns if r.experiment == last.id == r.during]
    since = decide.FIRST_SEED if last is first else max(chosen_by, default=decide.FIRST_SEED) + 1
    known = runs(last, paired(last.id, reruns), lane)
    return Standing(known, noise(policy, rows, reruns, lane), first.memory_gb * 1024, since)


def _kept(row: Experiment) -> bool:
    return row.status is Status.KEEP and row.val_bpb is not None
