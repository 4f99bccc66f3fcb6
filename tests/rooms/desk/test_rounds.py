"""Lanes begin together: nobody trains alone while the others' agents stand still."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from runner.rooms.desk.rounds import Rounds

LONG = 60.0  # seconds that no test waits for


class Lane:
    """One that asks, trains until it is told to end, and is done."""

    def __init__(self, rounds: Rounds, number: int, patience: float = LONG, *, last: bool = False) -> None:
        self.began, self.end, self.over = threading.Event(), threading.Event(), threading.Event()
        self._args = (rounds, number, patience, last)
        self.thread = threading.Thread(target=self._go, daemon=True)
        self.thread.start()

    def _go(self) -> None:
        rounds, number, patience, last = self._args
        with rounds.turn(number, patience, last=last, over=self.over.is_set):
            self.began.set()
            self.end.wait(LONG)

    def done(self) -> None:
        self.end.set()
        self.thread.join(LONG)
        assert not self.thread.is_alive()


@contextmanager
def asks(rounds: Rounds, number: int, patience: float = LONG, *, last: bool = False) -> Iterator[Lane]:
    lane = Lane(rounds, number, patience, last=last)
    yield lane
    lane.over.set()
    lane.done()


def expecting(*lanes: int) -> Rounds:
    rounds = Rounds()
    for lane in lanes:
        rounds.expect(lane)
    return rounds


def test_one_lane_waits_for_nobody() -> None:
    for rounds in (Rounds(), expecting(0)):
        with asks(rounds, 0) as lane:
            assert lane.began.wait(5)


def test_lanes_begin_together_round_after_round() -> None:
    rounds = expecting(0, 1, 2)
    for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0)):
        first, second = Lane(rounds, order[0]), Lane(rounds, order[1])
        assert not first.began.wait(0.3)
        assert not second.began.is_set()
        third = Lane(rounds, order[2])
        for lane in (first, second, third):
            assert lane.began.wait(5)
        for lane in (first, second, third):
            lane.done()


def test_a_lane_that_nobody_expected_takes_part_from_its_first_question() -> None:
    """Somebody else starts its agent, and may never."""
    rounds = Rounds()
    with asks(rounds, 0) as alone:
        assert alone.began.wait(5)
    with asks(rounds, 1) as other:
        assert not other.began.wait(0.3)  # lane 0 is known by now
        with asks(rounds, 0) as one:
            assert one.began.wait(5)
            assert other.began.wait(5)


def test_who_comes_while_a_round_is_under_way_joins_it() -> None:
    """It asked in the moment before it was frozen; nobody gains by its waiting."""
    rounds = expecting(0, 1)
    with asks(rounds, 0, 0.1) as first:
        assert first.began.wait(5)
        with asks(rounds, 1) as late:
            assert late.began.wait(5)


def test_a_lane_that_leaves_is_not_waited_for() -> None:
    rounds = expecting(0, 1)
    with asks(rounds, 0) as lane:
        assert not lane.began.wait(0.3)
        rounds.leave(1)
        assert lane.began.wait(5)
    rounds.leave(7)  # nobody knows it


def test_the_last_experiment_waits_for_nobody_and_lets_those_go_that_wait() -> None:
    rounds = expecting(0, 1, 2)
    with asks(rounds, 0) as waits:
        assert not waits.began.wait(0.3)
        with asks(rounds, 1, last=True) as last:
            assert last.began.wait(5)
            assert waits.began.wait(5)


def test_who_is_told_to_stop_waits_no_longer_and_holds_up_nobody() -> None:
    rounds = expecting(0, 1)
    stopped = Lane(rounds, 0)
    assert not stopped.began.wait(0.3)
    stopped.over.set()
    assert stopped.began.wait(5)  # its caller looks at the same
    stopped.done()
    with asks(rounds, 1) as other:
        assert not other.began.wait(0.3)  # lane 0 has not left, and is not here either


def test_a_lane_that_hangs_costs_ever_less() -> None:
    rounds, patience, waited = expecting(0, 1), 0.25, []
    for _ in range(20):
        began = time.monotonic()
        with asks(rounds, 0, patience) as lane:
            assert lane.began.wait(5)
            waited.append(time.monotonic() - began >= patience)
    assert [number for number, long in enumerate(waited) if long] == [0, 1, 2, 4, 8, 16]


def test_a_lane_that_comes_back_is_waited_for_again() -> None:
    rounds = expecting(0, 1)
    for _ in range(4):
        with asks(rounds, 0, 0.01) as lane:
            assert lane.began.wait(5)
    with asks(rounds, 0) as alone, asks(rounds, 1) as back:  # it missed four, and is waited for in this one
        assert alone.began.wait(5)
        assert back.began.wait(5)
    with asks(rounds, 0) as again:
        assert not again.began.wait(0.3)
        rounds.leave(1)


def test_an_experiment_that_fails_ends_its_turn() -> None:
    rounds = expecting(0, 1)
    with pytest.raises(RuntimeError), rounds.turn(0, 0.01, last=False, over=lambda: False):
        raise RuntimeError("the engine is gone")
    with asks(rounds, 1) as waits:
        assert not waits.began.wait(0.3)  # nothing is under way that it could join
        rounds.leave(0)


def test_many_lanes_never_lock_each_other_out() -> None:
    """Sixteen lanes, each at its own pace, with the quota of a night: every one comes to its end."""
    rounds, done = expecting(*range(16)), []

    def work(number: int) -> None:
        for turn in range(20):
            time.sleep((number * 7 + turn * 13) % 5 / 1000)
            with rounds.turn(number, LONG, last=False, over=lambda: False):
                time.sleep((number + turn) % 3 / 1000)
        rounds.leave(number)
        done.append(number)

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert sorted(done) == list(range(16))


def test_who_joins_a_round_under_way_makes_nobody_late() -> None:
    """With four lanes the first had missed three rounds, and the next began without it."""
    rounds = expecting(0, 1, 2, 3)
    with asks(rounds, 0, 0.1) as first:
        assert first.began.wait(5)
        for lane in (1, 2, 3):
            with asks(rounds, lane) as late:
                assert late.began.wait(5)
    assert rounds._missed[0] == 0
