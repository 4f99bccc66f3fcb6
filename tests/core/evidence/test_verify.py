"""What verify looks at again after an earlier call, what a lost file does, and where a tag began."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bench import standin
from runner.core.airlock import snapshot
from runner.core.artifacts import manifest
from runner.core.artifacts.progress import Stages
from runner.core.base import files, locks
from runner.core.base.errors import GloveboxError, VerifyError
from runner.core.base.home import Home
from runner.core.base.mountable import SOURCE
from runner.core.base.steering import Steer, Verb, request
from runner.core.base.values import INTERRUPTED, Experiment, Status
from runner.core.evidence import audit_chain, beside, results_tsv, verify
from runner.core.evidence.checkpoints import Sealer
from runner.core.evidence.git_line import GitLine
from runner.core.evidence.ledger import Ledger, Origin, start
from runner.core.evidence.receipts import row_digest
from runner.core.evidence.texts import Texts
from runner.rooms.desk import session
from runner.rooms.desk.experiment import Loop
from runner.rooms.desk.settings import Settings
from runner.rooms.desk.train_and_score import Stages as Rooms
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


def read(home: Home, query: str) -> tuple[Any, ...]:
    with sqlite3.connect(home.ledger) as db:
        return tuple(db.execute(query).fetchone())


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

    def sound(line: GitLine, found: Mapping[str, str]) -> bool:  # a session records three more while git looks
        go_on(night, work, 15)
        return real(line, found)

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
    monkeypatch.setattr(beside, "_PATIENCE", 0.5)
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

    def sound(line: GitLine, found: Mapping[str, str]) -> bool:
        chain = night.home.audit.read_bytes()
        night.home.audit.write_bytes(chain[: len(chain) // 2] if left == "less" else b"")
        if left == "no file":
            night.home.audit.unlink()
        return real(line, found)

    monkeypatch.setattr(GitLine, "sound", sound)
    with locks.hold(night.home.runner_lock, "tag faults"):
        assert any("cut while it was read" in line for line in verify.verify(night.home).failures)


@pytest.mark.parametrize("comes", [True, False])
def test_a_row_that_a_session_has_half_recorded_is_waited_for(
    night: Loop, work: Path, monkeypatch: pytest.MonkeyPatch, comes: bool
) -> None:
    """A row is in the ledger before it is in the chain."""
    monkeypatch.setattr(beside, "_PATIENCE", 2.0)
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


# What a second red team found


def lines(home: Home) -> list[dict[str, Any]]:
    return audit_chain.verify(home.audit)


def rewritten(home: Home, entries: list[dict[str, Any]], *, sealed: bool = False) -> None:
    """The chain with other entries, hashes right again: what who can write the file can do without a key.

    `sealed`: with it.
    """
    home.audit.unlink()
    log = audit_chain.AuditLog(home.audit)
    for entry in entries:
        if sealed and entry["kind"] == "checkpoint":
            Sealer(home, "").seal(log)
        else:
            log.append(entry["kind"], entry["data"])


def signed(home: Home, kind: str, data: dict[str, Any]) -> None:
    """One more entry, as if the runner had been made to sign it."""
    log = audit_chain.AuditLog(home.audit)
    log.append(kind, data)
    Sealer(home, "").seal(log)


def rewrite_results(home: Home, tag: str) -> None:
    results_tsv.write(home.tag(tag) / "results.tsv", Ledger(home.ledger, read_only=True).experiments(tag))


def test_rows_in_another_order_are_found(night: Loop) -> None:
    """A verdict is about the rows before it: two that changed places passed where the replay gave the same."""
    home, rows = night.home, night.ledger.experiments(night.tag)
    night.ledger.close()
    for one, two in itertools.pairwise(rows):
        first, second = rows.index(one) + 1, rows.index(two) + 1
        swap = (
            f"UPDATE experiments SET done = CASE id WHEN {one.id} THEN {second} ELSE {first} END"
            f" WHERE id IN ({one.id}, {two.id})"
        )
        sql(home, swap)
        rewrite_results(home, night.tag)
        found = verify.verify(home).failures
        assert any("in another order than the audit chain" in line for line in found), found
        sql(home, swap.replace(f"THEN {second} ELSE {first}", f"THEN {first} ELSE {second}"))
    rewrite_results(home, night.tag)
    assert verify.verify(home).failures == []  # the control


@pytest.mark.parametrize("change", ["done * 10", "done + 1", "NULL"])
def test_rows_that_are_not_counted_from_one_are_malformed(night: Loop, change: str) -> None:
    night.ledger.close()
    sql(night.home, f"UPDATE experiments SET done = {change}")
    assert verify.verify(night.home).failures


@pytest.mark.parametrize(
    "column", ["started = '1999'", "description = 'forged'", f"snapshot = '{'0' * 64}'", "snapshot_size = 1"]
)
def test_what_stands_beside_a_row_is_what_the_row_says(night: Loop, column: str) -> None:
    night.ledger.close()
    sql(night.home, f"UPDATE experiments SET {column} WHERE id = 5")
    found = verify.verify(night.home).failures
    assert found == [f"{night.tag} experiment 5: it was begun as something else, the ledger says"]


@pytest.mark.parametrize("change", ["json_set(begun, '$.seed', 99)", "json_set(begun, '$.budget', 1.5)"])
def test_a_rerun_is_what_was_begun(night: Loop, change: str) -> None:
    night.ledger.close()
    sql(night.home, f"UPDATE reruns SET begun = {change} WHERE id = 1")
    found = verify.verify(night.home).failures
    assert found == [f"{night.tag} rerun 1: it was begun as something else, the ledger says"]
    sql(night.home, "UPDATE reruns SET begun = '{}'")
    assert any("malformed row" in line for line in verify.verify(night.home).failures)


@pytest.mark.parametrize(
    "column",
    [
        "started = '1999'",
        "artifact = 'other-9'",
        f"policy = '{'f' * 64}'",
        'origin = \'{"begun_from":"x","experiment":1}\'',
    ],
)
def test_with_what_a_tag_began_is_in_the_chain(night: Loop, column: str) -> None:
    night.ledger.close()
    sql(night.home, f"UPDATE runs SET {column}")
    found = verify.verify(night.home).failures
    assert any("the audit chain knows another start of it" in line for line in found), found


def test_a_tag_from_before_the_chain_told_with_what_it_began_is_said(night: Loop) -> None:
    assert not any("began before" in line for line in verify.verify(night.home).unknown)
    chain = [entry for entry in lines(night.home) if entry["kind"] != "begun"]
    rewritten(night.home, chain, sealed=True)
    found = verify.verify(night.home)
    assert found.failures == []
    assert any("1 tags began before" in line for line in found.unknown)


def test_a_tag_that_began_again_after_an_experiment_is_a_failure(night: Loop) -> None:
    signed(night.home, "begun", {**start(night.ledger, night.tag), "artifact": "other-9"})
    assert any(f"{night.tag} begun  is there already" in line for line in verify.verify(night.home).failures)


def test_a_start_that_came_to_nothing_gives_way(home: Home, work: Path) -> None:
    """The ledger has the last one; one that a crash kept out of the chain is recorded by the next."""
    loop = standin.loop(home, driver.TAG, driver.SEED, driver.score)
    loop.ledger.begin_run(driver.TAG, "2026-01-03T00:00:00+00:00", "demo-1", "a" * 64)  # and the runner died
    assert verify.verify(home).failures == []
    loop.recorder.begin("2026-01-02T00:00:00+00:00", "b" * 64)
    assert verify.verify(home).failures == []
    go_on(loop, work, 2)
    assert verify.verify(home).failures == []
    loop.recorder.begin("2026-01-04T00:00:00+00:00", "c" * 64)  # the tag goes on
    assert verify.verify(home).failures == []


def test_nothing_and_zero_are_two_records(night: Loop) -> None:
    """They had one hash: a run without a figure could be given one of 0."""
    home, rows = night.home, night.ledger.experiments(night.tag)
    night.ledger.close()
    tried = 0
    for row in rows:
        for name in ("gain", "probability", "sigma", "parent", "claimed", "confirmed"):
            if getattr(row, name) is None:
                zero = "0" if name == "parent" else "0.0"
                sql(home, f"UPDATE experiments SET row = json_set(row, '$.{name}', {zero}) WHERE id = {row.id}")
                assert any("the ledger row differs" in line for line in verify.verify(home).failures)
                sql(home, f"UPDATE experiments SET row = '{row.model_dump_json()}' WHERE id = {row.id}")
                tried += 1
                break
    assert tried > 3
    assert verify.verify(home).failures == []


def test_an_experiment_that_began_and_is_not_in_the_ledger_is_found(night: Loop) -> None:
    told = {"tag": night.tag, "experiment": 13, "snapshot": "0" * 64, "run": "f" * 16}
    signed(night.home, "accepted", told)
    found = verify.verify(night.home).failures
    assert any(f"{night.tag} experiment 13 is in the audit chain but not in the ledger" in line for line in found)


def test_an_open_row_is_the_one_that_the_chain_saw_begin(night: Loop, work: Path) -> None:
    work.write_bytes(work.read_bytes() + b"# under way\n")
    taken = snapshot.take(work, night.home.snapshots, 1 << 20)
    night.recorder.accept(taken, "under way", "f" * 16)
    assert verify.verify(night.home).failures == []
    for column in ("started", "description", "snapshot_size"):
        (before,) = read(night.home, f"SELECT {column} FROM experiments WHERE status IS NULL")
        sql(night.home, f"UPDATE experiments SET {column} = 7 WHERE status IS NULL")
        assert any("knows another start" in line for line in verify.verify(night.home).failures), column
        sql(night.home, f"UPDATE experiments SET {column} = {before!r} WHERE status IS NULL")
    assert verify.verify(night.home).failures == []
    sql(night.home, f"UPDATE experiments SET snapshot = '{'0' * 64}' WHERE status IS NULL")
    assert any("knows another start of it" in line for line in verify.verify(night.home).failures)
    sql(night.home, f"UPDATE experiments SET snapshot = '{taken.sha256}', id = 14 WHERE status IS NULL")
    found = verify.verify(night.home)
    assert any("1 experiments were begun and the audit chain does not know" in line for line in found.unknown)
    assert any("experiment 13 is in the audit chain but not in the ledger" in line for line in found.failures)


@pytest.mark.parametrize("change", ["duplicate keys", "spaces", "no newline", "a number that is true"])
def test_a_line_of_the_chain_is_what_was_written_to_the_byte(night: Loop, change: str) -> None:
    """What is hashed is what was parsed: to another reader the line may say something else."""
    text = night.home.audit.read_bytes()
    first, second, *rest = text.splitlines(keepends=True)
    second = {
        "duplicate keys": b'{"data":{"status":"keep"},' + second[1:],
        "spaces": second.replace(b'"n":1', b'"n": 1'),
        "a number that is true": second.replace(b'"n":1', b'"n":1.0'),
    }.get(change, second)
    changed = b"".join([first, second, *rest])
    night.home.audit.write_bytes(changed[:-1] if change == "no newline" else changed)
    assert changed != text or change == "no newline"
    assert any("broken" in line for line in verify.verify(night.home).failures)


def test_a_chain_without_a_signature_is_a_failure(night: Loop) -> None:
    """Rewritten as a whole without a key it was a remark."""
    rewritten(night.home, [entry for entry in lines(night.home) if entry["kind"] != "checkpoint"])
    assert any("are not signed" in line for line in verify.verify(night.home).failures)


def forged(line: GitLine) -> str:
    return line.commit("elsewhere", 1, b"evil = 1\n", "x")


STRANGE: dict[str, Callable[[Path, str, str], object]] = {
    "moved": lambda line, good, evil: (line / "refs/experiments/faults/5").write_text(evil + "\n"),
    "gone": lambda line, good, evil: (line / "refs/experiments/faults/7").unlink(),
    "of no experiment": lambda line, good, evil: (line / "refs/experiments/faults/13").write_text(good + "\n"),
    "of no tag": lambda line, good, evil: (line / "refs/heads/autoresearch/best").write_text(evil + "\n"),
    "a replacement": lambda line, good, evil: files.write(line / "refs/replace" / good, evil + "\n"),
    "a tag of git's": lambda line, good, evil: files.write(line / "refs/tags/best", evil + "\n"),
    "what is checked out": lambda line, good, evil: files.write(line / "refs/heads/master", evil + "\n"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_a_reference_is_of_what_the_ledger_has(night: Loop, name: str) -> None:
    """A person who looks at the line with git sees all of them."""
    line = GitLine(night.home.line)
    evil, good = forged(line), line.head(night.tag)
    assert good is not None
    (night.home.line / "refs/experiments/elsewhere/1").unlink()
    assert verify.verify(night.home).failures == []  # an object that nothing names is none
    STRANGE[name](night.home.line, good, evil)
    found = verify.verify(night.home).failures
    assert any("reference" in line for line in found), found


def test_an_exported_branch_is_ours_and_of_commits(night: Loop) -> None:
    line = GitLine(night.home.line)
    line.publish(
        "exp/CPU/faults",
        [({"train.py": b"x\n"}, "m", "2026-01-01T00:00:00+00:00")],
        ({}, "e", "2026-01-01T00:00:00+00:00"),
    )
    assert verify.verify(night.home).failures == []
    best = night.best()
    assert best is not None
    blob = line._git("rev-parse", f"{best.commit}:train.py")
    files.write(night.home.line / "refs/heads/exp/GPU/faults", blob + "\n")
    assert any("a reference to none" in line for line in verify.verify(night.home).failures)  # git says it


def test_a_session_that_comes_and_goes_while_we_look_is_no_failure(
    night: Loop, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody held the lock whenever verify looked."""
    real = GitLine.sound

    def sound(line: GitLine, found: Mapping[str, str]) -> bool:
        with locks.hold(night.home.runner_lock, "tag faults"):
            go_on(night, work, 15)
        return real(line, found)

    monkeypatch.setattr(GitLine, "sound", sound)
    assert verify.verify(night.home).failures == []


