"""What verify looks at again after an earlier call, what a lost file does, and where a tag began."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bench import standin
from runner.core.airlock import snapshot
from runner.core.artifacts import manifest
from runner.core.artifacts.progress import Stages
from runner.core.base.errors import VerifyError
from runner.core.base.home import Home
from runner.core.base.values import INTERRUPTED
from runner.core.evidence import verify
from runner.core.evidence.ledger import Origin
from runner.rooms.desk.experiment import Loop
from tests.faults import driver


def go_on(loop: Loop, work: Path, count: int) -> None:
    if loop.begin() is not None or not work.exists():
        work.write_bytes(loop.best_source())
    while (last := loop.ledger.last_number(loop.tag)) < count:
        work.write_bytes(driver.candidate(work.read_bytes(), last))
        loop.experiment(work, f"proposal {last}")


@pytest.fixture
def loop(home: Home) -> Loop:
    return standin.loop(home, driver.TAG, driver.SEED, driver.score)


@pytest.fixture
def night(loop: Loop, work: Path) -> Loop:
    go_on(loop, work, 12)
    return loop


def test_since_a_checkpoint_only_what_came_after_is_looked_at(night: Loop, work: Path) -> None:
    first = verify.verify(night.home)
    assert first.failures == []
    assert first.checkpoint is not None
    go_on(night, work, 15)
    whole, part = verify.verify(night.home), verify.verify(night.home, since=first.checkpoint)
    assert part.failures == whole.failures == []
    assert part.checked["commits"] == 3
    assert whole.checked["commits"] == 15
    assert part.checked["audit entries"] == whole.checked["audit entries"]
    assert any(line.startswith("12 experiments up to checkpoint") for line in part.unknown)
    assert part.checkpoint == whole.checkpoint != first.checkpoint


def test_what_changed_since_is_noticed_and_what_changed_before_is_what_it_gives_up(night: Loop, work: Path) -> None:
    checkpoint = verify.verify(night.home).checkpoint
    go_on(night, work, 14)
    rows = night.ledger.experiments(night.tag)
    for number, noticed in ((13, True), (3, False)):
        path = night.home.source(rows[number - 1].snapshot)
        text = path.read_bytes()
        path.chmod(0o600)
        path.write_bytes(text + b"#")
        assert any(f"experiment {number}: the snapshot" in line for line in verify.verify(night.home).failures)
        found = verify.verify(night.home, since=checkpoint).failures
        assert any(f"experiment {number}: the snapshot" in line for line in found) is noticed
        path.write_bytes(text)


def test_a_row_that_was_taken_away_before_the_checkpoint_is_still_missed(night: Loop) -> None:
    checkpoint = verify.verify(night.home).checkpoint
    night.ledger.close()
    with sqlite3.connect(night.home.ledger) as db:
        db.execute("DELETE FROM experiments WHERE id = 5")
    assert any(
        "experiment 5 is in the audit chain" in line for line in verify.verify(night.home, since=checkpoint).failures
    )


@pytest.mark.parametrize(
    "change", [lambda n, h: f"{n}:{'0' * 64}", lambda n, h: f"{n + 1}:{h}", lambda n, h: f"{n + 9999}:{h}"]
)
def test_a_chain_that_does_not_lead_to_the_checkpoint_is_refused(
    night: Loop, change: Callable[[int, str], str]
) -> None:
    number, _, head = (verify.verify(night.home).checkpoint or "").partition(":")
    with pytest.raises(VerifyError, match="does not lead"):
        verify.verify(night.home, since=change(int(number), head))


@pytest.mark.parametrize("text", ["", "12", "x:y", "-1:abc", "1:", ":abc", "9" * 40 + ":a"])
def test_what_is_no_checkpoint_is_said(night: Loop, text: str) -> None:
    with pytest.raises(VerifyError, match="not a checkpoint"):
        verify.verify(night.home, since=text)


def test_the_command_prints_the_checkpoint_and_takes_it(
    night: Loop, glovebox: Callable[..., tuple[int, str, str]]
) -> None:
    code, out, _ = glovebox("verify")
    told = next(line for line in out.splitlines() if line.startswith("checkpoint "))
    assert code == 0
    code, out, _ = glovebox("verify", "--json", "--since", told.split()[1])
    assert code == 0
    assert "commits" not in json.loads(out)["checked"]


def test_progress_is_told_for_every_part(night: Loop) -> None:
    seen: dict[str, float] = {}

    class Shown(Stages):
        def stage(self, text: str, total: float):  # type: ignore[no-untyped-def]
            from contextlib import contextmanager

            @contextmanager
            def shown():  # type: ignore[no-untyped-def]
                seen[text] = 0.0

                def advance(amount: float) -> None:
                    seen[text] += amount / total

                yield advance

            return shown()

    verify.verify(night.home, shown=Shown())
    assert set(seen) == {"audit chain", "git objects", "faults: rows", "faults: verdicts"}
    assert all(share == pytest.approx(1.0) for share in seen.values()), seen


# Lost files


def test_a_lost_snapshot_of_an_open_row_does_not_block_its_tag(night: Loop, work: Path) -> None:
    work.write_bytes(work.read_bytes() + b"# lost\n")
    taken = snapshot.take(work, night.home.snapshots, 1 << 20)
    number = night.recorder.accept(taken, "lost", "f" * 16)
    taken.path.unlink()
    assert night.recorder.reconcile() == [number]
    row = night.ledger.experiments(night.tag)[-1]
    assert (row.id, row.reason) == (number, INTERRUPTED)
    go_on(night, work, number + 1)
    failures = verify.verify(night.home).failures
    assert failures == [
        f"{night.tag} experiment {number}: the snapshot is missing or altered",
        f"{night.tag} experiment {number}: commit {row.commit[:7]} is not its snapshot",
    ]


def test_a_lost_snapshot_that_is_run_again_comes_from_its_commit(night: Loop) -> None:
    best = night.best()
    assert best is not None
    path = night.home.source(best.snapshot)
    before = path.read_bytes()
    path.unlink()
    assert night.trials().snapshot(best).path.read_bytes() == before
    assert verify.verify(night.home).failures == []


# Where a tag began


def test_a_tag_that_does_not_begin_where_it_says_is_noticed(night: Loop, home: Home, work: Path) -> None:
    best = night.best()
    assert best is not None
    for tag, number, fine in (("good", best.id, True), ("bad", 1, False), ("none", 99, False)):
        night.ledger.begin_run(tag, "", "demo-1", "f" * 64, Origin(begun_from=night.tag, experiment=number))
        standin.loop(home, tag, night.best_source(), driver.score).begin()
        told = [line for line in verify.verify(home).failures if line.startswith(f"{tag}: it does not begin")]
        assert (told == []) is fine


# Artifacts


def test_an_artifact_that_expired_since_is_no_failure_and_is_said(night: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    later = datetime.now(UTC) + timedelta(days=4000)

    class Later(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return later

    monkeypatch.setattr(verify, "datetime", Later)
    monkeypatch.setattr(manifest, "datetime", Later)
    found = verify.verify(night.home)
    assert found.failures == []
    assert "artifact demo-1 has expired since it was used" in found.unknown
    shutil.copytree(night.home.store / "demo-1", night.home.store / "demo-2")  # one that nothing ran on
    assert any("demo-2: " in line and "expired" in line for line in verify.verify(night.home).failures)


def test_a_stray_folder_in_the_store_is_named_and_is_no_failure(night: Loop) -> None:
    (night.home.store / "notes").mkdir()
    found = verify.verify(night.home)
    assert found.failures == []
    assert "store/notes is no artifact, and none of ours: remove it" in found.unknown
    (night.home.store / "demo-1" / manifest.NAME).unlink()  # of one that was used it is a failure
    assert any("demo-1" in line for line in verify.verify(night.home).failures)
