"""Rule `odds`: keep what is expected to gain, by all that the tag's scores say. TRUSTED, pure.

A candidate is weighed against everything known of the line (beliefs.py), in order:
1. the baseline is run `scale_runs` times on a lane before anything is decided there: scale and noise;
2. expected gain no more than `keep_from_sigmas` of the noise, and more for code that was added: discard, unless it is a
   simpler file that is expected to lose no more than `simplicity_sigmas` on the best the line ever was;
3. a single run that promises more than `verify_from_sigmas`: run it once more; the second must gain by itself, and runs
   that are too far apart for one file count as the worst of them;
4. after ten candidates in a row far below the best: run the best once more, it may have been a fluke;
5. otherwise keep, with the expected gain and the probability that its effect is real in the row, unless it is expected
   to be far worse than the best the line ever was.
Nothing else is rerun to decide. What a tag gained is measured apart from that, on draws nothing was chosen by
(core/findings/headline.py). docs/decision.md has the figures; the rule was fitted to nights of upstream's.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from runner.core.base.values import Experiment, Rerun, Status
from runner.core.decision import standing
from runner.core.decision.beliefs import Beliefs, Weighed
from runner.core.decision.decide import BPB_DIGITS, FIRST_SEED, SPARE_SEEDS, Runs, Verdict, Wanted, first_score
from runner.core.policy.policy_files import Decision

_DOWNHILL = 2.0  # of the noise: no keep is worse by more than this than the best file the line ever had
_AGAIN = FIRST_SEED + 1  # the draw of a candidate's second run
_LOOKS = FIRST_SEED + 500  # the first draw by which the best is looked at again
_STREAK, _WORSE = 10, 3.0  # so many in a row, each worse by more than so much of the noise: was the best a fluke?


class Candidate(NamedTuple):
    """A scored train.py: its number, the file it was made from (None: unknown), its lane, its runs there."""

    number: int
    parent: int | None
    lane: str
    runs: Runs


class _Scale(NamedTuple):
    """What a lane's scores are compared by: the beliefs, and how much higher this lane scores than they say."""

    beliefs: Beliefs
    higher: float


