"""Would ending hopeless runs early have paid in a tag? Its own runs are looked at again, in their order. TRUSTED, pure.

Every row has its loss at each look, whether or not runs were ended early; the decision to end one is the production
code (core/decision/early_stop.py). A run that would have been ended teaches the looks after it nothing, as it would
have then.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from runner.core.base.launching import Frozen
from runner.core.base.values import Experiment, Rerun, Status
from runner.core.decision import early_stop, standing
from runner.core.decision.odds import Replay
from runner.core.policy.policy_files import Decision, EarlyStop

LEAST_RUNS = 30  # scored runs, below which nothing is recommended
LEAST_SAVED = 0.05  # of the time of training, below which it is not worth a lost idea


class Ended(Frozen):
    """A run that would have been ended."""

    experiment: int
    look: float  # share of the budget
    kept: bool  # it went on to be kept: a loss
    gain: float  # of a keep, expected or claimed; 0 for others


class Study(Frozen):
    """What ending runs early would have done to a tag."""

    runs: int  # scored, with a loss at a look; the baseline is none of them
    unknown: int  # ended early in fact: nobody knows their scores
    ended: list[Ended]
    together: dict[float, float]  # correlation of loss and score by look
    keeps: int
    gain: float  # of all keeps, val_bpb
    saved: float  # share of the time of all training, reruns too

    @property
    def faster(self) -> float:
        """Times as many experiments in the same time of training."""
        return 1 / (1 - self.saved)

    @property
    def lost(self) -> float:
        """Share of the gain that went with keeps that would have been ended."""
        return math.fsum(one.gain for one in self.ended) / self.gain if self.gain > 0 else 0.0

    @property
    def advice(self) -> str:
        """In a sentence."""
        if not self.together:
            return "no run told a loss at these looks"
        if self.runs < LEAST_RUNS:
            return f"too few runs to say: {LEAST_RUNS} scored ones with a loss are needed"
        if self.saved < LEAST_SAVED:
            return f"it would not pay: less than {LEAST_SAVED:.0%} of the time would be saved"
        if self.lost >= self.saved:
            return "it would not pay: more of the gain would be lost than of the time saved"
        return "it would pay: early_stop.enabled in policies/decision.yaml, for tags begun from then on"


def study(decision: Decision, rows: Sequence[Experiment], reruns: Sequence[Rerun] = ()) -> Study:
    """Look at a tag's runs again under its own rule; `rows` in the order in which they ended."""
    policy = decision.early_stop
    believed = Replay(decision, rows, reruns) if decision.rule == "odds" else None
    known, scored, kept = list[Experiment](), list[Experiment](), list[Experiment]()
    ended = list[Ended]()
    for row in rows:
        look, best = None, kept[-1].val_bpb if kept else None
        against = best if believed is None else believed.line.to_beat(row.lane)
        if row.val_bpb is not None and row.veto is None and kept and any(at in policy.looks for at, _ in row.pace):
            scored.append(row)
            look = None if against is None else _given_up(policy, known, row, against)
        if look is not None:
            ended.append(Ended(experiment=row.id, look=look, kept=False, gain=0.0))
        told = {"hopeless": None} if look is None else {"hopeless": None, "val_bpb": None}
        known.append(row.model_copy(update=told))
        if row.status is Status.KEEP and row.val_bpb is not None:
            standing.follow(kept, row)
        if believed is not None:
            believed.take(row)
    gains = {row.id: _gain(row) for row in kept[1:] if row.veto is None}  # of the line as it is now
    time = {row.id: row.train_seconds for row in rows}
    whole = math.fsum(time.values()) + math.fsum(rerun.seconds for rerun in reruns)
    saved = math.fsum((1 - one.look) * time[one.experiment] for one in ended)
    return Study(
        runs=len(scored),
        unknown=sum(row.reason == "early_stop" for row in rows),
        ended=[
            one.model_copy(update={"kept": one.experiment in gains, "gain": gains.get(one.experiment, 0.0)})
            for one in ended
        ],
        together={look: together for look in policy.looks if (together := _together(scored, look)) is not None},
        keeps=len(gains),
        gain=math.fsum(gains.values()),
        saved=saved / whole if whole else 0.0,
    )


def _given_up(policy: EarlyStop, known: Sequence[Experiment], row: Experiment, best: float) -> float | None:
    """The look at which a run would have been ended; None: none."""
    pace = dict(row.pace)
    for look in policy.looks:
        if look in pace and early_stop.hopeless(policy, known, row.lane, best, look, pace[look]) is not None:
            return look
    return None


def _gain(row: Experiment) -> float:
    return max(0.0, next((one for one in (row.gain, row.confirmed, row.claimed) if one is not None), 0.0))


def _together(rows: Sequence[Experiment], look: float) -> float | None:
    """Pearson's correlation of loss at a look and score; None where one of them does not move."""
    points = [(dict(row.pace)[look], row.val_bpb) for row in rows if look in dict(row.pace) and row.val_bpb is not None]
    if len(points) < 3:
        return None
    means = [math.fsum(values) / len(points) for values in zip(*points, strict=True)]
    apart = [(loss - means[0], score - means[1]) for loss, score in points]
    spread = math.sqrt(math.fsum(a * a for a, _ in apart) * math.fsum(b * b for _, b in apart))
    return round(math.fsum(a * b for a, b in apart) / spread, 3) if spread > 0 else None
