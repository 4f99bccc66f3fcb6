"""What verify looks at again after an earlier call, what a lost file does, and where a tag began."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bench import standin
from runner.core.airlock import snapshot
from runner.core.artifacts import manifest
from runner.core.artifacts.progress import Stages
from runner.core.base import locks
from runner.core.base.errors import VerifyError
from runner.core.base.home import SOURCE, Home
from runner.core.base.values import INTERRUPTED
from runner.core.evidence import audit_chain, verify, verify_tag
from runner.core.evidence.git_line import GitLine
from runner.core.evidence.ledger import Ledger, Origin
from runner.core.evidence.receipts import row_digest
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
    assert any("of 12 experiments up to checkpoint" in line for line in part.unknown)
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


# What a red team found


def sql(home: Home, *statements: str) -> None:
    with sqlite3.connect(home.ledger) as db:
        for statement in statements:
            db.execute(statement)


def copied(home: Home, text: str = 'replace(row, \'"status":"discard"\', \'"status":"keep"\')') -> str:
    return (
        "INSERT INTO experiments SELECT tag, 99, started, description, snapshot, snapshot_size, run, status, val_bpb,"
        f" {text}, (SELECT MAX(done) + 1 FROM experiments) FROM experiments WHERE id = 4"
    )


@pytest.mark.parametrize("number", ["kept", "moved"])
def test_a_row_forged_after_a_checkpoint_under_an_old_number_is_found(night: Loop, number: str) -> None:
    """What a checkpoint covers was told by the number in the row's own text: a second row of an old one passed."""
    home, checkpoint = night.home, verify.verify(night.home).checkpoint
    night.ledger.close()
    moved = "replace(row, '\"id\":4,', '\"id\":99,')" if number == "moved" else "row"
    sql(home, copied(home, moved))
    for since in (checkpoint, None):
        failures = verify.verify(home, since=since).failures
        wanted = "experiment 99: the ledger row differs" if number == "moved" else "a malformed row"
        assert any(wanted in line for line in failures), failures


def test_an_old_row_that_was_edited_is_found_although_it_is_old(night: Loop) -> None:
    home, checkpoint = night.home, verify.verify(night.home).checkpoint
    night.ledger.close()
    sql(home, 'UPDATE experiments SET row = replace(row, \'"description":"proposal 3"\', \'"description":"x"\')')
    assert any("the ledger row differs" in line for line in verify.verify(home, since=checkpoint).failures)


def test_all_told_and_not_known_are_not_the_same_record(night: Loop) -> None:
    """They had one hash, and what is not known is not counted."""
    row = night.ledger.experiments(night.tag)[-1]
    assert row.told == 0
    assert row_digest(row) != row_digest(row.model_copy(update={"told": None}))
    assert row_digest(row.model_copy(update={"total": 0.0})) != row_digest(row.model_copy(update={"total": None}))


def test_terms_that_nobody_knows_are_said(night: Loop) -> None:
    sql(night.home, f"UPDATE runs SET policy = '{'f' * 64}'")
    assert any("bits told not counted" in line for line in verify.verify(night.home).unknown)


def test_a_tag_does_not_begin_with_itself(night: Loop) -> None:
    sql(night.home, """UPDATE runs SET origin = '{"begun_from":"faults","experiment":1}'""")
    assert any("it does not begin with" in line for line in verify.verify(night.home).failures)


def test_rows_of_a_tag_that_was_never_begun_are_named(night: Loop) -> None:
    night.ledger.close()
    sql(night.home, "UPDATE experiments SET tag = 'ghost' WHERE id = 12")
    assert any("tags it does not list: ghost" in line for line in verify.verify(night.home).failures)