class Line:
    """A tag as this rule remembers it, fed with its rows in the order in which they ended."""

    def __init__(self, policy: Decision) -> None:
        self._policy = policy
        self._seen = 0
        self._beliefs: Beliefs | None = None
        self._higher: dict[str, float] = {}
        self._baseline: Experiment | None = None
        self._best: Experiment | None = None
        self._kept: list[int] = []  # the line
        self._streak = 0  # candidates since the last that was near the best, or since the best was looked at again

    def forget(self) -> None:
        """Begin again: what was taken in last was not recorded."""
        Line.__init__(self, self._policy)

    def catch_up(self, rows: Sequence[Experiment], reruns: Sequence[Rerun]) -> None:
        """Take in the rows that ended since; `reruns`: at least those of their own and of the baseline."""
        for row in rows[self._seen :]:  # whoever read the rows before another lane's ended takes nothing twice
            self.take(row, reruns)

    @property
    def beliefs(self) -> Beliefs | None:
        """What is believed of the line, None before the first candidate was scored."""
        return self._beliefs

    def total(self) -> float | None:
        """What the best is believed to gain over the baseline, None before anything is."""
        if self._beliefs is None:
            return None
        return round(self._beliefs.baseline - self._beliefs.expected(), BPB_DIGITS)

    def to_beat(self, lane: str) -> float | None:
        """What is believed of the best's score on a lane, None before anything is known there."""
        if self._beliefs is None or lane not in self._higher:
            return None
        return self._beliefs.expected() + self._higher[lane]

    def judge(self, candidate: Candidate, reruns: Sequence[Rerun]) -> Verdict | Wanted:
        """A verdict on a scored candidate, or the run that is still needed for one."""
        if self._baseline is None or self._best is None:
            return Verdict(Status.KEEP)
        scale = self._scale(candidate.lane, reruns)
        if isinstance(scale, Wanted):
            return scale
        beliefs, higher = scale
        again = [rerun for rerun in reruns if self._looks_again(rerun, candidate.number)]
        if self._streak >= _STREAK and not again:
            return Wanted("best", self._untried(reruns))
        if again:
            beliefs = copy.deepcopy(beliefs)
            _measure(beliefs, again, higher)
        claimed = round(self._told(scale) - first_score(candidate.runs), BPB_DIGITS)
        weighed = beliefs.weigh(self._parent(candidate.parent, beliefs), _scores(candidate.runs, higher))
        found = Verdict(
            Status.DISCARD,
            None,
            claimed,
            gain=round(weighed.gain, BPB_DIGITS),
            probability=round(weighed.probability, 3),
            sigma=round(weighed.sigma, BPB_DIGITS + 1),
        )
        promising = weighed.gain > self._policy.verify_from_sigmas * beliefs.sigma()  # as it was known before
        if promising and len(candidate.runs.scores) == 1:
            return Wanted("candidate", _AGAIN)
        known = candidate.runs.known()
        second = candidate.runs.scores.get(_AGAIN)
        if promising and len(known) == 1:
            return found._replace(reason="not_confirmed")  # a second run gave no score
        if second is not None and beliefs.expected() + higher - second <= 0:
            return found._replace(reason="not_confirmed")  # the first was chosen for being low, this one was not
        return self._decided(candidate.runs, beliefs, weighed, found)

    def _decided(self, runs: Runs, beliefs: Beliefs, weighed: Weighed, found: Verdict) -> Verdict:
        policy, best, baseline = self._policy, self._best, self._baseline
        if best is None or baseline is None:
            raise ValueError("a candidate before the baseline")
        added = max(0, runs.size - best.snapshot_size) / 100
        asked = (policy.keep_from_sigmas + policy.code_sigmas * added) * weighed.sigma
        gains = weighed.gain > max(asked, policy.minimum_gain_bpb) and weighed.probability >= policy.keep_probability
        lost = beliefs.expected() - weighed.gain - beliefs.lowest()  # on the best that the line ever was
        simpler = best.snapshot_size - runs.size >= policy.simplicity_bytes
        equal = simpler and lost <= policy.simplicity_sigmas * weighed.sigma
        gains = gains and lost <= _DOWNHILL * weighed.sigma
        if not gains and not equal:
            return found
        large = 0 < policy.memory_ratio * baseline.memory_gb * 1024 < runs.memory_mb
        if large and weighed.gain < policy.memory_gain_bpb:
            return found._replace(reason="memory")
        return found._replace(status=Status.KEEP, reason=None if gains else "simpler")

    def take(self, row: Experiment, reruns: Sequence[Rerun]) -> None:
        """Take in the next row that ended; `reruns` as above."""
        self._seen += 1
        if row.val_bpb is None:
            return
        kept = row.status is Status.KEEP
        if self._baseline is None:
            if kept:
                self._baseline = self._best = row
                self._kept = [row.id]
            return
        scale = self._scale(row.lane, reruns)
        if not isinstance(scale, Wanted):
            self._beliefs, self._higher[row.lane] = scale
            known = standing.runs(row, [one for one in reruns if one.during == row.id], row.lane)
            parent = self._parent(row.parent, scale.beliefs)
            again = [rerun for rerun in reruns if self._looks_again(rerun, row.id)]
            _measure(scale.beliefs, again, scale.higher)
            scores = _scores(known, scale.higher)
            weighed = scale.beliefs.weigh(parent, scores)
            worse = weighed.gain < -_WORSE * weighed.sigma
            self._streak = self._streak + 1 if worse and not again else 0
            scale.beliefs.learn(row.id, parent, scores, kept=kept)
        if kept:
            self._keep(row)

    def _keep(self, row: Experiment) -> None:
        if row.veto in self._kept:
            at = self._kept.index(row.veto)
            if self._beliefs is not None:
                self._beliefs.take_out(self._kept[at:])
            del self._kept[at:]
        self._kept.append(row.id)
        self._best, self._streak = row, 0

    def _looks_again(self, rerun: Rerun, number: int) -> bool:
        """Whether a run looked at the best once more for the sake of an experiment."""
        best = self._best.id if self._best else 0
        return (rerun.experiment, rerun.during) == (best, number) and rerun.seed >= _LOOKS

    def _untried(self, reruns: Sequence[Rerun]) -> int:
        """A draw by which the best was not looked at yet."""
        tried = {rerun.seed for rerun in reruns if self._best and rerun.experiment == self._best.id}
        return next(seed for seed in itertools.count(_LOOKS) if seed not in tried)

    def _scale(self, lane: str, reruns: Sequence[Rerun]) -> _Scale | Wanted:
        """How to read a lane's scores, or the run of the baseline that is missing for it."""
        if self._baseline is None:
            raise ValueError("a candidate before the baseline")
        if self._beliefs is not None and lane in self._higher:
            return _Scale(self._beliefs, self._higher[lane])
        first = [
            rerun for rerun in standing.on(lane, reruns) if rerun.seed < _LOOKS
        ]  # later looks are learned, not scale
        runs = standing.runs(self._baseline, first, lane)
        known = runs.known()
        missing = self._policy.scale_runs - len(known)
        seeds = range(_AGAIN, _AGAIN + self._policy.scale_runs + SPARE_SEEDS)
        untried = next((seed for seed in seeds if seed not in runs.scores), None)
        if missing > 0 and untried is not None:
            return Wanted("baseline", untried)
        known = known or [first_score(runs)]  # it gives no score here any more
        if self._beliefs is None:
            return _Scale(Beliefs(self._baseline.id, known, self._policy.least_noise_bpb), 0.0)
        higher = math.fsum(known) / len(known) - self._beliefs.baseline
        error = self._beliefs.sigma() * math.sqrt(1 / len(known) + 1 / self._policy.scale_runs)
        return _Scale(self._beliefs, higher * higher**2 / (higher**2 + error**2))  # what may be chance is not believed

    def _told(self, scale: _Scale) -> float:
        """The best's own score as this lane would have given it."""
        if self._best is None or self._best.val_bpb is None:
            raise ValueError("a best without score")
        return self._best.val_bpb - self._higher.get(self._best.lane, 0.0) + scale.higher

    def _parent(self, number: int | None, beliefs: Beliefs) -> int:
        return number if number is not None and beliefs.knows(number) else beliefs.best