@pytest.mark.parametrize("path", ["store/highest.json", "policies/audit.yaml", "runner.lock", "broker/calls.jsonl"])
def test_a_pipe_in_place_of_a_file_is_not_waited_for(night: Loop, path: str) -> None:
    place = night.home.root / path
    place.parent.mkdir(exist_ok=True)
    place.unlink(missing_ok=True)
    os.mkfifo(place)
    command = [sys.executable, "-m", "runner", "verify"]
    environment = {**os.environ, "GLOVEBOX_HOME": str(night.home.root)}
    done = subprocess.run(command, env=environment, capture_output=True, timeout=60, check=False)
    assert b"Traceback" not in done.stderr


def test_text_that_is_nested_deeply_is_a_line(night: Loop, tmp_path: Path) -> None:
    (night.home.store / "highest.json").write_text("[" * 100_000)
    witness = tmp_path / "witness"
    witness.write_text("[" * 4000 + "\n")
    assert any("not a checkpoint" in line for line in verify.verify(night.home, witness).failures)


def test_a_name_in_the_store_shows_nothing_of_its_own(night: Loop) -> None:
    os.mkdir(os.fsencode(night.home.store) + b"/a\n\x1b[2J\xff")
    assert all(line.isprintable() for line in verify.verify(night.home).unknown)


