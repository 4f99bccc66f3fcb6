"""The decision: pure functions of policy, the kept line so far and one experiment's scores. TRUSTED, no I/O.

`failure` ends what has no score: training given up for its pace is a discard, cut by the clock a timeout; a container
killed for memory or output, an exception or nothing handed over a crash; a model that cannot be exported
not_exportable; what the evaluator refused non_causal or rejected.

`judge` ends what has one, or asks for another run; odds.py has the rule of that name. Rule `upstream` keeps any lower
val_bpb. Rule `paired`, in order:
1. no lower than the best and not a simpler file: discard;
2. lower by less than `confirm_from_sigmas`: discard, not worth a rerun;
3. best and candidate are rerun in pairs, on seeds neither was chosen by, up to `confirm_runs`;
4. lower by more than chance gives in 0.8 `alpha` of all cases, and the first pair's interval lies above zero: keep, a
   clear win; otherwise stop and discard once the pairs say it is worse, keep when their mean gain is beyond chance;
5. equal within noise after all pairs and smaller by `simplicity_bytes`: keep, it is simpler.
The noise comes from reruns of the tag's own files, first of its baseline. While they, or the
best alone, ignore their seed it says nothing of a candidate: then no single run is a clear win, and a candidate is
weighed by the deviation of its own runs, of two pairs at least. The best itself is measured on seeds that
played no part in choosing it: a score that was selected for being low stays too low to be fair to what comes next.
Seeds are numbers here, the first and those after it; what a train.py is given instead cannot be told apart
(reruns.py). docs/decision.md has the error rates.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from runner.core.base.launching import EndReason
from runner.core.base.values import Scored, Status, Trained
from runner.core.decision.deaths import SIGNALS
from runner.core.decision.noise import Noise, pooled
from runner.core.policy.policy_files import Decision

DEATHS = "signal", "exit_code"  # reasons of a training that ended without an exception (deaths.py)
WARNING = "UserWarning"  # a crash of this class is a hint beside whatever came of the run (trainer/telemetry.py)
BPB_DIGITS = 6  # of the scores the agent sees: a gain from finer ones would tell more than they do
CONTRADICTED = "proof_contradicted"  # the audit saw a proved model look ahead (trainer/wire/refusal.py)
LOOKS_AHEAD = ("non_causal", CONTRADICTED)
FIRST_SEED = 42  # stands for an experiment's own run; reruns take the numbers after it
SPARE_SEEDS = 2  # seeds tried beyond those needed, where a run of the best gives no score
# What each look may use of alpha. A candidate meets the last one only if its own run was promising, which chance does
# in a third of cases; bench/decision.py shows that the whole stays below alpha.
CLEAR_SHARE, EARLY_SHARE, LAST_SHARE = 0.8, 0.5, 1.5
CLEAR_LOSS = 3.0  # standard deviations
IGNORES_SEED = 0.1  # scores that differ by less than this share of the noise are one score, however often repeated
WILD = 2.0  # a candidate whose own scores move by so many times the noise is weighed by its own deviation


class Runs(NamedTuple):
    """What is known of one train.py: val_bpb by seed (None: a run without score), bytes, peak memory (0: unknown).

    `told` is the score of its own run, which may have been on another lane and is then not among `scores`.
    """

    scores: Mapping[int, float | None]
    size: int
    memory_mb: float = 0.0
    told: float | None = None

    def known(self) -> list[float]:
        """Scores of all runs that gave one."""
        return [score for score in self.scores.values() if score is not None]


class Standing(NamedTuple):
    """What a candidate is measured against: the last keep, the tag's noise, the baseline's peak memory."""

    best: Runs
    noise: Noise | None
    memory_mb: float = 0.0
    since: int = FIRST_SEED  # the first seed that played no part in choosing the best


class Wanted(NamedTuple):
    """A run that must come before the verdict."""

    whose: Literal["best", "candidate", "baseline"]
    seed: int


class Verdict(NamedTuple):
    """Outcome, a closed reason code unless it is plain, and the gain in val_bpb: positive is better."""

    status: Status
    reason: str | None = None
    claimed: float | None = None  # by the first runs alone
    confirmed: float | None = None  # by `pairs` paired reruns on fresh seeds
    interval: tuple[float, float] | None = None  # of the confirmed gain, else of the claimed one
    pairs: int = 0
    gain: float | None = None  # rule `odds`: expected, by all that is known
    probability: float | None = None  # that its effect is real
    sigma: float | None = None  # the noise as it was believed then


TAKEN_BACK = Verdict(Status.KEEP, "veto")  # a person took a keep back: the best before it goes on


def measured(runs: Sequence[Runs], least: float) -> Noise | None:
    """The noise of a tag from its files, baseline first; of the others the first run is left out: it was selected.

    Files that ignore their seed say nothing of it, unless there is no other.
    """
    fresh = [[score for seed, score in r.scores.items() if seed != FIRST_SEED and score is not None] for r in runs[1:]]
    groups = [group for group in (*(r.known() for r in runs[:1]), *fresh) if len(group) > 1]
    return pooled([group for group in groups if max(group) - min(group) >= least] or groups, least)


def judge(policy: Decision, standing: Standing, candidate: Runs) -> Verdict | Wanted:
    """A verdict on a scored candidate, or the run that is still needed for one."""
    best, noise = standing.best, standing.noise
    claimed = round(round(first_score(best), BPB_DIGITS) - round(first_score(candidate), BPB_DIGITS), BPB_DIGITS)
    if policy.rule == "upstream":
        return Verdict(Status.KEEP if claimed > 0 else Status.DISCARD, None, claimed)
    here = FIRST_SEED in best.scores  # else it was kept on another lane, and its score there says nothing here
    since = standing.since if here else max(standing.since, FIRST_SEED + 1)
    known = [score for seed, score in best.scores.items() if seed >= since and score is not None]
    if not known:
        if here and noise is not None and claimed < -CLEAR_LOSS * noise.sigma:
            return Verdict(Status.DISCARD, None, claimed)  # whatever luck chose the best, it was not that much
        seed = _untried(best, since, 1 + SPARE_SEEDS)
        if seed:
            return Wanted("best", seed)
        known = [first_score(best)]  # it gives no score any more: what it gave once must do
    gain = math.fsum(known) / len(known) - first_score(candidate)
    claimed = claimed if here else round(gain, BPB_DIGITS)
    simpler = best.size - candidate.size >= policy.simplicity_bytes
    if gain <= 0 and not simpler:
        return Verdict(Status.DISCARD, None, claimed)
    if noise is None or (noise.freedom < policy.baseline_runs - 1 and not _ignores_seed(policy, best)):
        seed = _untried(best, since, policy.baseline_runs + SPARE_SEEDS)
        return Wanted("best", seed) if seed else Verdict(Status.DISCARD, "not_confirmed", claimed)
    return _Case(policy, standing, noise, candidate, simpler, claimed).verdict(gain, 1 + 1 / _count(known, noise))


@dataclass(frozen=True)
class _Case:
    """A candidate that claims a gain, or to be simpler, against a known noise."""

    policy: Decision
    standing: Standing
    noise: Noise
    candidate: Runs
    simpler: bool
    claimed: float

    @property
    def still(self) -> bool:
        """Whether what there is to beat scores the same on every seed, so that its noise is not a candidate's."""
        return self.noise.sigma <= self.policy.least_noise_bpb or _ignores_seed(self.policy, self.standing.best)

    @property
    def pairs(self) -> int:
        """How many pairs decide."""
        return max(2, self.policy.confirm_runs) if self.still else self.policy.confirm_runs

    def verdict(self, gain: float, variance: float) -> Verdict | Wanted:
        """By the first run, `gain` of `variance` sigma^2; by pairs where it cannot say."""
        plain = Verdict(Status.DISCARD, None, self.claimed, None, self._interval(gain, variance))
        clear = gain >= self._needed(CLEAR_SHARE, variance) and not self.still
        least = -self.policy.simplicity_sigmas if self.simpler else self.policy.confirm_from_sigmas
        if not self.pairs:
            return self._keep(gain, plain) if clear else plain
        if not clear and gain < least * self.noise.sigma:
            return plain
        return self._paired(plain, clear, gain)

    def _paired(self, plain: Verdict, clear: bool, gain: float) -> Verdict | Wanted:
        """Reruns on fresh seeds, one pair after the other."""
        best, candidate = self.standing.best.scores, self.candidate.scores
        pairs: list[tuple[float, float]] = []
        start = max(FIRST_SEED + 1, self.standing.since)
        for seed in range(start, start + self.pairs + SPARE_SEEDS):
            if seed not in best:
                return Wanted("best", seed)
            theirs = best[seed]
            if theirs is None:
                continue  # the best gave no score here: another seed
            if seed not in candidate:
                return Wanted("candidate", seed)
            ours = candidate[seed]
            if ours is None:
                break
            pairs.append((theirs, ours))
            if (verdict := self._after(pairs, plain, clear)) is not None:
                return verdict
        else:
            if clear and not pairs:
                return self._keep(gain, plain)  # the best gives no score to pair with
        return plain._replace(reason="not_confirmed")

    def _after(self, pairs: list[tuple[float, float]], plain: Verdict, clear: bool) -> Verdict | None:
        """The verdict after these pairs, None while more are wanted."""
        last = len(pairs) == self.pairs
        mean = math.fsum(theirs - ours for theirs, ours in pairs) / len(pairs)
        theirs, ours = ([*side] for side in zip(*pairs, strict=True))
        variance = 1 / _count(theirs, self.noise) + _wildness(ours, self.noise) / _count(ours, self.noise)
        found = plain._replace(
            confirmed=round(mean, BPB_DIGITS), interval=self._interval(mean, variance), pairs=len(pairs)
        )
        tolerance = self.policy.simplicity_sigmas * self.noise.sigma if self.simpler else 0.0
        share = LAST_SHARE if last else EARLY_SHARE / max(1, self.pairs - 1)
        clearly = clear and len(pairs) == 1 and found.interval is not None and found.interval[0] > 0  # as it is told
        if clearly or mean >= (self._needed(share, variance) if not self.still else self._by_itself(share, ours)):
            return self._keep(mean, found)
        if mean <= -tolerance or (last and not self.simpler):
            return found._replace(reason="not_confirmed")
        return self._keep(mean, found._replace(reason="simpler")) if last else None

    def _keep(self, gain: float, found: Verdict) -> Verdict:
        """A keep, unless it takes far more memory than the baseline for a small gain."""
        allowed = self.policy.memory_ratio * self.standing.memory_mb
        if 0 < allowed < self.candidate.memory_mb and gain < self.policy.memory_gain_bpb:
            return found._replace(reason="memory")
        return found._replace(status=Status.KEEP)

    def _needed(self, share: float, variance: float) -> float:
        """The gain that chance reaches in `share` of alpha of all cases."""
        return max(self.policy.minimum_gain_bpb, self.noise.bound(self.policy.alpha * share, variance))

    def _by_itself(self, share: float, ours: list[float]) -> float:
        """The gain needed if only the candidate's own scores say how much they move; infinite for a single one."""
        if len(ours) < 2:
            return math.inf
        least = self.policy.least_noise_bpb
        own = Noise(math.hypot(statistics.stdev(ours) / math.sqrt(len(ours)), least), len(ours) - 1)
        return max(self.policy.minimum_gain_bpb, own.bound(self.policy.alpha * share, 1.0))

    def _interval(self, gain: float, variance: float) -> tuple[float, float]:
        width = self.noise.bound(self.policy.alpha / 2, variance)
        return round(gain - width, BPB_DIGITS), round(gain + width, BPB_DIGITS)