class Replay:
    """Rule `odds` over a tag, row by row, each with the runs that were its own or the baseline's by then."""

    def __init__(self, rules: Decision, rows: Sequence[Experiment], reruns: Sequence[Rerun]) -> None:
        self.line, self._during = Line(rules), dict[int, list[Rerun]]()
        for rerun in reruns:
            self._during.setdefault(rerun.during, []).append(rerun)
        first = standing.baseline(rows)
        self._scale = [rerun for rerun in reruns if first is not None and rerun.experiment == first.id and rerun.during]

    def judge(self, row: Experiment) -> Verdict | Wanted:
        """The verdict on a scored row that was not taken in yet."""
        own = standing.runs(row, self._during.get(row.id, ()), row.lane)
        return self.line.judge(Candidate(row.id, row.parent, row.lane, own), self._known(row))

    def take(self, row: Experiment) -> float | None:
        """Take the next row in; what the tag expects after it."""
        self.line.take(row, self._known(row))
        return self.line.total()

    def _known(self, row: Experiment) -> list[Rerun]:
        return self._during.get(row.id, []) + [rerun for rerun in self._scale if rerun.during < row.id]


def _measure(beliefs: Beliefs, again: Sequence[Rerun], higher: float) -> None:
    for rerun in again:
        if rerun.val_bpb is not None:
            beliefs.measured(beliefs.best, rerun.val_bpb - higher)


def _scores(runs: Runs, higher: float) -> list[float]:
    return [score - higher for score in runs.known()]
