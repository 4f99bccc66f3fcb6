"""Which runs cannot win any more? Told from their training loss and how the tag's runs ended. TRUSTED, no I/O.

At each look (a share of the budget after the first step, by the host's clock) the val_bpb of the tag's scored runs is
regressed on the training loss they had at that look. A run is hopeless if the lower bound of what it will score
(Student's t, prediction of one new observation: Draper and Smith, Applied Regression Analysis, section 1.4; and twice
the largest surprise so far, since changes that pay late have heavier tails than the normal's) is above the score there
is to beat, so its loss exceeds the frontier's by more than chance explains. Its loss is the run's own
word: one that lies about it loses its own chance or saves itself, as if there were no early stop. What is predicted is
measured by the evaluator.

A share of the hopeless runs, drawn with the bench's key, is run to the end all the same. One that is kept shows that
the prediction fails here: from then on the tag ends no run early.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from runner.core.base.values import Experiment, Hopeless, Status
from runner.core.decision.noise import quantile
from runner.core.policy.policy_files import EarlyStop

_GUARD = 2.0  # times the largest surprise; bench/early_stop.py says what it costs and saves
_LEAST_SPREAD = 1e-9  # of losses, nats: below it they say nothing


class Line(NamedTuple):
    """A regression of val_bpb on loss: value at the mean loss, slope, residual deviation, and the runs it rests on."""

    mean_loss: float
    mean_bpb: float
    slope: float
    sigma: float
    runs: int
    spread: float  # sum of squares of the losses about their mean
    surprise: float  # the most that one of them scored below it

    def least(self, loss: float, alpha: float) -> float:
        """What a run with this loss scores at least, but for a share `alpha` of all cases."""
        away = loss - self.mean_loss
        width = self.sigma * math.sqrt(1 + 1 / self.runs + away**2 / self.spread) * quantile(1 - alpha, self.runs - 2)
        return self.mean_bpb + self.slope * away - max(width, _GUARD * self.surprise)


def fit(points: Sequence[tuple[float, float]]) -> Line | None:
    """The line through (loss, val_bpb) points; None if they do not determine one that rises."""
    if len(points) < 3:
        return None
    mean_loss = math.fsum(loss for loss, _ in points) / len(points)
    mean_bpb = math.fsum(bpb for _, bpb in points) / len(points)
    spread = math.fsum((loss - mean_loss) ** 2 for loss, _ in points)
    if spread < _LEAST_SPREAD:
        return None
    slope = math.fsum((loss - mean_loss) * (bpb - mean_bpb) for loss, bpb in points) / spread
    if slope <= 0:
        return None
    below = [mean_bpb + slope * (loss - mean_loss) - bpb for loss, bpb in points]
    sigma = math.sqrt(math.fsum(one**2 for one in below) / (len(points) - 2))
    return Line(mean_loss, mean_bpb, slope, sigma, len(points), spread, max(below))


def hopeless(
    policy: EarlyStop, rows: Sequence[Experiment], lane: str, against: float, look: float, loss: float
) -> Hopeless | None:
    """Why a run with this loss at this look cannot score below `against`; None if it can, or too little is known.

    `rows` are the tag's finished experiments; those of another lane may have trained at another pace.
    """
    here = [(dict(row.pace), row.val_bpb) for row in rows if row.lane == lane]
    points = [(pace[look], bpb) for pace, bpb in here if bpb is not None and look in pace]
    line = None if len(points) < policy.runs or failed(rows) else fit(points)
    if line is None:
        return None
    bound = round(line.least(loss, policy.alpha / len(policy.looks)), 6)
    return Hopeless(look=look, rows=len(rows), against=against, bound=bound) if bound > against else None


@dataclass
class Lookout:
    """Looks at one run while it trains, by what is known at that moment."""

    policy: EarlyStop
    lane: str
    known: Callable[[], tuple[Sequence[Experiment], float | None]]  # finished experiments, and val_bpb there is to beat
    audited: bool  # it goes on whatever is found
    found: Hopeless | None = None

    def judge(self, look: float, loss: float) -> bool:
        """Whether to give the run up."""
        rows, against = self.known()
        if self.found is None and against is not None:
            self.found = hopeless(self.policy, rows, self.lane, against, look, loss)
        return self.found is not None and not self.audited


def failed(rows: Sequence[Experiment]) -> bool:
    """Whether a run that was found hopeless, and run to the end all the same, was kept."""
    return any(row.hopeless is not None and row.status is Status.KEEP for row in rows)


def follows(policy: EarlyStop, rows: Sequence[Experiment], row: Experiment) -> bool:
    """Whether what a row says of its own hopelessness follows from the rows before it (verify)."""
    found = row.hopeless
    if found is None:
        return row.reason != "early_stop"
    before, loss = rows[: found.rows], dict(row.pace).get(found.look)
    keeps = [one.val_bpb for one in before if one.status is Status.KEEP and one.val_bpb is not None]
    if loss is None or not keeps or found.against < keeps[-1]:
        return False
    return hopeless(policy, before, row.lane, found.against, found.look, loss) == found