# What a third found: what a session signs


def replaced(home: Home, tmp_path: Path, *, recovered: bool = False) -> None:
    """Another bench's whole history in place of this one's, without a signature; key and trust stay.

    `recovered`: each run is said to have been entered from the ledger, after a crash.
    """
    other = Home(tmp_path / "other")
    shutil.copytree(home.root, other.root)
    for name in ("ledger.sqlite", "audit.jsonl", "ran.log"):
        (other.root / name).unlink()
    for name in ("line.git", "tags"):
        shutil.rmtree(other.root / name)
    loop = standin.loop(other, driver.TAG, driver.SEED, lambda text, count: (driver.score(text, count) or 3.0) - 0.5)
    go_on(loop, tmp_path / "other.py", 12)
    loop.ledger.close()
    for name in ("line.git", "tags", "snapshots"):
        shutil.rmtree(home.root / name)
        shutil.copytree(other.root / name, home.root / name)
    for name in ("ledger.sqlite-wal", "ledger.sqlite-shm"):
        (home.root / name).unlink(missing_ok=True)
    for name in ("ledger.sqlite", "audit.jsonl", "ran.log"):
        shutil.copy(other.root / name, home.root / name)
    chain = [entry for entry in lines(home) if entry["kind"] != "checkpoint"]
    for entry in chain:
        entry["data"] |= {"recovered": True} if recovered and entry["kind"] in ("finished", "rerun") else {}
    rewritten(home, chain)


