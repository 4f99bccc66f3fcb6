"""The lowest of all, without looking at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.core.decision.floors import Floors

NUMBERS = st.floats(-1e6, 1e6)
STEP = st.tuples(st.integers(0, 9), st.one_of(st.none(), st.tuples(NUMBERS, st.floats(0, 10))))


@given(st.lists(STEP, min_size=1, max_size=40))
def test_it_is_that_of_all_files_that_are_not_gone(steps: list[tuple[int, tuple[float, float] | None]]) -> None:
    floors, values, gone = Floors(), dict[int, float](), set[int]()
    for number, step in steps:
        if step is None:
            floors.drop(number)
            gone.add(number)
        else:
            floors.put(number, step[0])
            values[number] = sum(step)
    left = {number: value for number, value in values.items() if number not in gone}
    if left:
        assert floors.lowest(left.__getitem__) == min(left.values())
    else:
        with pytest.raises(ValueError, match="no file"):
            floors.lowest(left.__getitem__)


def test_files_that_cannot_be_the_lowest_are_not_looked_at() -> None:
    floors, asked = Floors(), []
    for number in range(1000):
        floors.put(number, number / 100)
    floors.lowest(lambda number: asked.append(number) or number / 100 + 0.05)
    assert asked == list(range(6))


def test_a_mean_that_was_rounded_below_its_floor_is_found() -> None:
    floors = Floors()
    for number, floor in ((1, 1.0), (2, 1.0 + 1e-12)):
        floors.put(number, floor)
    assert floors.lowest({1: 1.0, 2: 1.0 - 1e-12}.__getitem__) == 1.0 - 1e-12