def test_beside_a_session_what_ended_meanwhile_is_no_failure(
    night: Loop, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = GitLine.sound

    def sound(line: GitLine) -> bool:  # a session records three more while git looks
        go_on(night, work, 15)
        return real(line)

    monkeypatch.setattr(GitLine, "sound", sound)
    with locks.hold(night.home.runner_lock, "tag faults"):
        found = verify.verify(night.home)
    assert found.failures == []
    assert any(line.startswith("a session is at work: ") for line in found.unknown)


@pytest.mark.parametrize("what", ["row", "branch", "results.tsv"])
def test_whoever_holds_the_lock_hides_nothing_that_was_there_before(
    night: Loop, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """A held lock alone made a row that was taken away, or a branch that was moved, a remark."""
    monkeypatch.setattr(verify_tag, "_PATIENCE", 0.5)
    first, *_, last = night.ledger.experiments(night.tag)
    night.ledger.close()
    if what == "row":
        sql(night.home, f"DELETE FROM experiments WHERE id = {last.id}")
    elif what == "branch":
        GitLine(night.home.line).advance(night.tag, first.commit)
    else:
        with (night.home.tag(night.tag) / "results.tsv").open("a") as file:
            file.write("13\t0.1\n")
    with locks.hold(night.home.runner_lock, "tag faults"):
        failures = verify.verify(night.home).failures
    wanted = {
        "row": "is in the audit chain but not in the ledger",
        "branch": "the branch is not at its last keep",
        "results.tsv": "results.tsv differs from the ledger",
    }
    assert any(wanted[what] in line for line in failures), failures


@pytest.mark.parametrize("kind", ["rerun", "accepted"])
def test_a_second_record_of_the_same_name_is_a_failure(night: Loop, kind: str) -> None:
    """The last one counted: an unsigned entry and a ledger that agreed with it passed."""
    entries = audit_chain.by_name(audit_chain.verify(night.home.audit), kind)
    key, data = list(entries.items())[-1]
    audit_chain.AuditLog(night.home.audit).append(kind, data)
    failures = verify.verify(night.home).failures
    assert any(f"{key[0]} {kind} {key[1]} is there already" in line for line in failures), failures


def test_a_rerun_that_nobody_signed_is_said(night: Loop) -> None:
    """Only experiments were counted."""
    (key, data), *_ = audit_chain.by_name(audit_chain.verify(night.home.audit), "rerun").items()
    told = {**data, "rerun": {**data["rerun"], "id": 99}}
    audit_chain.AuditLog(night.home.audit).append("rerun", told)
    assert any("signature" in line for line in verify.verify(night.home).unknown)


def test_results_tsv_and_calls_that_are_half_written_beside_a_session_are_waited_for(night: Loop) -> None:
    """Both are written after the chain; on some disks a reader sees half a line."""
    table, calls = night.home.tag(night.tag) / "results.tsv", night.home.broker / "calls.jsonl"
    whole = table.read_bytes()
    table.write_bytes(whole[: whole.rindex(b"\n", 0, -1) + 1])
    calls.parent.mkdir(exist_ok=True)
    audit_chain.AuditLog(calls).append("call", {})
    with calls.open("a") as file:
        file.write('{"n":1,')
    later = threading.Timer(1.0, lambda: table.write_bytes(whole))
    later.start()
    with locks.hold(night.home.runner_lock, "tag faults"):
        assert verify.verify(night.home).failures == []
    later.join()
    assert any("broken" in line for line in verify.verify(night.home).failures)  # the control: nobody writes any more


@pytest.mark.parametrize("left", ["less", "nothing", "no file"])
def test_a_chain_that_is_cut_while_we_look_is_a_failure(
    night: Loop, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    real = GitLine.sound

    def sound(line: GitLine) -> bool:
        chain = night.home.audit.read_bytes()
        night.home.audit.write_bytes(chain[: len(chain) // 2] if left == "less" else b"")
        if left == "no file":
            night.home.audit.unlink()
        return real(line)

    monkeypatch.setattr(GitLine, "sound", sound)
    with locks.hold(night.home.runner_lock, "tag faults"):
        assert any("cut while it was read" in line for line in verify.verify(night.home).failures)


@pytest.mark.parametrize("comes", [True, False])
def test_a_row_that_a_session_has_half_recorded_is_waited_for(
    night: Loop, work: Path, monkeypatch: pytest.MonkeyPatch, comes: bool
) -> None:
    """A row is in the ledger before it is in the chain."""
    monkeypatch.setattr(verify_tag, "_PATIENCE", 2.0)
    go_on(night, work, 13)
    whole = night.home.audit.read_bytes()
    last = json.loads(whole.splitlines()[-2])
    assert last["kind"] == "finished", "the chain ends with the last row and its checkpoint"
    begun = whole.index(b'"n":%d,' % last["n"])
    begun = whole.rindex(b"\n", 0, begun) + 1
    night.home.audit.write_bytes(whole[: begun + 30])
    later = threading.Timer(0.3, lambda: night.home.audit.write_bytes(whole))
    if comes:
        later.start()
    with locks.hold(night.home.runner_lock, "tag faults"):
        failures = verify.verify(night.home).failures
    if comes:
        later.join()
    assert (failures == []) is comes, failures


def test_beside_a_session_that_never_rests_nothing_fails(home: Home, tmp_path: Path) -> None:
    """Whatever a look falls between: ledger, chain, witness, git and results.tsv are not written at once."""
    witness = tmp_path / "witness.jsonl"
    own = home.root / "policies" / "audit.yaml"
    own.write_text((SOURCE / "policies" / "audit.yaml").read_text().replace('witness: ""', f"witness: {witness}"))
    session = subprocess.Popen([sys.executable, "-m", "tests.faults.driver", home.root, "100"])
    try:
        while not witness.exists():
            assert session.poll() is None
        found = []
        while session.poll() is None:
            found.append(verify.verify(home, witness))
        assert session.returncode == 0
    finally:
        session.kill()
        session.wait()
    assert [one.failures for one in found] == [[]] * len(found)
    assert len(found) > 3
    assert any(line.startswith("a session is at work: ") for one in found for line in one.unknown)


def test_without_a_session_the_same_is_one(night: Loop, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Ledger.tags
    before = []

    def tags(ledger: Ledger) -> list[str]:
        found = real(ledger)
        if not before:
            before.append(1)
            go_on(night, work, 15)
        return found

    monkeypatch.setattr(Ledger, "tags", tags)
    assert any("in the audit chain but not in the ledger" in line for line in verify.verify(night.home).failures)


HOSTILE = {
    "a score that is no number": 'UPDATE experiments SET row = replace(row, \'"seconds":\', \'"seconds":Infinity,"x":\')',
    "a score beyond all": "UPDATE experiments SET val_bpb = 1e308, row = json_set(row, '$.val_bpb', 1e308) WHERE id = 3",
    "a time that is none": "UPDATE experiments SET row = json_set(row, '$.started', '9999-12-31T23:59:59-23:59')",
    "no table": "DROP TABLE experiments",
    "no column": "ALTER TABLE runs RENAME COLUMN policy TO polity",
    "bytes that are no text": "UPDATE runs SET policy = cast(x'ff' AS text)",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_ledger_made_to_choke_on_is_a_line(
    night: Loop, glovebox: Callable[..., tuple[int, str, str]], name: str
) -> None:
    night.ledger.close()
    sql(night.home, HOSTILE[name])
    code, out, err = glovebox("verify")
    assert code in (1, 8)
    assert "Traceback" not in err
    assert "glovebox: " in err or "FAIL" in out


@pytest.mark.parametrize("kind", ["pipe", "zero", "long", "not utf-8"])
@pytest.mark.parametrize("what", ["results.tsv", "audit.jsonl", "snapshot"])
def test_a_file_that_never_ends_or_never_begins_is_a_failure(night: Loop, what: str, kind: str) -> None:
    home = night.home
    first = night.ledger.experiments(night.tag)[0]
    paths = {"results.tsv": home.tag(night.tag) / "results.tsv", "audit.jsonl": home.audit}
    path = paths.get(what, home.source(first.snapshot))
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "zero":
        path.symlink_to("/dev/zero")
    elif kind == "long":
        path.write_bytes(b"[" * 500_000)
    else:
        path.write_bytes(b"\xff\n")
    assert verify.verify(home).failures


def test_a_name_in_the_chain_is_a_tag_or_no_name() -> None:
    for tag in ("a\x1b[2J\nok\n", "\ud800", "x" * 41, "", "../x", None, 3):
        assert audit_chain.named({"kind": "finished", "data": {"tag": tag, "id": 1}}) is None
    assert audit_chain.named({"kind": "finished", "data": {"tag": "t", "id": True}}) is None
    assert audit_chain.named({"kind": "finished", "data": {"tag": "t", "id": 1}}) == (("t", 1), {"tag": "t", "id": 1})