@pytest.mark.parametrize("recovered", [False, True])
def test_no_session_signs_a_history_that_it_did_not_write(
    night: Loop, work: Path, tmp_path: Path, recovered: bool
) -> None:
    """One honest experiment later, verify found nothing to say about a bench whose scores were another's."""
    home = night.home
    night.ledger.close()
    replaced(home, tmp_path, recovered=recovered)
    assert any("are not signed" in line for line in verify.verify(home).failures)
    with pytest.raises(VerifyError, match="no session left them so"):
        go_on(standin.loop(home, driver.TAG, driver.SEED, driver.score), work, 13)
    log = audit_chain.AuditLog(home.audit)
    log.unsigned = 0  # the control: a session that does sign them
    Sealer(home, "").seal(log)
    assert any("the first signature over" in line for line in verify.verify(home).failures)


def test_no_session_enters_rows_into_the_chain_that_no_crash_can_have_left(night: Loop, work: Path) -> None:
    """A ledger was replaced, and the chain cut to what was signed before: one after the other was entered and signed."""
    chain = lines(night.home)
    ends = [at for at, entry in enumerate(chain) if entry["kind"] == "finished"]
    rewritten(night.home, chain[: ends[-2]], sealed=True)
    assert verify.verify(night.home).failures
    before = night.home.audit.read_bytes()
    with pytest.raises(VerifyError, match="does not know 2 runs of tag faults: no crash leaves that"):
        standin.loop(night.home, driver.TAG, driver.SEED, driver.score).recorder.reconcile()
    assert night.home.audit.read_bytes() == before
    rewritten(night.home, chain[: ends[-1]], sealed=True)  # the control: one is what a crash leaves
    standin.loop(night.home, driver.TAG, driver.SEED, driver.score).recorder.reconcile()
    assert not verify.verify(night.home).failures


def test_what_a_crash_left_unsigned_is_signed_and_said_for_ever(night: Loop, work: Path) -> None:
    """One run may be: it is what somebody could add, too."""
    chain = lines(night.home)
    assert [entry["kind"] for entry in chain[-2:]] == ["finished", "checkpoint"]
    rewritten(night.home, chain[:-1], sealed=True)
    found = verify.verify(night.home)
    assert found.failures == []
    assert any("1 experiments and reruns after the last checkpoint carry no signature yet" in x for x in found.unknown)
    loop = standin.loop(night.home, driver.TAG, driver.SEED, driver.score)
    loop.recorder.reconcile()  # as every session begins
    go_on(loop, work, 14)
    found = verify.verify(night.home)
    assert found.failures == []
    assert any("1 runs were signed after a crash by a session that had not seen them end" in x for x in found.unknown)