def _count(scores: list[float], noise: Noise) -> int:
    """How many independent scores these are: a train.py that ignores the seed gives one, however often it runs."""
    spread = max(scores) - min(scores)
    return len(scores) if len(scores) == 1 or spread > IGNORES_SEED * noise.sigma else 1


def _ignores_seed(policy: Decision, best: Runs) -> bool:
    """Whether the runs it was not chosen by say that it scores the same on every seed."""
    known = [score for seed, score in best.scores.items() if seed != FIRST_SEED and score is not None]
    return len(known) > 1 and max(known) - min(known) <= IGNORES_SEED * policy.least_noise_bpb


def _wildness(scores: list[float], noise: Noise) -> float:
    """Variance of a candidate's run in units of sigma^2: 1, unless its own scores say far more."""
    own = statistics.stdev(scores) / noise.sigma if len(scores) > 1 else 1.0
    return own**2 if own > WILD else 1.0


def first_score(runs: Runs) -> float:
    """Score of a train.py's own run, wherever that was; raises ValueError without one."""
    score = runs.scores.get(FIRST_SEED)
    score = runs.told if score is None else score
    if score is None:
        raise ValueError("a scored experiment without val_bpb")
    return score


def _untried(runs: Runs, start: int, most: int) -> int | None:
    """The first of `most` seeds from `start` on that it was not run with."""
    return next((seed for seed in range(start, start + most) if seed not in runs.scores), None)


