"""What all scores of a tag say of the files of its line: an empirical-Bayes filter. TRUSTED, pure.

Each file of the line has a normal belief about its true val_bpb, one for each guess of the noise. What an idea does has
a prior that is learned within the tag: a mixture of no effect, worse and better, in units of the noise (Robbins, An
Empirical Bayes Approach to Statistics, 1956; mixtures are taken by their first two moments, as in Alspach and Sorenson,
Nonlinear Bayesian Estimation, 1972). Most ideas change nothing, so every candidate's score measures the file it was
made from once more, for free: a best that was lucky is found out without a single rerun.

Scores of a file that ignores its seed count once, however often it ran.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from runner.core.decision.floors import Floors

# Effects in units of the noise, better is positive: means and deviations by kind, and what each kind counts at first.
_EFFECTS = (
    (0.0, 0.2),
    (-1.0, 0.5), (-2.2, 0.8), (-4.5, 1.5), (-9.0, 3.0), (-20.0, 9.0),
    (1.0, 0.5), (2.2, 0.8), (4.5, 1.5), (9.0, 3.0), (20.0, 9.0),
)  # fmt: skip
_ANYTHING = (0.0, 1e9)  # of a candidate far from anything
_WEIGHTS = (0.38, 0.11, 0.12, 0.11, 0.06, 0.04, 0.08, 0.05, 0.03, 0.015, 0.005)
_GUESSES = (0.4, 0.6, 0.8, 1.0, 1.3, 1.8, 2.8, 4.5)  # of the noise, times the deviation of the baseline's own runs
_PRIOR = 10.0  # candidates that the weights above count for
_MEMORY = 0.97  # what an older candidate counts, for each that came after it
_FAR = 0.02  # share of candidates that are far from anything, as a diverged run is
_FAR_SCALE = 30.0  # how far that is, in deviations of the baseline
_AGREE = 6.0  # of the noise: runs of one file farther apart than this are not of one distribution
REAL = 0.25  # of the noise: from where on an effect is called real
_SAME = 1e-4  # of the noise: scores closer than this are one score
_FARTHEST = 1400.0  # squared deviations; beyond them a likelihood is a number still


class Belief(NamedTuple):
    """A normal distribution of a true val_bpb."""

    mean: float
    variance: float


class Weighed(NamedTuple):
    """What a candidate is expected to gain over the best, how probably its effect is real, and the noise; val_bpb."""

    gain: float
    probability: float
    sigma: float


class _Component(NamedTuple):
    """What follows if a candidate's effect is of one kind: its share, then effect, parent and candidate."""

    share: float
    effect: Belief
    parent: Belief
    candidate: Belief


@dataclass
class _Guess:
    sigma: float
    log: float  # of how much speaks for it
    far: float  # scale of what is far from anything, val_bpb: the same for every guess, so that it says nothing of them
    files: dict[int, Belief]
    counts: list[float]  # of the kinds of effects
    children: dict[int, list[tuple[int, float]]] = field(default_factory=dict)  # (file, how far it follows its parent)


