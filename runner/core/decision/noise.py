"""How much a score moves when only the seed changes. TRUSTED, pure.

Scores of one train.py under different seeds are a group; groups of one tag are pooled into one standard deviation with
its degrees of freedom (Snedecor and Cochran, Statistical Methods, section 6.8). Bounds come from Student's t, so that a
deviation known from three runs is trusted less than one known from thirty.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

_LEARNED = 8  # degrees of freedom that a learned noise counts for; bench.decision shows how often intervals hold


class Noise(NamedTuple):
    """Standard deviation of one run's val_bpb, and the degrees of freedom behind it."""

    sigma: float
    freedom: int

    def bound(self, alpha: float, variance: float) -> float:
        """What a difference of variance `variance` * sigma^2 exceeds with probability `alpha` by chance."""
        return quantile(1 - alpha, self.freedom) * self.sigma * math.sqrt(variance)


def pooled(groups: Iterable[Sequence[float]], least: float) -> Noise | None:
    """The noise of a tag, at least `least` val_bpb; None before any train.py was run twice."""
    squares, freedom = 0.0, 0
    for group in groups:
        if len(group) > 1:
            mean = math.fsum(group) / len(group)
            squares += math.fsum((score - mean) ** 2 for score in group)
            freedom += len(group) - 1
    return Noise(max(least, math.sqrt(squares / freedom)), freedom) if freedom else None


def believed(sigma: float, groups: Iterable[Sequence[float]]) -> Noise:
    """A noise that was learned over a whole tag, and what a few runs more say of it: variances, by their freedoms."""
    squares, freedom = _LEARNED * sigma**2, _LEARNED
    for group in groups:
        mean = math.fsum(group) / len(group)
        squares += math.fsum((score - mean) ** 2 for score in group)
        freedom += len(group) - 1
    return Noise(math.sqrt(squares / freedom), freedom)


@lru_cache(maxsize=4096)
def quantile(probability: float, freedom: int) -> float:
    """Student's t below which a share `probability` (0.5 to 1) lies; by bisection, to 1e-9."""
    low, high = 0.0, 1.0
    while distribution(high, freedom) < probability:
        high *= 2
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if distribution(middle, freedom) < probability else (low, middle)
    return high


def distribution(t: float, freedom: int) -> float:
    """Share of Student's t below `t` >= 0 for whole degrees of freedom (Abramowitz and Stegun, 26.7.3 and 26.7.4)."""
    angle = math.atan2(t, math.sqrt(freedom))
    cosine = math.cos(angle) ** 2
    even = freedom % 2 == 0
    term = total = math.sin(angle) if even else math.sin(angle) * math.cos(angle)
    for k in range(1, freedom // 2):
        term *= cosine * ((2 * k - 1) / (2 * k) if even else (2 * k) / (2 * k + 1))
        total += term
    if even:
        return 0.5 + total / 2
    return 0.5 + (angle + (total if freedom > 1 else 0.0)) / math.pi