def failure(scored: Scored) -> Verdict | None:
    """The verdict on an experiment without a score, None if it has one."""
    trained, score = scored.trained, scored.score
    if trained.engine.reason is not EndReason.EXIT:
        return _cut_off(trained)
    if not trained.handed_over:
        if trained.not_exportable is not None:
            return Verdict(Status.NOT_EXPORTABLE, trained.not_exportable)
        return Verdict(Status.CRASH, "diverged" if trained.diverged else _death(trained))
    if score is None:
        return Verdict(Status.REJECTED, "evaluation_failed")
    if score.status == "refused":
        return Verdict(Status.NON_CAUSAL if score.reason in LOOKS_AHEAD else Status.REJECTED, score.reason)
    return None


def _death(trained: Trained) -> str:
    """How a training ended that handed nothing over."""
    if trained.engine.exit_code == 0:
        return "no_hand_over"
    if trained.crash is not None and trained.crash.error != WARNING:
        return "exception"
    return DEATHS[0] if trained.engine.exit_code in SIGNALS else DEATHS[1]


def _cut_off(trained: Trained) -> Verdict:
    """The verdict on a training that did not end by itself."""
    reason = trained.engine.reason
    if reason is EndReason.CANCELLED and trained.ended_early:
        return Verdict(Status.CRASH, "diverged") if trained.diverged else Verdict(Status.DISCARD, "early_stop")
    return Verdict(Status.TIMEOUT, "time_budget") if reason is EndReason.WALL else Verdict(Status.CRASH, str(reason))
