"""What the desk remembers of a tag is what a desk that starts anew reads out of the ledger."""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path

import pytest

from bench import standin
from runner.core.base.errors import GloveboxError
from runner.core.base.home import Home
from runner.core.base.values import Experiment, Status, Telemetry
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


def test_a_desk_that_starts_again_after_the_best_was_looked_at_again_believes_the_same(home: Home, work: Path) -> None:
    """Looks at the baseline were taken for its scale by whoever read them all at once: verify failed an honest tag."""

    def score(text: bytes, before: int) -> float | None:
        worse = 0.0 if text == driver.SEED else 0.3
        return 2.0 + worse + (hashlib.sha256(text + bytes([before])).digest()[0] - 128) / 12_800

    def go_on(loop: Loop, until: int) -> None:
        loop.begin()
        work.write_bytes(loop.best_source())
        while (last := loop.ledger.last_number(loop.tag)) < until:
            work.write_bytes(work.read_bytes() + b"# %d\n" % last)
            loop.experiment(work, f"proposal {last}")

    first = standin.loop(home, "looks", driver.SEED, score)
    go_on(first, 20)
    again = Memory(first.home, first.policies, first.ledger, "looks")
    again.line.catch_up(first.ledger.experiments("looks"), first.ledger.reruns("looks"))
    assert any(rerun.seed >= 542 for rerun in first.ledger.reruns("looks"))
    assert again.line.total() == first.memory.line.total()
    second = standin.loop(home, "looks", driver.SEED, score)
    go_on(second, 24)
    rows, reruns = second.ledger.experiments("looks"), second.ledger.reruns("looks")
    assert replay(second.policies.decision, rows, reruns)[0] == []


def test_a_row_that_could_not_be_recorded_is_not_believed(
    loop: Loop, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another lane goes on with the same memory."""
    night(loop, work, 6)

    def full(row: Experiment) -> None:
        raise sqlite3.OperationalError("disk is full")

    work.write_bytes(work.read_bytes() + b"xxxxxxxx\n")
    with monkeypatch.context() as patch:
        patch.setattr(loop.ledger, "close_experiment", full)
        with pytest.raises((sqlite3.Error, GloveboxError)):
            loop.experiment(work, "lost")
    loop.recorder.close_interrupted()
    work.write_bytes(loop.best_source())
    for number in range(20, 24):
        work.write_bytes(driver.candidate(work.read_bytes(), number))
        loop.experiment(work, f"proposal {number}")
    rows, reruns = loop.ledger.experiments(loop.tag), loop.ledger.reruns(loop.tag)
    assert replay(loop.policies.decision, rows, reruns)[0] == []


def test_the_claim_that_history_shows_follows_from_told_scores_alone(loop: Loop, work: Path) -> None:
    """In the ledger it may rest on reruns on another lane, and those were not told."""
    night(loop, work, 12)
    best = None
    for row in loop.memory.newest(100):
        if best is not None and row.val_bpb is not None:
            assert row.claimed == round(best - row.val_bpb, 6)
        else:
            assert row.claimed is None
        best = row.val_bpb if row.status is Status.KEEP else best
    odd = loop.ledger.experiments(loop.tag)[-1].model_copy(update={"id": 99, "claimed": 0.123456})
    told = [*loop.memory.told().rows, odd]
    other = Memory(loop.home, loop.policies, loop.ledger, loop.tag)
    other._take(told)
    assert other._claims[-1] != 0.123456
    assert [row.id for row in loop.memory.newest(3)] == [10, 11, 12]


def test_verify_notices_a_total_that_does_not_follow(loop: Loop, work: Path) -> None:
    night(loop, work, 8)
    rows, reruns = loop.ledger.experiments(loop.tag), loop.ledger.reruns(loop.tag)
    assert replay(loop.policies.decision, rows, reruns)[0] == []
    at = next(n for n, row in enumerate(rows) if row.total)
    rows[at] = rows[at].model_copy(update={"total": (rows[at].total or 0.0) + 0.001})
    (wrong,), _ = replay(loop.policies.decision, rows, reruns)
    assert f"experiment {rows[at].id}" in wrong
