"""Student's t against published values, and the pooled deviation."""

from __future__ import annotations

import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.core.decision.noise import Noise, distribution, pooled, quantile

# Abramowitz and Stegun, table 26.10: t for a two-sided probability.
TABLE = [
    (0.975, 1, 12.706),
    (0.975, 2, 4.303),
    (0.95, 5, 2.015),
    (0.995, 10, 3.169),
    (0.975, 30, 2.042),
    (0.9, 3, 1.638),
]


@pytest.mark.parametrize(("probability", "freedom", "expected"), TABLE)
def test_quantiles_agree_with_the_published_table(probability: float, freedom: int, expected: float) -> None:
    assert quantile(probability, freedom) == pytest.approx(expected, abs=6e-4)


def test_many_degrees_of_freedom_are_the_normal_distribution() -> None:
    assert quantile(0.95, 20_000) == pytest.approx(statistics.NormalDist().inv_cdf(0.95), abs=1e-3)


@given(st.floats(0.0, 50.0), st.integers(1, 60))
def test_the_distribution_rises_from_a_half_to_one(t: float, freedom: int) -> None:
    assert 0.5 <= distribution(t, freedom) <= distribution(t + 0.1, freedom) + 1e-9 <= 1.0 + 1e-8


def test_groups_are_pooled_whatever_their_means() -> None:
    noise = pooled([[1.0, 1.2], [5.0, 5.2, 5.4], [9.0]], 1e-9)
    assert noise == Noise(pytest.approx(((0.02 + 0.08) / 3) ** 0.5), 3)  # type: ignore[arg-type]


def test_no_repeats_no_noise_and_never_less_than_the_least() -> None:
    assert pooled([[1.0], []], 0.1) is None
    assert pooled([[1.0, 1.0]], 0.1) == Noise(0.1, 1)


def test_a_bound_is_exceeded_by_chance_as_often_as_it_says() -> None:
    chance, exceeded, trials = random.Random(1), 0, 4000
    for _ in range(trials):
        noise = pooled([[chance.gauss(0, 1) for _ in range(4)]], 1e-9)
        assert noise is not None
        exceeded += chance.gauss(0, 1) - chance.gauss(0, 1) > noise.bound(0.1, 2.0)
    assert 0.08 < exceeded / trials < 0.12
