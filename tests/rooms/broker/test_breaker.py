"""Calls pause while the API fails, and one at a time tries again."""

from __future__ import annotations

from runner.core.policy.broker import Breaker as Policy
from runner.rooms.broker.breaker import Breaker

POLICY = Policy(failures=3, open_seconds=10.0, longest_seconds=40.0)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def made() -> tuple[Breaker, Clock]:
    clock = Clock()
    return Breaker(POLICY, clock), clock


def test_it_opens_after_failures_in_a_row_and_not_before() -> None:
    breaker, _ = made()
    for _ in range(2):
        breaker.failed()
    assert breaker.wait() == 0
    breaker.succeeded()
    for _ in range(2):
        breaker.failed()
    assert breaker.wait() == 0
    breaker.failed()
    assert breaker.wait() == 10


def test_one_call_tries_after_the_pause_and_a_failure_doubles_it() -> None:
    breaker, clock = made()
    for _ in range(3):
        breaker.failed()
    for pause in (20, 40, 40):
        clock.now += 50
        assert breaker.wait() == 0
        assert breaker.wait() > 0  # only one tries
        breaker.failed()
        assert breaker.wait() == pause
    clock.now += 50
    assert breaker.wait() == 0
    breaker.succeeded()
    assert breaker.wait() == breaker.wait() == 0


def test_the_api_may_name_the_pause_within_the_policys_bound() -> None:
    breaker, _ = made()
    breaker.failed(retry_after=7)
    assert breaker.wait() == 7
    breaker.failed(retry_after=100_000)
    assert breaker.wait() == 40


def test_a_try_that_never_reached_the_api_lets_the_next_one_try() -> None:
    breaker, clock = made()
    for _ in range(3):
        breaker.failed()
    clock.now += 50
    assert breaker.wait() == 0
    breaker.released()
    assert breaker.wait() == 0


def test_whoever_listens_is_told_of_pauses_and_their_end() -> None:
    clock, told = Clock(), list[float]()
    breaker = Breaker(POLICY, clock, told.append)
    breaker.succeeded()
    for _ in range(3):
        breaker.failed()
    clock.now += 10
    breaker.wait()
    breaker.failed(30.0)
    clock.now += 30
    breaker.wait()
    breaker.succeeded()
    breaker.succeeded()
    assert told == [10.0, 30.0, 0.0]
