"""Agents on several lanes: one quota, and what a lane that breaks means for the others."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.client import Bench
from bench import standin
from bench.standin import Scripted
from runner.core.base import doors
from runner.core.base.errors import EngineError, GloveboxError, PolicyError
from runner.core.base.home import Home
from runner.core.base.launching import MAX_LANES, EndReason, EngineResult
from runner.core.base.values import INTERRUPTED, Status
from runner.core.policy import users
from runner.rooms.desk import attending, session
from runner.rooms.desk.attending import GAVE_UP, Ending, attend
from runner.rooms.desk.quota import Quota, Turns
from runner.rooms.desk.rounds import Rounds
from runner.rooms.desk.settings import Prune
from tests.faults import driver
from tests.samples import experiment


class Lane:
    """What attend sees of a loop."""

    stages = SimpleNamespace(lane=SimpleNamespace(number=0))


@pytest.fixture
def places(tmp_path: Path) -> doors.Places:
    return doors.Places(tmp_path)


def attendance(monkeypatch: pytest.MonkeyPatch, runs: dict[int, Any]) -> None:
    """Lanes that end as `runs` says: with a code, an error, or what a function of (quota, broken) returns."""

    def run(self: attending._Attendance) -> int:
        what = runs[id(self.loop)]
        if isinstance(what, BaseException):
            raise what
        return int(what(self.quota, self.broken) if callable(what) else what)

    monkeypatch.setattr(attending._Attendance, "run", run)


def go(loops: list[Any], places: doors.Places, experiments: int | None = None) -> int:
    return attend(loops, places, None, experiments, False, Ending(threading.Event(), threading.Event()))


def test_a_lane_that_breaks_ends_the_others_after_what_they_run(
    monkeypatch: pytest.MonkeyPatch, places: doors.Places
) -> None:
    ended: list[bool] = []

    def other(_: Quota, broken: threading.Event) -> int:
        ended.append(broken.wait(30))  # what a lane looks at between two experiments
        return 0

    first, second = Lane(), Lane()
    attendance(monkeypatch, {id(first): GloveboxError("the engine failed"), id(second): other})
    with pytest.raises(GloveboxError, match="the engine failed"):
        go([first, second], places)
    assert ended == [True]


@pytest.mark.parametrize("code", [0, 1])
def test_a_lane_whose_agent_failed_ends_the_others_too_and_one_that_is_done_does_not(
    monkeypatch: pytest.MonkeyPatch, places: doors.Places, code: int
) -> None:
    """Else its GPU would stand idle for the rest of the night; together they are started again."""
    told: list[bool] = []

    def other(_: Quota, broken: threading.Event) -> int:
        told.append(broken.wait(30 if code else 1))
        return 0

    first, second = Lane(), Lane()
    attendance(monkeypatch, {id(first): code, id(second): other})
    assert go([first, second], places) == code
    assert told == [bool(code)]


@pytest.mark.parametrize(("codes", "told"), [((0, 0), 0), ((0, 9), 9), ((9, 1), 1), ((1, 0), 1), ((0,), 0)])
def test_the_worst_lane_is_the_sessions_exit_code(
    monkeypatch: pytest.MonkeyPatch, places: doors.Places, codes: tuple[int, ...], told: int
) -> None:
    lanes = [Lane() for _ in codes]
    attendance(monkeypatch, {id(lane): code for lane, code in zip(lanes, codes, strict=True)})
    assert go(lanes, places) == told


def test_lanes_share_one_quota(monkeypatch: pytest.MonkeyPatch, places: doors.Places) -> None:
    taken: list[int] = []

    def greedy(quota: Quota, _: threading.Event) -> int:
        while quota.take():
            taken.append(threading.get_ident())
        return 0

    lanes = [Lane() for _ in range(4)]
    attendance(monkeypatch, {id(lane): greedy for lane in lanes})
    assert go(lanes, places, 1000) == 0
    assert len(taken) == 1000


def test_a_lane_whose_agent_is_silent_ends_when_another_took_the_last_experiment(
    monkeypatch: pytest.MonkeyPatch, places: doors.Places
) -> None:
    class Desk:
        finished, busy, failure = threading.Event(), True, None

    monkeypatch.setattr(attending, "_GIVEN_BACK", 0.3)
    monkeypatch.setattr(attending, "_LAST_ANSWER", 0.0)
    quota, desk, never = Quota(1), Desk(), threading.Event()
    baseline: Any = None
    waiting: Any = attending._Attendance(
        Lane(),
        places,
        None,
        quota,
        False,
        Ending(never, never),
        threading.Event(),
        baseline,  # type: ignore[arg-type]
        Rounds(),
        Turns(),
    )
    thread = threading.Thread(target=waiting._wait, args=(None, desk), daemon=True)
    thread.start()
    assert not desk.finished.wait(1)  # there is one left
    assert quota.take()
    assert not desk.finished.wait(1)  # it is this lane that runs it
    desk.busy = False
    assert desk.finished.wait(10)
    thread.join(10)


def test_a_quota_gives_back_what_came_to_nothing() -> None:
    quota = Quota(1)
    assert quota.take()
    assert not quota.take()
    quota.give_back()
    assert quota.take()
    endless = Quota(None)
    assert all(endless.take() for _ in range(100))
    endless.give_back()
    assert endless.left is None


def test_every_lane_has_a_door_of_its_own(places: doors.Places) -> None:
    assert places.desk(0) == places.bench
    assert len({places.desk(lane).parent for lane in range(MAX_LANES)}) == MAX_LANES


ENDED = EngineResult(
    exit_code=0, reason=EndReason.EXIT, oom=False, seconds=1.0, output_bytes=0, image="i", container="c"
)


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({}, False),
        ({"exit_code": 1}, True),
        ({"reason": EndReason.OOM, "exit_code": 137}, True),
        ({"reason": EndReason.OUTPUT, "exit_code": 137}, True),
        ({"reason": EndReason.WALL, "exit_code": 137}, False),  # its session is over, as policy says
        ({"reason": EndReason.CANCELLED, "exit_code": 137}, False),
    ],
)
def test_how_an_agents_container_ended_is_success_or_failure(changes: dict[str, Any], failed: bool) -> None:
    agent = object.__new__(attending._Agent)
    agent.result = ENDED.model_copy(update=changes)
    assert agent.failed is failed
    assert agent.lost is None
    agent.result = EngineError("the engine is gone")
    assert agent.lost is agent.result
    assert not agent.failed


class Beginning:
    """A loop whose baseline takes a moment, or fails."""

    def __init__(self, error: GloveboxError | None = None) -> None:
        self.error, self.begun = error, 0

    def begin(self) -> object:
        self.begun += 1
        if self.error:
            raise self.error
        return object() if self.begun == 1 else None


def test_one_lane_runs_the_baseline_and_it_is_one_of_the_sessions_experiments() -> None:
    loop, quota = Beginning(), Quota(3)
    baseline = attending._Baseline(loop, quota)  # type: ignore[arg-type]
    for _ in range(2):
        baseline.run()
    assert (loop.begun, quota.left) == (1, 2)
    assert baseline.done.is_set()


def test_a_baseline_that_fails_fails_for_every_lane_and_runs_once() -> None:
    loop, quota = Beginning(GloveboxError("no score")), Quota(3)
    baseline = attending._Baseline(loop, quota)  # type: ignore[arg-type]
    for _ in range(2):
        with pytest.raises(GloveboxError, match="no score"):
            baseline.run()
    assert (loop.begun, quota.left) == (1, 3)
    assert not baseline.done.is_set()


@pytest.mark.parametrize(
    ("used", "because", "code"), [(True, None, 11), (False, None, 0), (True, "out_of_money", 9), (True, "done", 11)]
)
def test_a_tag_without_bits_left_ends_with_a_code_of_its_own(
    places: doors.Places, used: bool, because: str | None, code: int
) -> None:
    """It ended with 0, as if the night were over, after 243 experiments."""
    if because == "out_of_money":
        because = sorted(GAVE_UP)[0]
    told: list[str] = []
    loop = SimpleNamespace(told_enough=lambda: used, emit=lambda event, _: told.append(event))
    never: Any = threading.Event()
    one = attending._Attendance(
        loop,  # type: ignore[arg-type]
        places,
        None,
        Quota(None),
        False,
        Ending(never, never),
        never,
        baseline=None,  # type: ignore[arg-type]
        rounds=Rounds(),
        turns=Turns(),
    )
    assert one._ended(None, SimpleNamespace(left_because=because)) == code  # type: ignore[arg-type]
    assert told == ["agent_ended"]


def test_what_a_tag_gained_is_measured_by_the_session_that_ended_it(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its launcher's door was closed by then: under `up` and compose the session failed and began again for ever."""
    told: list[str] = []
    loop = standin.loop(home, driver.TAG, driver.SEED, driver.score, emit=lambda event, _: told.append(event))
    places, never, most = doors.Places(tmp_path / "doors"), threading.Event(), 8
    ours = users.Ids(os.getegid(), os.getegid(), os.geteuid())
    monkeypatch.setattr(attending.users, "agents", lambda _: frozenset({os.geteuid()}))
    monkeypatch.setattr(attending.users, "ids", lambda *_: ours)
    monkeypatch.setattr(Scripted, "prepare", lambda _: None)
    settings: Any = SimpleNamespace(agent=None, meter=False, until=most, prune=None, tag=driver.TAG)

    def propose() -> None:
        bench = Bench(str(places.desk(0)))
        for number in range(1, most):
            work = home.work_of(0)
            work.write_bytes(driver.candidate(work.read_bytes(), number))
            bench.run_experiment(f"proposal {number}")

    agent = threading.Thread(target=propose, daemon=True)
    threading.Timer(1.0, agent.start).start()
    assert session._attended([loop], places, settings, most, Ending(never, never)) == 0
    rows = loop.ledger.experiments(driver.TAG)
    assert len(rows) == most
    assert sum(row.status is Status.KEEP for row in rows) > 1
    assert sum(rerun.during == 0 and rerun.status == "scored" for rerun in loop.ledger.reruns(driver.TAG)) == 4
    assert told[-1] == "measured"
    loop.launches.cancel_all()  # the control: a door that is closed is one
    with pytest.raises(GloveboxError, match="being stopped"):
        loop.experiment(home.work_of(0), "one more")


