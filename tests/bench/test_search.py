"""The simulated ways to search see the same ideas, use the same runs, and are the same whenever they are run."""

from __future__ import annotations

import pytest

from bench import search
from bench.decision import rule
from bench.nights import Night, simulate
from bench.search import WAYS, World


def test_a_night_is_the_same_again_and_has_every_way() -> None:
    found = search.night("real", 0.2, 3)
    assert found == search.night("real", 0.2, 3)
    assert set(found) == set(WAYS)
    assert found != search.night("real", 0.2, 4)


def test_interactions_are_a_nights_own_and_between_two() -> None:
    world = World("real", 0.2, 1)
    idea = next(one for one in world.stream() if one.effect is not None)
    alone = world.effect(idea, frozenset())
    assert alone == idea.effect
    assert world.effect(idea, frozenset({50, 60})) == pytest.approx(
        alone + 0.2 * (world._pair(idea.number, 50) + world._pair(60, idea.number))
    )
    assert World("real", 0.2, 2)._pair(1, 2) != world._pair(1, 2) == world._pair(2, 1)
    assert World("real", 0.0, 1).effect(idea, frozenset({50})) == idea.effect


def test_the_line_gains_what_the_bench_of_the_decision_says() -> None:
    """Another draw of noise, the same ideas."""
    mine = [search.night("mixture", 0.0, seed)["line"] for seed in range(6)]
    theirs = [simulate(rule("odds"), Night("mixture"), seed).true for seed in range(6)]
    assert sum(mine) / 6 == pytest.approx(sum(theirs) / 6, rel=0.25)