class Beliefs:
    """The files of one line, by their experiments' numbers."""

    def __init__(self, baseline: int, scores: Sequence[float], least: float) -> None:
        """`scores`: of the baseline's runs, one at least; their deviation is never taken to be less than `least`."""
        count, mean, squares = _summary(scores)
        deviation = max(least, math.sqrt(squares / (count - 1)) if count > 1 else least)
        self.best = baseline
        self.baseline = mean  # scores are counted from it: squares of numbers near zero lose no digits
        self._floors, self._moved = Floors(), {baseline}  # files of the line, and those whose floor is to be told
        self._looked: tuple[int, tuple[float, ...]] | None = None  # what `_looks` was computed for
        self._looks: list[tuple[float, list[_Component]]] = []
        self._weighed: Weighed | None = None  # of the same
        self._guesses = [
            _Guess(
                factor * deviation,
                -(count - 1) * (math.log(factor) + 0.5 / factor**2),
                _FAR_SCALE * deviation,
                {baseline: Belief(0.0, (factor * deviation) ** 2 / count)},
                [_PRIOR * weight for weight in _WEIGHTS],
            )
            for factor in _GUESSES
        ]

    def knows(self, number: int) -> bool:
        """Whether a file is one of the line."""
        return number in self._guesses[0].files

    def expected(self, number: int | None = None) -> float:
        """Mean of what is believed of a file's val_bpb, the best's unless one is named."""
        of = self.best if number is None else number
        return self.baseline + math.fsum(share * guess.files[of].mean for share, guess in self._shares())

    def lowest(self) -> float:
        """Of what is believed of the line's files, the lowest val_bpb."""
        shares = self._shares()
        for number in self._moved:
            self._floors.put(number, min(guess.files[number].mean for guess in self._guesses))
        self._moved.clear()
        return self.baseline + self._floors.lowest(
            lambda number: math.fsum(share * guess.files[number].mean for share, guess in shares)
        )

    def sigma(self) -> float:
        """The noise of one run, as it is believed now."""
        return math.fsum(share * guess.sigma for share, guess in self._shares())

    def weigh(self, parent: int, scores: Sequence[float]) -> Weighed:
        """A candidate that was made from `parent` and gave these scores."""
        looks = self._look(parent, self._relative(self.agreed(scores)))
        if self._weighed is not None:
            return self._weighed
        gain = probability = sigma = 0.0
        for share, guess, (_, kinds) in zip(_normalised([log for log, _ in looks]), self._guesses, looks, strict=True):
            effect = _mixed([(one.share, one.effect) for one in kinds])
            if parent != self.best:
                candidate = _mixed([(one.share, one.candidate) for one in kinds])
                effect = Belief(guess.files[self.best].mean - candidate.mean, 0.0)
            gain += share * effect.mean
            probability += share * math.fsum(one.share * _above(one.effect, REAL * guess.sigma) for one in kinds)
            sigma += share * guess.sigma
        self._weighed = Weighed(gain, probability, sigma)
        return self._weighed

    def learn(self, number: int, parent: int, scores: Sequence[float], *, kept: bool) -> None:
        """Take in a candidate after its verdict."""
        scores = self._relative(self.agreed(scores))
        for guess, (log, kinds) in zip(self._guesses, self._look(parent, scores), strict=True):
            guess.log = log
            candidate = _mixed([(one.share, one.candidate) for one in kinds])
            before = _mixed([(one.share, one.parent) for one in kinds])
            follows = _follows(guess, parent, scores, kinds, before)
            self._moved.update(_move(guess, parent, before))
            if kept:
                guess.files[number] = candidate
                self._moved.add(number)
                guess.children.setdefault(parent, []).append((number, follows))
            guess.counts = [
                _PRIOR * weight * (1 - _MEMORY) + count * _MEMORY + one.share
                for weight, count, one in zip(_WEIGHTS, guess.counts, kinds[:-1], strict=True)
            ]
        highest = max(guess.log for guess in self._guesses)
        for guess in self._guesses:
            guess.log -= highest
        self._looked = None
        if kept:
            self.best = number

    def take_out(self, numbers: Iterable[int]) -> None:
        """Of files of the line that a person took back nothing is asked any more; what was learned by them stays."""
        for number in numbers:
            self._floors.drop(number)

    def measured(self, number: int, score: float) -> None:
        """Take in one more run of a file of the line, that nothing was chosen by.

        A score far from all that was believed of it takes the belief's place: what it was kept for was a fluke.
        """
        (score,) = self._relative([score])
        for guess in self._guesses:
            mean, variance = guess.files[number]
            noise = guess.sigma**2
            if abs(score - mean) > _AGREE * math.sqrt(variance + noise):
                self._moved.update(_move(guess, number, Belief(score, noise)))
            else:
                share = variance / (variance + noise)
                moved = _move(guess, number, Belief(mean + share * (score - mean), variance * (1 - share)))
                self._moved.update(moved)
        self._looked = None

    def agreed(self, scores: Sequence[float]) -> Sequence[float]:
        """The scores of one file; if they are too far apart for one distribution, the worst alone."""
        if len(scores) == 1 or max(scores) - min(scores) <= _AGREE * self.sigma():
            return scores
        return [max(scores)]

    def _relative(self, scores: Sequence[float]) -> tuple[float, ...]:
        return tuple(score - self.baseline for score in scores)

    def _look(self, parent: int, scores: tuple[float, ...]) -> list[tuple[float, list[_Component]]]:
        """What each guess says of a candidate; computed once for its verdict and for what is learned from it."""
        if self._looked != (parent, scores):
            self._looks, self._weighed = [_look(guess, parent, scores) for guess in self._guesses], None
            self._looked = (parent, scores)
        return self._looks

    def _shares(self) -> list[tuple[float, _Guess]]:
        return list(zip(_normalised([guess.log for guess in self._guesses]), self._guesses, strict=True))


