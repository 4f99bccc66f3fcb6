"""Several agents propose for one lane: one trains at a time, in order, each on top of what was kept meanwhile."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.client import Bench
from runner.core.airlock import snapshot
from runner.core.base import doors
from runner.core.base.launching import MAX_LANES, MAX_SEATS
from runner.core.evidence.git_line import GitLine
from runner.rooms.desk.desk import Desk
from runner.rooms.desk.quota import Quota, Turns
from tests.rooms.desk.conftest import Night

TEXT = "# true {}\nx = 1\n\n\n\ny = 1\n\n\n\nz = 1\n"


class Seats:
    """Agents of one lane: their files, and a line to the desk of each."""

    def __init__(self, night: Night, folder: Path, count: int, stack: ExitStack, quota: Quota) -> None:
        self.night, self.quota = night, quota
        turns = Turns(count)
        self.benches, self.works, self.desks = list[Bench](), list[Path](), list[Desk]()
        for seat in range(count):
            loop = replace(night.loop, seat=seat)
            work = night.home.work_of(0, seat)
            snapshot.provide(work, os.getegid(), loop.best_source())
            desk = Desk(loop, work, quota, turns=turns)
            path = doors.Places(folder).desk(0, seat)
            sock = stack.enter_context(doors.listening(path, gid=os.getegid(), mode=0o660))
            args = (sock, frozenset({os.geteuid()}), desk.handle)
            threading.Thread(target=doors.serve, args=args, daemon=True).start()
            self.benches.append(Bench(str(path), patience=5))
            self.works.append(work)
            self.desks.append(desk)

    def run(self, seat: int, text: str) -> dict[str, Any]:
        self.works[seat].write_text(text)
        told: dict[str, Any] = self.benches[seat].run_experiment(f"seat {seat}")["feedback"]
        return told


@pytest.fixture
def seats(night: Night, tmp_path: Path) -> Iterator[Seats]:
    with ExitStack() as stack:
        made = Seats(night, tmp_path, 2, stack, Quota(None))
        made.run(0, TEXT.format(1.9))  # a file with room between its lines
        made.benches[1].restore()
        yield made


def changed(true: float, **lines: str) -> str:
    text = TEXT.format(1.9).replace("# true 1.9", f"# true {true}") if true != 1.9 else TEXT.format(1.9)
    for name, value in lines.items():
        text = text.replace(f"{name} = 1", f"{name} = {value}")
    return text


def test_a_change_is_put_on_top_of_what_was_kept_while_its_agent_thought(seats: Seats) -> None:
    assert seats.run(0, changed(1.8, y="2"))["status"] == "keep"
    told = seats.run(1, changed(1.9, z="3"))  # made from experiment 2, before 3 was kept
    assert told["rebased"] is True
    row = seats.night.rows[-1]
    assert (row.parent, row.rebased) == (3, 2)
    assert seats.benches[0].source(row.id) == changed(1.8, y="2", z="3")
    assert seats.night.verified().failures == []


def test_a_change_of_the_same_lines_runs_as_it_is_and_is_told_so(seats: Seats) -> None:
    seats.run(0, changed(1.8, y="2"))
    told = seats.run(1, changed(1.7, y="5"))
    assert told["rebased"] is False
    row = seats.night.rows[-1]
    assert (row.parent, row.rebased, row.status) == (2, None, "keep")
    assert seats.benches[0].source(row.id) == changed(1.7, y="5")
    assert seats.night.verified().failures == []


def test_what_goes_on_from_an_earlier_experiment_on_purpose_stays_there(seats: Seats) -> None:
    seats.run(0, changed(1.8, y="2"))
    seats.benches[1].restore(2)
    told = seats.run(1, changed(1.9, z="3"))
    assert told["rebased"] is None
    assert (seats.night.rows[-1].parent, seats.night.rows[-1].rebased) == (2, None)


def test_nothing_is_merged_while_the_best_stays_the_same(seats: Seats) -> None:
    seats.run(0, changed(2.5, y="2"))
    assert seats.run(1, changed(2.5, z="3"))["rebased"] is None
    assert seats.night.rows[-1].parent == 2


def test_one_trains_at_a_time_in_the_order_in_which_they_asked(seats: Seats, monkeypatch: pytest.MonkeyPatch) -> None:
    stages, at_work, most = seats.night.loop.stages, [0], [0]
    run, free = stages.run, threading.Event()

    def slow(*args: Any, **named: Any) -> Any:
        at_work[0] += 1
        most[0] = max(most[0], at_work[0])
        free.wait(10)
        at_work[0] -= 1
        return run(*args, **named)

    object.__setattr__(stages, "run", slow)
    threads = [
        threading.Thread(target=seats.run, args=(seat, changed(1.8 - seat / 10, **{"yz"[seat]: "2"})))
        for seat in (0, 1)
    ]
    threads[0].start()
    while not at_work[0]:
        time.sleep(0.01)
    threads[1].start()
    time.sleep(0.5)
    assert seats.night.loop.ledger.open_numbers("t") == [3]
    assert seats.benches[1]._path != seats.benches[0]._path
    free.set()
    for thread in threads:
        thread.join(20)
    assert [row.description for row in seats.night.rows[-2:]] == ["seat 0", "seat 1"]
    assert most == [1]
    assert seats.night.verified().failures == []


def test_the_quota_is_of_all_and_who_waits_when_it_ends_is_told(seats: Seats) -> None:
    seats.quota.left = 1
    assert seats.run(0, changed(1.8, y="2"))["experiments_left"] == 0
    with pytest.raises(Exception, match="no_experiments_left"):
        seats.run(1, changed(1.9, z="3"))


def test_a_veto_that_waits_is_carried_out_once_whoever_comes(seats: Seats) -> None:
    from runner.core.base import steering

    seats.run(0, changed(1.8, y="2"))
    steering.ask(seats.night.home, "t", "veto", "2026-01-01T00:00:00+00:00", experiment=3)
    threads = [threading.Thread(target=bench.restore) for bench in seats.benches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert [row.veto for row in seats.night.rows].count(3) == 1
    assert seats.works[1].read_text() == TEXT.format(1.9)


def test_every_seat_of_every_lane_has_places_of_its_own(night: Night, tmp_path: Path) -> None:
    every = [(lane, seat) for lane in range(MAX_LANES) for seat in range(MAX_SEATS)]
    assert len({doors.Places(tmp_path).desk(*one).parent for one in every}) == len(every)
    assert len({night.home.work_of(*one) for one in every}) == len(every)


def test_turns_are_taken_in_order_and_the_last_to_leave_is_known() -> None:
    turns, order, first = Turns(3), list[int](), threading.Event()

    def take(number: int) -> None:
        with turns.take():
            order.append(number)
            first.wait(10)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
        time.sleep(0.1)
    first.set()
    for thread in threads:
        thread.join(10)
    assert order == [0, 1, 2]
    assert [turns.leave() for _ in range(3)] == [False, False, True]


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "merged"),
    [
        (b"a\n\n\n\nb\n", b"a2\n\n\n\nb\n", b"a\n\n\n\nb2\n", b"a2\n\n\n\nb2\n"),
        (b"a\n", b"b\n", b"c\n", None),
        (b"a\n", b"a\n", b"c\n", b"c\n"),
        (b"a\n", b"b\n", b"b\n", b"b\n"),
        (b"", b"x\n", b"", b"x\n"),
        (b"a", b"a\nb", b"a", b"a\nb"),
        (b"\x00", b"\x01", b"\x02", None),  # git takes it for binary
    ],
)
def test_a_merge_is_clean_or_none(night: Night, base: bytes, ours: bytes, theirs: bytes, merged: bytes | None) -> None:
    line: GitLine = night.loop.line
    assert line.merged(base, ours, theirs) == merged
    assert [path.name for path in line.path.parent.iterdir() if path.name.startswith("tmp")] == []