@pytest.mark.parametrize(
    ("until", "done", "rule", "code", "measured"),
    [(3, 3, "odds", 0, True), (4, 3, "odds", 0, False), (None, 3, "odds", 0, False), (3, 3, "paired", 0, False),
     (3, 3, "odds", 1, False)],
)  # fmt: skip
def test_a_tag_that_has_all_its_experiments_is_measured(
    monkeypatch: pytest.MonkeyPatch, places: doors.Places, until: int | None, done: int, rule: str, code: int,
    measured: bool,
) -> None:  # fmt: skip
    told: list[str] = []
    rows = [experiment(number) for number in range(1, done + 1)] + [experiment(9, reason=INTERRUPTED)]
    loop: Any = SimpleNamespace(
        ledger=SimpleNamespace(experiments=lambda _: rows),
        policies=SimpleNamespace(decision=SimpleNamespace(rule=rule)),
        emit=lambda event, _: told.append(event),
    )
    monkeypatch.setattr(session, "attend", lambda *_: code)
    monkeypatch.setattr(session.requested_reruns, "carry_out", lambda *_: [])
    settings: Any = SimpleNamespace(agent=None, meter=False, until=until, prune=None, tag="t")
    never = threading.Event()
    assert session._attended([loop], places, settings, None, Ending(never, never)) == code
    assert (told == ["measured"]) is measured