def _look(guess: _Guess, parent: int, scores: Sequence[float]) -> tuple[float, list[_Component]]:
    """How much speaks for a guess after these scores, and what they say by kind of effect."""
    (mean, variance), noise = guess.files[parent], guess.sigma**2
    count, score, squares = _summary(scores, _SAME * guess.sigma)
    total = math.fsum(guess.counts)
    kinds = [(away * guess.sigma, (deviation * guess.sigma) ** 2) for away, deviation in _EFFECTS]
    likely = []
    for weight, (shift, spread) in zip(guess.counts, kinds, strict=True):
        whole = variance + spread + noise / count
        far = min((score - mean + shift) ** 2 / whole, _FARTHEST)
        likely.append(weight / total * math.exp(-0.5 * far) / math.sqrt(whole))
    broken = math.sqrt(2 / math.pi) * _FAR / guess.far / (1 + ((score - mean) / guess.far) ** 2)
    evidence = math.fsum(likely) + broken
    found: list[_Component] = []
    for share, (shift, spread) in zip(likely, kinds, strict=True):
        whole, surprise = variance + spread + noise / count, score - mean + shift
        idea, file = spread / whole, variance / whole
        found.append(
            _Component(
                share / evidence,
                Belief(shift - idea * surprise, spread * (1 - idea)),
                Belief(mean + file * surprise, variance * (1 - file)),
                Belief(mean - shift + (idea + file) * surprise, (variance + spread) * (1 - idea - file)),
            )
        )
    alone = Belief(mean - score, noise / count), guess.files[parent], Belief(score, noise / count)
    found.append(_Component(broken / evidence, *alone))  # it says nothing of its parent, and only this of itself
    return guess.log + math.log(evidence) - (count - 1) * math.log(guess.sigma) - 0.5 * squares / noise, found


def _summary(scores: Sequence[float], same: float = 0.0) -> tuple[int, float, float]:
    """How many independent scores these are, their mean, and the sum of squares around it."""
    mean = math.fsum(scores) / len(scores)
    if max(scores) - min(scores) <= same:
        return 1, mean, 0.0
    return len(scores), mean, math.fsum((score - mean) ** 2 for score in scores)


def _mixed(parts: Sequence[tuple[float, Belief]]) -> Belief:
    """The normal distribution with a mixture's mean and variance."""
    mean = math.fsum(share * part.mean for share, part in parts)
    square = math.fsum(share * (part.variance + part.mean**2) for share, part in parts)
    return Belief(mean, max(1e-18, square - mean**2))


def _follows(guess: _Guess, parent: int, scores: Sequence[float], kinds: Sequence[_Component], before: Belief) -> float:
    """How far a candidate's true value moves with its parent's, given all: 1 if it changes nothing, 0 if anything."""
    variance, noise = guess.files[parent].variance, guess.sigma**2 / _summary(scores, _SAME * guess.sigma)[0]
    shared = math.fsum(
        one.share
        * (
            variance * noise / (variance + (deviation * guess.sigma) ** 2 + noise)
            + (one.parent.mean - before.mean) * one.candidate.mean
        )
        for one, (_, deviation) in zip(kinds, (*_EFFECTS, _ANYTHING), strict=True)
    )
    return min(1.0, max(0.0, shared / before.variance))


def _move(guess: _Guess, number: int, now: Belief) -> set[int]:
    """A new belief about a file; what was made from it follows. All that moved."""
    waiting, found = [(number, now)], set()
    while waiting:
        file, belief = waiting.pop()
        found.add(file)
        moved = belief.mean - guess.files[file].mean
        guess.files[file] = belief
        for child, share in guess.children.get(file, ()):
            old = guess.files[child]
            waiting.append((child, Belief(old.mean + share * moved, old.variance)))
    return found


def _normalised(logs: Sequence[float]) -> list[float]:
    highest = max(logs)
    weights = [math.exp(log - highest) for log in logs]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def _above(belief: Belief, threshold: float) -> float:
    """Probability of more than `threshold`."""
    return 0.5 * math.erfc((threshold - belief.mean) / math.sqrt(2 * belief.variance))
