"""What the desk remembers of a tag is what a desk that starts anew reads out of the ledger."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import standin
from runner.core.base.home import Home
from runner.core.base.values import Status, Telemetry
from runner.core.decision.odds import Line
from runner.core.evidence.replay import replay
from runner.core.findings import analysis, edits
from runner.rooms.desk.experiment import Loop
from runner.rooms.desk.memory import Memory, rounded
from tests.faults import driver

TELEMETRY = Telemetry(curve=[(step, 5.0) for step in range(24)], summary={"num_steps": 24.0})


@pytest.fixture
def loop(home: Home) -> Loop:
    return standin.loop(home, driver.TAG, driver.SEED, driver.score, TELEMETRY)


def night(loop: Loop, work: Path, count: int) -> None:
    loop.begin()
    work.write_bytes(loop.best_source())
    for number in range(1, count):
        work.write_bytes(driver.candidate(work.read_bytes(), number))
        loop.experiment(work, f"proposal {number}")


def test_it_agrees_with_a_replay_after_every_experiment(loop: Loop, work: Path) -> None:
    loop.begin()
    work.write_bytes(loop.best_source())
    for number in range(1, 30):
        work.write_bytes(driver.candidate(work.read_bytes(), number))
        loop.experiment(work, f"proposal {number}")
        new = Memory(loop.home, loop.policies, loop.ledger, loop.tag)
        old_told, new_told = loop.memory.told(), new.told()
        assert (list(old_told.rows), old_told.bits) == (list(new_told.rows), new_told.bits)
        assert loop.memory.analysis("") == new.analysis("")
        rows, reruns = loop.ledger.experiments(loop.tag), loop.ledger.reruns(loop.tag)
        again = Line(loop.policies.decision)
        again.catch_up(rows, reruns)
        assert rows[-1].total == again.total()
    assert {row.status for row in rows} >= {Status.KEEP, Status.DISCARD, Status.CRASH}
    assert len(reruns) > 2


def test_what_an_edit_changed_is_recorded_and_is_what_its_sources_say(loop: Loop, work: Path) -> None:
    night(loop, work, 12)
    rows = loop.ledger.experiments(loop.tag)
    best = None
    for row in rows:
        if best is not None:
            assert row.kinds == list(edits.kinds(loop.memory.source(best), loop.memory.source(row)))
        best = row if row.status is Status.KEEP else best
    assert rows[0].kinds == []
    told = [rounded(row) for row in loop.memory.told().rows]
    lost = analysis.study(told, None, lambda _: None)  # no source is looked at again
    old = [row.model_copy(update={"kinds": None}) for row in told]
    assert lost == analysis.study(old, None, loop.memory.source)  # and rows from before it was recorded are


def test_what_another_lane_told_counts_before_the_next_level_is_chosen(loop: Loop, work: Path) -> None:
    """Rows come from elsewhere, and nobody has asked what was told since."""
    night(loop, work, 3)
    other = Memory(loop.home, loop.policies, loop.ledger, loop.tag)
    bits = other.told().bits
    night_of_another = 5
    for number in range(3, 3 + night_of_another):
        work.write_bytes(driver.candidate(work.read_bytes(), number))
        loop.experiment(work, f"proposal {number}")
    seen: list[float] = []
    account = other.account
    real = account.level

    def level(telemetry: Telemetry, crash: object, planned: int | None) -> int:
        seen.append(account.catch_up([]).bits)
        return real(telemetry, None, planned)

    account.level = level  # type: ignore[method-assign,assignment]
    other.completed(loop.ledger.experiments(loop.tag)[-1])
    assert seen == [loop.memory.told().bits]
    assert seen[0] > bits


def test_verify_notices_a_total_that_does_not_follow(loop: Loop, work: Path) -> None:
    night(loop, work, 8)
    rows, reruns = loop.ledger.experiments(loop.tag), loop.ledger.reruns(loop.tag)
    assert replay(loop.policies.decision, rows, reruns)[0] == []
    at = next(n for n, row in enumerate(rows) if row.total)
    rows[at] = rows[at].model_copy(update={"total": (rows[at].total or 0.0) + 0.001})
    (wrong,), _ = replay(loop.policies.decision, rows, reruns)
    assert f"experiment {rows[at].id}" in wrong
