"""The pace of a run: looks by the host's clock from the first step on, and the stop."""

from __future__ import annotations

import threading
import time

from runner.rooms.desk import pace


def test_looks_begin_with_the_first_step_and_the_run_is_stopped_once() -> None:
    losses: list[float] = []
    stopped = threading.Event()
    judged: list[tuple[float, float]] = []

    def judge(share: float, loss: float) -> bool:
        judged.append((share, loss))
        return share > 0.4

    with pace.watched(lambda: losses, 0.5, [0.2, 0.5, 0.9], judge, stopped.set) as seen:
        time.sleep(0.6)
        assert not judged  # no step yet: longer than the whole budget, and nothing was looked at
        losses += [5.0, 4.0, 3.0]
        assert stopped.wait(10)
    assert judged == [(0.2, 4.0), (0.5, 4.0)]
    assert seen.looks == judged
    assert seen.ended


def test_the_median_of_the_last_losses_stands_for_a_look() -> None:
    with pace.watched(lambda: [9.0, 9.0, 3.0, 1.0, 2.0, 99.0, 2.5], 0.1, [0.1], lambda *_: False, lambda: None) as seen:
        for _ in range(2000):
            if seen.looks:
                break
            time.sleep(0.01)
    assert seen.looks == [(0.1, 2.5)]
    assert not seen.ended


def test_a_run_that_empties_its_telemetry_is_looked_at_again() -> None:
    told = iter([[5.0], [], [4.0]])
    with pace.watched(lambda: next(told, [4.0]), 0.2, [0.1, 0.5], lambda *_: False, lambda: None) as seen:
        for _ in range(2000):
            if seen.looks:
                break
            time.sleep(0.01)
    assert seen.looks == [(0.5, 4.0)]


def test_a_run_that_ends_first_is_not_waited_for() -> None:
    began = time.monotonic()
    with pace.watched(lambda: [1.0], 3600, [0.5], lambda *_: True, lambda: None) as seen:
        pass
    assert time.monotonic() - began < 5
    assert seen.looks == []


def test_without_looks_nothing_is_read() -> None:
    def unread() -> list[float]:
        raise AssertionError("read")

    with pace.watched(unread, 1.0, [], lambda *_: True, lambda: None) as seen:
        time.sleep(0.05)
    assert not seen.ended
