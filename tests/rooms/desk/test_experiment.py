"""A tag begins with the bench's own baseline: no candidate sets clock, memory, noise or headline."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import standin
from runner.core.base.errors import BaselineError
from runner.core.base.home import Home
from runner.core.base.values import Status
from runner.rooms.desk.experiment import BASELINE, Loop
from tests.faults import driver


@pytest.fixture
def loop(home: Home) -> Loop:
    return standin.loop(home, driver.TAG, driver.SEED, driver.score)


def test_the_file_a_tag_begins_with_is_experiment_one(loop: Loop) -> None:
    told = loop.begin()
    assert told is not None
    (row,) = loop.ledger.experiments(loop.tag)
    assert (row.id, row.status, row.description) == (1, Status.KEEP, BASELINE)
    assert loop.memory.source(row) == driver.SEED
    assert loop.begin() is None
    assert len(loop.ledger.experiments(loop.tag)) == 1


def test_no_candidate_comes_before_it(loop: Loop, work: Path) -> None:
    work.write_bytes(b"xxxxxxxx = 1\n")
    with pytest.raises(BaselineError):
        loop.experiment(work, "better than anything")
    assert loop.ledger.experiments(loop.tag) == []
    assert loop.ledger.open_numbers(loop.tag) == []
    loop.begin()
    assert loop.experiment(work, "better than the baseline").experiment == 2


def test_a_baseline_without_a_score_is_an_error_and_is_tried_again(loop: Loop, work: Path) -> None:
    good, loop.seed = loop.seed, b"crash\n"
    with pytest.raises(BaselineError, match=r"crash \(exception\)") as caught:
        loop.begin()
    assert caught.value.exit_code == 7
    work.write_bytes(b"x = 1\n")
    with pytest.raises(BaselineError):
        loop.experiment(work, "instead of it")
    loop.seed = good
    assert loop.begin() is not None
    assert [row.status for row in loop.ledger.experiments(loop.tag)] == [Status.CRASH, Status.KEEP]
