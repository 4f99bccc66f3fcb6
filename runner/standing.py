"""What a tag's ledger says about its train.py files: scores by seed, noise, what there is to beat. TRUSTED, pure.

The loop decides by it, and verify and the report read the same rows the same way.
"""

from __future__ import annotations

from collections.abc import Sequence

from runner import decide
from runner.decide import Runs, Standing
from runner.noise import Noise
from runner.policy import Decision
from runner.records import INTERRUPTED, Experiment, Rerun, Status


def scores(number: int, first: float | None, reruns: Sequence[Rerun]) -> dict[int, float | None]:
    """Scores of one experiment's train.py by seed, as the tag's own terms gave them."""
    found: dict[int, float | None] = {decide.FIRST_SEED: first}
    for rerun in reruns:
        if rerun.experiment == number and rerun.during and rerun.reason != INTERRUPTED:
            found[rerun.seed] = rerun.val_bpb
    return found


def runs(row: Experiment, reruns: Sequence[Rerun]) -> Runs:
    """All that is known of a recorded experiment's train.py."""
    return Runs(scores(row.id, row.val_bpb, reruns), row.snapshot_size, row.memory_gb * 1024)


def noise(policy: Decision, rows: Sequence[Experiment], reruns: Sequence[Rerun]) -> Noise | None:
    """The tag's noise so far, None before it was measured."""
    again = {rerun.experiment for rerun in reruns if rerun.during}
    baseline = next((row.id for row in rows if row.status is Status.KEEP), None)
    measured = [Runs(scores(row.id, row.val_bpb, reruns), 0) for row in rows if row.id in again or row.id == baseline]
    others = [Runs(scores(number, None, reruns), 0) for number in sorted(again - {row.id for row in rows})]
    return decide.measured([*measured, *others], policy.least_noise_bpb)


def standing(policy: Decision, rows: Sequence[Experiment], reruns: Sequence[Rerun]) -> Standing | None:
    """What the next candidate is measured against, None before the first keep."""
    keeps = [row for row in rows if row.status is Status.KEEP and row.val_bpb is not None]
    if not keeps:
        return None
    best = keeps[-1]
    chosen_by = [r.seed for r in reruns if r.experiment == best.id == r.during]
    since = decide.FIRST_SEED if len(keeps) == 1 else max(chosen_by, default=decide.FIRST_SEED) + 1
    return Standing(runs(best, reruns), noise(policy, rows, reruns), keeps[0].memory_gb * 1024, since)