def test_reruns_that_only_the_ledger_knows_are_said(night: Loop, work: Path) -> None:
    """Experiments were; a rerun that somebody wrote into the ledger was entered into the chain without a word."""
    one = night.ledger.reruns(night.tag)[0]
    made = one.model_copy(update={"id": 99, "during": 0, "val_bpb": 1.0, "run": "f" * 16})
    text = made.model_dump_json()
    with sqlite3.connect(night.home.ledger) as db:
        db.execute("INSERT INTO reruns (tag, id, begun, row) VALUES (?, 99, ?, ?)", (night.tag, text, text))
    go_on(standin.loop(night.home, driver.TAG, driver.SEED, driver.score), work, 13)
    night.recorder.ledger.close()
    loop = standin.loop(night.home, driver.TAG, driver.SEED, driver.score)
    loop.recorder.reconcile()
    assert any("1 reruns were entered from the ledger after a crash" in x for x in verify.verify(night.home).unknown)


def test_starts_that_nobody_signed_yet_are_said(night: Loop, work: Path) -> None:
    assert not any("starts after" in line for line in verify.verify(night.home).unknown)
    taken = snapshot.take(work, night.home.snapshots, 1 << 20)
    night.recorder.accept(taken, "under way", "f" * 16)
    assert any("1 starts after the last checkpoint" in line for line in verify.verify(night.home).unknown)


def test_the_table_of_a_tag_without_rows_is_none(night: Loop) -> None:
    night.ledger.begin_run("empty", "2026-01-01T00:00:00+00:00", "demo-1", "f" * 64)
    assert verify.verify(night.home).failures == []
    table = night.home.tag("empty") / "results.tsv"
    table.parent.mkdir()
    table.write_text("anything\n")
    assert verify.verify(night.home).failures == ["empty: results.tsv differs from the ledger"]


