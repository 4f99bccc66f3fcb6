"""What early stopping saves and loses in simulated nights, with the production code; the same seeds every time."""

from __future__ import annotations

import pytest

from bench.early_stop import simulated, variations


@pytest.mark.parametrize("late", [False, True])
def test_less_than_two_percent_of_the_wins_are_lost_and_a_tenth_more_experiments_fit(late: bool) -> None:
    found = simulated(20, late)
    assert found["wins"] > 500
    assert found["wins_lost"] < 0.02
    assert found["experiments_per_hour"] > 1.1
    assert 0.1 < found["ended"] < 0.4


def test_the_variations_of_the_real_runs_are_valid_and_differ() -> None:
    found = variations(12)
    assert len(set(found)) == 12
    for text in found:
        compile(text, "train.py", "exec")