def test_what_is_pruned_at_the_end_is_pruned_before_the_gain_is_measured(
    monkeypatch: pytest.MonkeyPatch, places: doors.Places
) -> None:
    """The gain that is measured is that of the best of the end."""
    told: list[str] = []
    loop: Any = SimpleNamespace(
        ledger=SimpleNamespace(experiments=lambda _: [experiment(1)]),
        policies=SimpleNamespace(decision=SimpleNamespace(rule="odds")),
        emit=lambda event, _: told.append(event),
    )
    monkeypatch.setattr(session, "attend", lambda *_: 0)
    monkeypatch.setattr(session.requested_reruns, "carry_out", lambda *_: [])
    monkeypatch.setattr(session.pruning, "carry_out", lambda *_, **__: SimpleNamespace(model_dump=lambda **_: {}))
    settings: Any = SimpleNamespace(agent=None, meter=False, until=1, prune=Prune(), tag="t")
    never = threading.Event()
    assert session._attended([loop], places, settings, None, Ending(never, never)) == 0
    assert told == ["pruned", "measured"]


@pytest.mark.parametrize("rule", ["paired", "upstream"])
def test_a_night_whose_end_cannot_be_pruned_does_not_begin(rule: str) -> None:
    loop: Any = SimpleNamespace(tag="t", policies=SimpleNamespace(decision=SimpleNamespace(rule=rule)))
    settings: Any = SimpleNamespace(prune=Prune(), until=100, train_py=None, order=None)
    never = threading.Event()
    with pytest.raises(PolicyError, match="prune a tag begun under rule odds"):
        session._work([loop], settings, Ending(never, never))
