"""Which keeps are doubtful, and in which order blocks of them are tried."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from runner.core.base.values import Status
from runner.core.findings import pruning
from runner.core.findings.pruning import Blocks
from tests.samples import experiment


def row(number: int, probability: float | None, size: int, **changes: object) -> object:
    return experiment(number, probability=probability, snapshot_size=size, **changes)


def test_doubtful_are_those_of_the_line_that_added_code_the_least_probable_first() -> None:
    rows = [
        row(1, None, 1000),
        row(2, 0.45, 1100),
        row(3, 0.9, 1200),
        row(4, 0.1, 1300),
        row(5, 0.2, 1250),  # made it smaller
        row(6, 0.1, 1400, status=Status.DISCARD),
        row(7, 0.1, 1400),
        row(8, 0.3, 1500),
        row(9, 0.0, 1400, veto=8),  # a person took 8 back: 7 once more
    ]
    assert [one.id for one in pruning.doubtful(rows, 0.5)] == [4, 7, 2]
    assert [one.id for one in pruning.doubtful(rows, 0.2)] == [4, 7]
    assert pruning.doubtful(rows, 0.05) == pruning.doubtful(rows[:1], 0.5) == pruning.doubtful([], 0.5) == []


@given(st.integers(0, 40), st.data())
def test_every_keep_is_taken_out_needed_or_waits_and_the_needed_are_found_alone(
    count: int, data: st.DataObject
) -> None:
    """A block is as good without it exactly if none of it is needed."""
    needed = data.draw(st.sets(st.integers(1, count))) if count else set()
    blocks, out, alone, runs = (
        Blocks((number, data.draw(st.floats(0, 1))) for number in range(1, count + 1)),
        set[int](),
        set[int](),
        0,
    )
    while block := blocks.next():
        runs += 1
        assert len(out | alone | set(block) | set(blocks.left)) == count  # none is lost, none is twice
        assert not (set(block) & (out | alone | set(blocks.left)))
        if not needed & set(block):
            out |= set(block)
        elif len(block) == 1:
            alone |= set(block)
        else:
            blocks.halve(block)
    assert (out, alone) == (set(range(1, count + 1)) - needed, needed)
    assert runs <= count + 2 * len(needed) * math.ceil(math.log2(max(2, count)))


def test_a_block_is_as_large_as_makes_it_an_even_bet_and_its_less_probable_half_is_tried_first() -> None:
    blocks = Blocks([(7, 0.05), (3, 0.1), (9, 0.15), (1, 0.2), (4, 0.45), (2, 0.45), (8, 0.7)])
    assert blocks.next() == (7, 3, 9, 1)  # 0.95 * 0.9 * 0.85 * 0.8 = 0.58, and the next would make it 0.32
    blocks.halve((7, 3, 9, 1))
    assert blocks.next() == (7, 3)
    assert blocks.left == [8, 2, 4, 9, 1]
    assert [blocks.next() for _ in range(5)] == [(9, 1), (4,), (2,), (8,), ()]
    blocks.halve((8,))
    assert blocks.next() == Blocks([]).next() == ()