def test_references_that_could_not_be_read_before_are_a_failure(night: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody makes one malformed for a moment, and none is looked at."""
    strange = night.home.line / "refs" / "replace"
    files.write(strange, "x\n")
    real, read = GitLine.references, []

    def references(line: GitLine) -> dict[str, str]:
        read.append(1)
        if len(read) == 2:
            strange.unlink()
        return real(line)

    monkeypatch.setattr(GitLine, "references", references)
    assert verify.verify(night.home).failures == ["some references are no references"]


@pytest.mark.parametrize("name", ["ledger.sqlite", "ledger.sqlite-journal"])
def test_a_pipe_in_place_of_the_ledger_is_not_waited_for(night: Loop, name: str) -> None:
    night.ledger.close()
    place = night.home.root / name
    place.unlink(missing_ok=True)
    os.mkfifo(place)
    command = [sys.executable, "-m", "runner", "verify"]
    environment = {**os.environ, "GLOVEBOX_HOME": str(night.home.root)}
    done = subprocess.run(command, env=environment, capture_output=True, timeout=60, check=False, text=True)
    assert done.returncode == 1
    assert "not a regular file" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_name_of_a_tag_that_is_none_shows_nothing_of_its_own(night: Loop) -> None:
    night.ledger.close()
    with sqlite3.connect(night.home.ledger) as db:
        db.execute("UPDATE experiments SET tag = ? WHERE id = 12", ("\x1b]0;x\x07\x1b[2J",))
    found = verify.verify(night.home).failures
    assert any("tags it does not list" in line for line in found)
    assert all(line.isprintable() for line in found)


def test_an_artifact_of_another_size_is_not_read_to_its_end(night: Loop) -> None:
    path = next((night.home.store / "demo-1" / "train").glob("tokens*"))
    path.chmod(0o600)
    os.truncate(path, 8 << 40)
    assert any("altered train/tokens" in line for line in verify.verify(night.home).failures)


def test_a_first_start_that_came_to_nothing_leaves_nothing_to_complain_of(home: Home) -> None:
    """A ledger without a line: what is made first is made whole."""
    text = (SOURCE / "runner" / "rooms" / "desk" / "session.py").read_text()
    assert 0 < text.index("GitLine(home.line)") < text.index("Ledger(home.ledger)")
    GitLine(home.line)
    Ledger(home.ledger).close()
    assert verify.verify(home).failures == []


# What a fourth found: what a session signs without having seen it


def reruns_of(home: Home, tag: str, change: Callable[[dict[str, Any]], dict[str, Any]], *, ended: bool) -> int:
    """A rerun more in the ledger alone, made from the first; returns its number."""
    ledger = Ledger(home.ledger, read_only=True)
    told = json.loads(ledger.reruns(tag)[0].model_dump_json())
    number = max(one.id for one in ledger.reruns(tag)) + 1
    ledger.close()
    text = json.dumps(change({**told, "id": number, "during": 0, "seed": 1000, "run": "f" * 16}))
    with sqlite3.connect(home.ledger) as db:
        values = (tag, number, text, text if ended else None)
        db.execute("INSERT INTO reruns (tag, id, begun, row) VALUES (?, ?, ?, ?)", values)
    return number


@pytest.mark.parametrize("ended", [True, False])
def test_a_rerun_that_a_crash_ended_has_no_score(night: Loop, ended: bool) -> None:
    """Forged ones with a score, called interrupted, made a gain, or a verdict, and nobody said a word of them."""
    night.ledger.close()
    number = reruns_of(night.home, night.tag, lambda told: {**told, "val_bpb": 0.5, "reason": INTERRUPTED}, ended=ended)
    loop = standin.loop(night.home, driver.TAG, driver.SEED, driver.score)
    loop.recorder.reconcile()
    found = verify.verify(night.home).failures
    wanted = f"{night.tag} rerun {number}: a crash ended it, and it has an outcome"
    assert found == ([wanted] if ended else [])
    row = next(one for one in loop.ledger.reruns(night.tag) if one.id == number)
    assert (row.val_bpb, row.evaluation) == ((0.5, row.evaluation) if ended else (None, None))


def test_an_experiment_that_a_crash_ended_has_no_score(night: Loop) -> None:
    night.ledger.close()
    row = Ledger(night.home.ledger, read_only=True).experiments(night.tag)[3]
    text = row.model_copy(update={"reason": INTERRUPTED}).model_dump_json()
    with sqlite3.connect(night.home.ledger) as db:
        db.execute("UPDATE experiments SET row = ? WHERE id = ?", (text, row.id))
    assert any("a crash ended it, and it has an outcome" in line for line in verify.verify(night.home).failures)


@pytest.mark.parametrize("lasts", [False, True])
@pytest.mark.parametrize("kind", ["checkpoint", "finished", "accepted"])
def test_a_run_that_could_not_be_signed_is_before_the_next_is_entered(
    night: Loop, work: Path, monkeypatch: pytest.MonkeyPatch, lasts: bool, kind: str
) -> None:
    """The other lane went on: two runs under one signature, or in the ledger alone, failed verify for ever, or no
    session began any more."""
    real, failed = audit_chain.AuditLog._write, []

    def write(log: audit_chain.AuditLog, line: bytes) -> None:
        if f'"kind":"{kind}"'.encode() in line and (lasts or not failed):
            failed.append(1)
            raise GloveboxError("the audit log cannot be written", where="x", fix="y")
        real(log, line)

    monkeypatch.setattr(audit_chain.AuditLog, "_write", write)
    for number in (12, 13):  # one lane, and the other
        work.write_bytes(driver.candidate(night.best_source(), number))
        with pytest.raises(GloveboxError, match="cannot be written") if lasts or number == 12 else nullcontext():
            night.experiment(work, f"lane {number}")
    monkeypatch.undo()
    night.ledger.close()
    loop = standin.loop(night.home, driver.TAG, driver.SEED, driver.score)
    loop.recorder.reconcile()
    go_on(loop, work, 16)
    assert verify.verify(night.home).failures == []


def test_a_row_that_somebody_changes_before_it_is_vouched_for_is_found(
    night: Loop, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hash was of what the ledger said by then, not of what we had written."""
    real = Ledger.close_experiment

    def close(ledger: Ledger, row: Experiment) -> None:
        real(ledger, row)
        changed = row.model_copy(update={"memory_gb": 77.0}).model_dump_json()
        with sqlite3.connect(night.home.ledger) as db:
            db.execute("UPDATE experiments SET row = ? WHERE id = ?", (changed, row.id))

    monkeypatch.setattr(Ledger, "close_experiment", close)
    go_on(night, work, 13)
    assert any("experiment 13: the ledger row differs" in line for line in verify.verify(night.home).failures)


@pytest.mark.parametrize("begins", [True, False])
def test_a_session_that_cannot_begin_adds_nothing_to_the_record(
    night: Loop, work: Path, monkeypatch: pytest.MonkeyPatch, begins: bool
) -> None:
    """It closed what a crash had left before that was signed: verify failed for ever."""
    taken = snapshot.take(work, night.home.snapshots, 1 << 20)
    night.recorder.accept(taken, "another lane", "f" * 16)
    go_on(night, work, 14)
    text = night.home.audit.read_bytes()
    night.ledger.close()
    last = text.splitlines(keepends=True)[-1]
    assert b'"kind":"checkpoint"' in last
    night.home.audit.write_bytes(text[: -len(last)])  # killed before it was signed, with the other lane's row open

    def full(_: Home) -> None:
        raise GloveboxError("the disk is full", where="x", fix="y")

    if not begins:
        monkeypatch.setattr(session.disk_reserve, "hold", full)
    monkeypatch.setattr(session, "_work", lambda *_: lambda: 0)
    monkeypatch.setattr(Rooms, "check", lambda _: None)
    settings = Settings(
        home=str(night.home.root), tag=night.tag, doors=str(night.home.root / "doors"), seed=str(night.home.first())
    )
    before = night.home.audit.read_bytes()
    told: list[str] = []
    assert (session.run(settings, lambda event, data: told.append(f"{event} {data}")) == 0) is begins
    assert any("the disk is full" in line for line in told) is not begins
    assert (night.home.audit.read_bytes() == before) is not begins
    assert (Ledger(night.home.ledger, read_only=True).open_numbers(night.tag) == []) is begins
    assert verify.verify(night.home).failures == []


def test_starts_that_a_session_did_not_see_are_said_for_ever(night: Loop, work: Path) -> None:
    """Twenty forged open rows became twenty interrupted experiments, and nobody said a word of them."""
    log = audit_chain.AuditLog(night.home.audit)
    one = night.ledger.experiments(night.tag)[0]
    for number in (13, 14):
        values = {"started": "x", "description": "forged", "snapshot": one.snapshot, "size": one.snapshot_size}
        night.ledger.open_experiment(night.tag, **values, run=f"{number:016x}")  # type: ignore[arg-type]
        log.append(
            "accepted", {"tag": night.tag, "experiment": number, "snapshot": one.snapshot, "run": f"{number:016x}"}
        )
    night.ledger.close()
    loop = standin.loop(night.home, driver.TAG, driver.SEED, driver.score)
    loop.recorder.reconcile()
    found = verify.verify(night.home)
    assert found.failures == []
    assert any("2 starts were signed after a crash by a session that had not seen them" in x for x in found.unknown)


def test_a_session_does_not_go_on_after_a_checkpoint_that_is_not_its_benchs(night: Loop) -> None:
    log = audit_chain.AuditLog(night.home.audit)
    log.append("finished", {"tag": night.tag, "id": 13})
    log.append("checkpoint", {"n": log.last[0], "head": log.last[1], "signature": "0" * 128})
    with pytest.raises(VerifyError, match="not this bench's"):
        Sealer(night.home, "").seal(audit_chain.AuditLog(night.home.audit))
    with pytest.raises(VerifyError, match="not this bench's"):
        standin.loop(night.home, driver.TAG, driver.SEED, driver.score).recorder.reconcile()


@pytest.mark.parametrize("kind", [["finished"], {"a": 1}, None, 1, True])
def test_a_kind_that_is_no_word_is_passed_over(night: Loop, kind: object) -> None:
    audit_chain.AuditLog(night.home.audit).append(kind, {"tag": night.tag, "id": 99})  # type: ignore[arg-type]
    assert verify.verify(night.home).failures == []


def test_what_was_entered_after_a_crash_is_said_beyond_a_checkpoint_too(night: Loop) -> None:
    chain = lines(night.home)
    assert [entry["kind"] for entry in chain[-2:]] == ["finished", "checkpoint"]
    rewritten(night.home, chain[:-2], sealed=True)
    standin.loop(night.home, driver.TAG, driver.SEED, driver.score).recorder.reconcile()
    found = verify.verify(night.home)
    for since in (None, found.checkpoint):
        assert any(
            "1 experiments were entered from the ledger" in x for x in verify.verify(night.home, since=since).unknown
        )


def test_a_name_in_the_chain_is_a_tag_or_no_name() -> None:
    for tag in ("a\x1b[2J\nok\n", "\ud800", "x" * 41, "", "../x", None, 3):
        assert audit_chain.named({"kind": "finished", "data": {"tag": tag, "id": 1}}) is None
    assert audit_chain.named({"kind": "finished", "data": {"tag": "t", "id": True}}) is None
    assert audit_chain.named({"kind": "finished", "data": {"tag": "t", "id": 1}}) == (("t", 1), {"tag": "t", "id": 1})


# What a fourth found: what a session enters that it did not see


def two_ends(loop: Loop, work: Path) -> list[Callable[[], object]]:
    """Two lanes under way: what each does when its run ends."""
    ends: list[Callable[[], object]] = []
    for number in (13, 14):
        work.write_bytes(driver.candidate(loop.best_source(), number))
        taken = snapshot.take(work, loop.home.snapshots, 1 << 20)
        number = loop.recorder.accept(taken, "a lane", f"{number:016x}")
        row = loop.recorder._row(number, status=Status.CRASH, reason="exception", lane="")
        ends.append(partial(loop.recorder.commit, row, []))
    return ends


@pytest.mark.parametrize("lasts", [False, True])
def test_lanes_that_end_while_the_chain_cannot_be_written_leave_what_a_session_takes_up(
    night: Loop, work: Path, monkeypatch: pytest.MonkeyPatch, lasts: bool
) -> None:
    """Both rows were in the ledger alone, and no session began any more."""
    ends, failed = two_ends(night, work), []
    real = audit_chain.AuditLog._write

    def write(log: audit_chain.AuditLog, line: bytes) -> None:
        if lasts or not failed:
            failed.append(1)
            raise GloveboxError("the audit log cannot be written", where="x", fix="y")
        real(log, line)

    monkeypatch.setattr(audit_chain.AuditLog, "_write", write)
    with pytest.raises(GloveboxError, match="cannot be written"):
        ends[0]()
    with pytest.raises(GloveboxError, match="cannot be written") if lasts else nullcontext():
        ends[1]()
    monkeypatch.undo()
    assert len(night.ledger.open_numbers(night.tag)) == (1 if lasts else 0)
    night.ledger.close()
    loop = standin.loop(night.home, driver.TAG, driver.SEED, driver.score)
    loop.recorder.reconcile()
    go_on(loop, work, 17)
    assert verify.verify(night.home).failures == []


def forged_request(home: Home, tag: str, number: int, verb: Verb = "hint") -> None:
    """In the ledger alone."""
    made = Steer(
        **dict(request(verb, "2026-01-01T00:00:00+00:00", text="do this", experiment=0)),
        id=number,
        tag=tag,
        taken="2026-01-01T00:00:00+00:00",
        after=0,
    )
    Texts(Ledger(home.ledger)).add(made)


def test_requests_that_only_the_ledger_knows_are_refused_and_one_is_said_for_ever(night: Loop, work: Path) -> None:
    """Thirty of them, a veto among them, were signed by the next session without a word."""
    home = night.home
    night.ledger.close()
    shutil.copy(home.ledger, home.root / "kept")
    for number, verb in ((1, "hint"), (2, "veto")):
        forged_request(home, driver.TAG, number, verb)  # type: ignore[arg-type]
    before = home.audit.read_bytes()
    with pytest.raises(VerifyError, match="does not know 2 requests of tag faults: no crash leaves that"):
        standin.loop(home, driver.TAG, driver.SEED, driver.score).recorder.reconcile()
    assert home.audit.read_bytes() == before
    for name in ("ledger.sqlite-wal", "ledger.sqlite-shm"):
        (home.root / name).unlink(missing_ok=True)
    shutil.copy(home.root / "kept", home.ledger)
    forged_request(home, driver.TAG, 1)  # one is what a crash leaves
    loop = standin.loop(home, driver.TAG, driver.SEED, driver.score)
    loop.recorder.reconcile()
    go_on(loop, work, 14)
    found = verify.verify(home)
    assert found.failures == []
    assert any("1 starts were signed after a crash by a session that had not seen them" in x for x in found.unknown)


@pytest.mark.parametrize("column", ["started", "description"])
def test_a_start_that_was_changed_before_its_row_was_closed_is_found(night: Loop, work: Path, column: str) -> None:
    """While it was open verify said so; once a session had closed it, nothing did."""
    work.write_bytes(work.read_bytes() + b"# under way\n")
    taken = snapshot.take(work, night.home.snapshots, 1 << 20)
    night.recorder.accept(taken, "under way", "f" * 16)
    sql(night.home, f"UPDATE experiments SET {column} = 'FORGED' WHERE status IS NULL")
    night.ledger.close()
    loop = standin.loop(night.home, driver.TAG, driver.SEED, driver.score)
    loop.recorder.reconcile()
    assert loop.ledger.experiments(driver.TAG)[-1].reason == INTERRUPTED
    assert any("the audit chain does not know that it began" in line for line in verify.verify(night.home).failures)


def test_starts_that_only_the_ledger_knows_are_refused_and_one_is_said_for_ever(night: Loop, work: Path) -> None:
    taken = snapshot.take(work, night.home.snapshots, 1 << 20)
    begin = partial(night.ledger.open_experiment, night.tag, started="x", description="y", snapshot=taken.sha256)
    for number in range(2):
        begin(size=taken.size, run=f"{number:016x}")
    with pytest.raises(VerifyError, match="does not know 2 starts of tag faults: no crash leaves that"):
        standin.loop(night.home, driver.TAG, driver.SEED, driver.score).recorder.reconcile()
    sql(night.home, f"DELETE FROM experiments WHERE status IS NULL AND run = '{1:016x}'")
    night.ledger.close()
    loop = standin.loop(night.home, driver.TAG, driver.SEED, driver.score)
    loop.recorder.reconcile()
    go_on(loop, work, 14)
    found = verify.verify(night.home)
    assert found.failures == []
    assert any("1 experiments were begun and the audit chain does not know" in line for line in found.unknown)


def test_one_start_signs_no_more_than_one_run_that_nobody_saw(night: Loop, work: Path) -> None:
    """One unsigned at the chain's end, and one that only the ledger knows, were two."""
    chain = lines(night.home)
    ends = [at for at, entry in enumerate(chain) if entry["kind"] == "finished"]
    rewritten(night.home, chain[: ends[-2] + 1], sealed=True)
    assert lines(night.home)[-1]["kind"] == "finished"
    with pytest.raises(VerifyError, match="does not know 2 runs"):
        standin.loop(night.home, driver.TAG, driver.SEED, driver.score).recorder.reconcile()


def test_a_crash_in_another_tag_is_that_ones(night: Loop, work: Path) -> None:
    """This tag's row is not in the chain, and the chain ends with another's that is not signed: two crashes."""
    chain = lines(night.home)
    rewritten(night.home, chain[:-2], sealed=True)
    last = chain[-2]["data"] | {"tag": "other"}
    audit_chain.AuditLog(night.home.audit).append("finished", last)
    standin.loop(night.home, driver.TAG, driver.SEED, driver.score).recorder.reconcile()
