"""Does a win of the short budget hold elsewhere: more seeds, a longer budget, a larger depth, another profile? TRUSTED.

Computed from the ledger's reruns alone, so the report and `--json` say the same at any time. What a person asks for is
run by rooms/desk/requested_reruns.py. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from runner.core.base.launching import Frozen
from runner.core.base.values import Experiment, Rerun, Status
from runner.core.decision import standing
from runner.core.decision.decide import BPB_DIGITS
from runner.core.decision.noise import believed, pooled

LEAST = 1e-6  # val_bpb: a deviation of pairs is never taken to be less
FIRST_ASKED = 1000  # number of the first draw a person asks for
FIRST_PRUNED = 2000  # of the first draw that a pruning ends with, which decides whether what it left stays
PRUNED_APART = 100  # each pruning has draws of its own
Terms = tuple[float, int | None, str, bool]  # budget, depth, artifact, whether on the holdout


class Transfer(Frozen):
    """One experiment under other terms, next to the keep it was measured against."""

    experiment: int
    against: int | None  # None: it is the baseline
    budget: float
    depth: int | None
    artifact: str
    holdout: bool = False  # scored on text that nothing was chosen by
    scores: dict[int, float]  # val_bpb by seed
    others: dict[int, float]  # of `against`
    failed: int  # runs of either without a score
    gain: float | None  # mean over the seeds both have: positive is better
    interval: tuple[float, float] | None  # at 1 - alpha; None from a single pair

    @property
    def scored_on(self) -> str:
        """In words."""
        return text_of(self.artifact, self.holdout)


def text_of(artifact: str, holdout: bool) -> str:
    """What a run was scored on, in words: numbers of the one say nothing beside numbers of the other."""
    return f"{artifact}, held back" if holdout else artifact


def gain(row: Experiment) -> float:
    """What a row's verdict expected of it; under rules that say nothing of that, what its first run claimed."""
    return row.gain if row.gain is not None else row.claimed or 0.0


def terms_of(rerun: Rerun) -> Terms:
    """What a rerun ran under."""
    return rerun.budget, rerun.depth, rerun.artifact, rerun.holdout


def transfers(rows: Sequence[Experiment], reruns: Sequence[Rerun], alpha: float) -> list[Transfer]:
    """What all reruns that people asked for say, by terms and experiment."""
    asked = [rerun for rerun in reruns if not rerun.during and rerun.seed < FIRST_PRUNED]
    by_number = {row.id: row for row in rows}
    found = []
    for terms in sorted({terms_of(rerun) for rerun in asked}, key=str):
        group = [rerun for rerun in asked if terms_of(rerun) == terms]
        for number in sorted({rerun.experiment for rerun in group}):
            before = standing.parent(rows, by_number[number]) if number in by_number else None
            found.append(side_by_side(group, number, before.id if before else None, alpha))
        beside = {one.against for one in found if one.gain is not None and under(one, terms)}
        found = [one for one in found if one.gain is not None or one.experiment not in beside or not under(one, terms)]
    return found + [one for one in prunings(rows, reruns, alpha) if one is not None]


def prunings(rows: Sequence[Experiment], reruns: Sequence[Rerun], alpha: float) -> list[Transfer | None]:
    """What each pruning left beside what it began with, by the runs that it ended with; None without them."""
    groups: dict[int, list[Rerun]] = {}
    for one in reruns:
        if not one.during and one.seed >= FIRST_PRUNED:
            groups.setdefault((one.seed - FIRST_PRUNED) // PRUNED_APART, []).append(one)
    found: list[Transfer | None] = [None] * (max(groups, default=-1) + 1)
    for number, group in groups.items():
        before, after = min(one.experiment for one in group), max(one.experiment for one in group)
        if before != after:
            found[number] = _of_means(side_by_side(group, after, before, alpha), rows, alpha)
    return found


def under(one: Transfer, terms: Terms) -> bool:
    """Whether it was measured under these terms."""
    return (one.budget, one.depth, one.artifact, one.holdout) == terms


def side_by_side(group: Sequence[Rerun], number: int, against: int | None, alpha: float) -> Transfer:
    """An experiment next to another, by the draws both have of `group`: reruns under the same terms, one at least."""
    scores, others = _scores(group, number), _scores(group, against)
    pairs = [others[seed] - scores[seed] for seed in sorted(scores.keys() & others.keys())]
    gain = math.fsum(pairs) / len(pairs) if pairs else None
    interval = None
    moves = len(set(scores.values())) > 1 or len(set(others.values())) > 1  # a file that ignores its seed says nothing
    if gain is not None and moves and (noise := pooled([pairs], LEAST)) is not None:
        width = noise.bound(alpha / 2, 1 / len(pairs))
        interval = (round(gain - width, BPB_DIGITS), round(gain + width, BPB_DIGITS))
    return Transfer(
        experiment=number,
        against=against if others else None,
        budget=group[0].budget,
        depth=group[0].depth,
        artifact=group[0].artifact,
        holdout=group[0].holdout,
        scores=scores,
        others=others,
        failed=sum(r.experiment in (number, against) and r.val_bpb is None for r in group),
        gain=None if gain is None else round(gain, BPB_DIGITS),
        interval=interval,
    )


def _scores(group: Sequence[Rerun], number: int | None) -> dict[int, float]:
    return {r.seed: r.val_bpb for r in group if r.experiment == number and r.val_bpb is not None}


def overall(rows: Sequence[Experiment], reruns: Sequence[Rerun], alpha: float, budget: float) -> Transfer | None:
    """The best against the baseline on all draws a person asked for under the tag's own terms: none chose the best.

    On the holdout, where both were scored on it. The difference of two means, for the draws of one side need not be
    those of the other.
    """
    keeps = [row for row in rows if row.status is Status.KEEP and row.val_bpb is not None]
    if len(keeps) < 2:
        return None
    # Those of a pruning had a part in which file is the best.
    asked = [r for r in reruns if not r.during and r.depth is None and r.seed < FIRST_PRUNED]
    artifact = keeps[0].artifact
    terms = [r for r in asked if r.artifact == artifact and r.budget == budget]
    sides = [[r for r in terms if r.holdout is held] for held in (True, False)]
    measured = [side_by_side(side, keeps[-1].id, keeps[0].id, alpha) for side in sides if side]
    found = next((one for one in measured if one.scores and one.others), None)
    if found is None:
        return None
    return _of_means(found, rows, alpha)


def _of_means(found: Transfer, rows: Sequence[Experiment], alpha: float) -> Transfer:
    """The same by the means of both sides, and by what the whole tag says of the noise: a few runs say little of it."""
    best, baseline = list(found.scores.values()), list(found.others.values())
    if not best or not baseline:
        return found
    gain = math.fsum(baseline) / len(baseline) - math.fsum(best) / len(best)
    learned = next((row.sigma for row in reversed(rows) if row.sigma is not None), None)
    interval, noise = None, pooled([best, baseline], LEAST)
    if learned is not None:
        noise = believed(learned, [best, baseline])
    if noise is not None and noise.sigma > LEAST:  # files that ignore their seed say nothing of it
        width = noise.bound(alpha / 2, 1 / len(best) + 1 / len(baseline))
        interval = (round(gain - width, BPB_DIGITS), round(gain + width, BPB_DIGITS))
    return found.model_copy(update={"gain": round(gain, BPB_DIGITS), "interval": interval})
