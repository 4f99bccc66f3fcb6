"""Simulated prunings: bytes, gains and runs add up."""

from __future__ import annotations

from bench import prune
from bench.decision import rule


def test_what_is_left_is_no_more_than_was_added_and_the_same_again() -> None:
    for seed in range(4):
        found = prune.night(rule("odds"), "real", 0.7, seed)
        assert 0 <= found.left <= found.added
        assert 0 <= found.idle <= found.added
        assert found.runs <= prune.MOST_RUNS + 3  # what has begun is decided
        assert found == prune.night(rule("odds"), "real", 0.7, seed)


def test_without_doubt_nothing_is_taken_out() -> None:
    found = prune.night(rule("odds"), "real", 1e-9, 1)
    assert (found.left, found.lost, found.runs) == (found.added, 0.0, 0)


def test_a_price_of_code_keeps_files_small() -> None:
    free, dear = (
        sum(prune.night(rule("odds", code_sigmas=price), "real", 0.7, n).added for n in range(4)) for price in (0, 1)
    )
    assert dear < free / 2
