"""When an unattended run is started again, and when it is not."""

from __future__ import annotations

import itertools

import pytest

from runner.people.host.restarts import AWAY, FIRST_PAUSE, FRUITLESS, LONGEST_PAUSE, Restarts


@pytest.fixture
def working() -> Restarts:
    """One that has run an experiment."""
    made = Restarts()
    assert made.session(1, worked=True, recorded=True) == FIRST_PAUSE
    return made


@pytest.mark.parametrize("code", [0, 2, 3, 4, 7, 8, 9, 10, 11, 130])
def test_what_another_start_would_repeat_is_the_end(working: Restarts, code: int) -> None:
    assert working.session(code, worked=True, recorded=True) is None
    assert working.not_started(code) is None


@pytest.mark.parametrize("code", [5, 6])
def test_what_never_worked_is_an_error_at_once_and_what_worked_is_tried_again(working: Restarts, code: int) -> None:
    assert Restarts().not_started(code) is None
    assert Restarts().session(code, worked=False, recorded=False) is None
    assert Restarts().session(code, worked=True, recorded=False) == FIRST_PAUSE
    assert working.not_started(code) == FIRST_PAUSE
    assert working.session(code, worked=False, recorded=False) == FIRST_PAUSE


def test_an_engine_that_is_away_is_waited_for_about_an_hour(working: Restarts) -> None:
    pauses = list(itertools.takewhile(lambda pause: pause is not None, (working.not_started(5) for _ in range(200))))
    assert len(pauses) == AWAY - 1
    assert pauses[:4] == [3, 6, 12, 24]
    assert max(pauses) == LONGEST_PAUSE
    assert 45 * 60 < sum(pause or 0 for pause in pauses) < 75 * 60


def test_sessions_that_come_to_nothing_are_few(working: Restarts) -> None:
    """Interrupted experiments are nothing: a GPU that is lost must not cost a model call a minute, all night."""
    found = [working.session(5, worked=True, recorded=False) for _ in range(FRUITLESS)]
    assert found == [3, 6, 12, 24, None]


def test_an_outage_does_not_count_against_the_session_after_it(working: Restarts) -> None:
    for _ in range(FRUITLESS + 2):
        assert working.not_started(5) is not None
    assert working.session(1, worked=True, recorded=False) == FIRST_PAUSE


def test_an_experiment_makes_good_for_all_that_came_before(working: Restarts) -> None:
    for _ in range(100):
        for _ in range(FRUITLESS - 1):
            assert working.session(1, worked=True, recorded=False) is not None
        assert working.session(1, worked=True, recorded=True) == FIRST_PAUSE
