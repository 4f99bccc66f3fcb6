"""Signed checkpoints and a witness: twelve named tamperings, each found; and what cannot be found is said."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner.core.artifacts import keys, store
from runner.core.base.errors import GloveboxError, PolicyError
from runner.core.base.home import Home
from runner.core.base.launching import EndReason, EngineResult
from runner.core.base.values import Snapshot
from runner.core.evidence import audit_chain, checkpoints, verify
from runner.core.evidence.audit_chain import AuditLog
from runner.core.evidence.checkpoints import Sealer
from runner.core.evidence.git_line import GitLine
from runner.core.evidence.ledger import Ledger
from runner.core.evidence.recorder import Recorder
from runner.core.policy.policy_files import Policies
from tests.samples import experiment


@pytest.fixture
def witness(tmp_path: Path) -> Path:
    return tmp_path / "elsewhere.jsonl"


@pytest.fixture
def bench(home: Home, policies: Policies, witness: Path) -> Home:
    """Three recorded experiments, sealed and witnessed."""
    store.admit(home, "demo-1")
    ledger = Ledger(home.ledger)
    line, log = GitLine(home.line), AuditLog(home.audit)
    recorder = Recorder(home, "t", ledger, line, log, "demo-1", policies.digest, Sealer(home, str(witness)))
    recorder.begin("2026-01-01T00:00:00+00:00", policies.terms)
    home.snapshots.mkdir(exist_ok=True)
    for number in range(1, 4):
        import hashlib

        data = f"x = {number}\n".encode()
        digest = hashlib.sha256(data).hexdigest()
        path = home.snapshots / f"{digest}.py"
        path.write_bytes(data)
        row = experiment(number, snapshot=digest, commit=line.commit("t", number, data, "x"), snapshot_size=len(data))
        recorder.accept(Snapshot(sha256=digest, size=len(data), path=path), row.description, row.run)
        started = ledger.opened("t", number).started
        recorder.commit(row.model_copy(update={"started": started}), [ended(), ended()])
    ledger.close()
    return home


def ended(specification: str = "5" * 64) -> EngineResult:
    """A container that ran and was compared with its specification."""
    return EngineResult(
        exit_code=0, reason=EndReason.EXIT, oom=False, seconds=1.0, output_bytes=0, image="sha256:1", container="c",
        specification=specification,
    )  # fmt: skip


def failures(home: Home, witness: Path | None = None) -> list[str]:
    return verify.verify(home, witness).failures


def test_an_honest_bench_verifies_and_says_what_it_could_not_see(bench: Home, witness: Path) -> None:
    alone, both = verify.verify(bench), verify.verify(bench, witness)
    assert (alone.failures, both.failures) == ([], [])
    assert alone.checked["checkpoints"] == both.checked["witnessed checkpoints"] == 4
    assert any("no witness" in line for line in alone.unknown)
    assert not any("no witness" in line for line in both.unknown)


def entries(home: Home) -> list[dict[str, Any]]:
    return audit_chain.verify(home.audit)


def rewrite(home: Home, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    """Replace the chain by one whose hashes are right again, as somebody who can write the file would."""
    old = change(entries(home))
    home.audit.unlink()
    log = AuditLog(home.audit)
    for entry in old:
        log.append(entry["kind"], entry["data"])


def edit_score(chain: list[dict[str, Any]]) -> list[dict[str, Any]]:
    changed = json.loads(json.dumps(chain))
    changed[0]["data"]["val_bpb"] = 0.1
    return list(changed)


TAMPERINGS: dict[str, Callable[[Home], object]] = {
    "edit an entry": lambda h: h.audit.write_bytes(h.audit.read_bytes().replace(b'"keep"', b'"krep"', 1)),
    "edit an entry and mend the hashes": lambda h: rewrite(h, edit_score),
    "drop an entry": lambda h: h.audit.write_bytes(b"".join(h.audit.read_bytes().splitlines(True)[1:])),
    "drop an experiment and mend the hashes": lambda h: rewrite(h, lambda c: c[2:]),
    "reorder and mend the hashes": lambda h: rewrite(h, lambda c: [c[2], c[1], c[0], *c[3:]]),
    "append a forged experiment": lambda h: AuditLog(h.audit).append("finished", {"tag": "t", "id": 9}),
    "forge a checkpoint": lambda h: AuditLog(h.audit).append(
        audit_chain.CHECKPOINT, {"n": 5, "head": "0" * 64, "signature": "0" * 128}
    ),
    "change a ledger row": lambda h: _sql(h, "UPDATE experiments SET row = replace(row, '1.98', '0.98') WHERE id = 2"),
    "delete a ledger row": lambda h: _sql(h, "DELETE FROM experiments WHERE id = 2"),
    "change results.tsv": lambda h: (h.tag("t") / "results.tsv").write_text("nothing\n"),
    "change a snapshot": lambda h: _overwrite(next(h.snapshots.glob("*.py"))),
    "move the branch": lambda h: GitLine(h.line).advance("t", _first_commit(h)),
    "change the artifact": lambda h: _overwrite(h.store / "demo-1" / "val" / "rows.npy"),
    "replace the audit key": lambda h: (h.audit_key.unlink(), keys.create_audit_key(h), _reseal(h)),
}


def _sql(home: Home, statement: str) -> None:
    import sqlite3

    db = sqlite3.connect(home.ledger)
    db.execute(statement)
    db.commit()
    db.close()


def _overwrite(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(b"#" + path.read_bytes()[1:])


def _first_commit(home: Home) -> str:
    return Ledger(home.ledger, read_only=True).experiments("t")[0].commit


def _reseal(home: Home) -> None:
    kept = [entry for entry in entries(home) if entry["kind"] != audit_chain.CHECKPOINT]
    home.audit.unlink()
    log, sealer = AuditLog(home.audit), Sealer(home, "")
    for entry in kept:
        log.append(entry["kind"], entry["data"])
        sealer.seal(log)


@pytest.mark.parametrize("name", TAMPERINGS)
def test_a_tampering_is_found_without_a_witness(bench: Home, name: str) -> None:
    assert failures(bench) == []
    TAMPERINGS[name](bench)
    assert failures(bench), name


def test_a_cut_end_is_found_by_the_witness_and_only_by_it(bench: Home, witness: Path) -> None:
    lines = bench.audit.read_bytes().splitlines(True)
    bench.audit.write_bytes(b"".join(lines[:-3]))  # that it began, that it ended, and the checkpoint
    _sql(bench, "DELETE FROM experiments WHERE id = 3")
    GitLine(bench.line).advance("t", Ledger(bench.ledger, read_only=True).experiments("t")[-1].commit)
    tsv = bench.tag("t") / "results.tsv"
    tsv.write_text("".join(tsv.read_text().splitlines(True)[:-1]))
    assert failures(bench) == ["a reference that is none of ours: refs/experiments/t/3"]
    (bench.line / "refs/experiments/t/3").unlink()  # who thinks of that, too, has cut the whole end
    assert failures(bench) == []
    assert any("cut, rolled back or replaced" in line for line in failures(bench, witness))


def test_an_older_copy_of_the_whole_bench_is_found_by_the_witness(bench: Home, witness: Path, tmp_path: Path) -> None:
    backup = tmp_path / "backup.jsonl"
    shutil.copy(bench.audit, backup)
    log = AuditLog(bench.audit)
    log.append("refused", {"tag": "t", "reason": "x"})
    Sealer(bench, str(witness)).seal(log)
    assert failures(bench, witness) == []
    shutil.copy(backup, bench.audit)
    assert failures(bench) == []
    assert failures(bench, witness)


def test_a_fork_is_found_by_the_witness(bench: Home, witness: Path) -> None:
    bench.audit.write_bytes(b"".join(bench.audit.read_bytes().splitlines(keepends=True)[:5]))  # whoever holds the key
    log = AuditLog(bench.audit)
    for _ in range(2):
        log.append("finished", {"tag": "t", "id": 3, "forked": True})
        Sealer(bench, "").seal(log)
    assert any("the witness saw another" in line for line in failures(bench, witness))


def test_a_witness_of_another_bench_or_of_nothing_is_no_witness(bench: Home, witness: Path, tmp_path: Path) -> None:
    witness.write_text(witness.read_text().replace(bench.id, "f" * 16))
    assert failures(bench, witness) == []  # the same bench restored elsewhere: it has the key
    witness.write_text(re.sub(r'"signature":"\w\w', '"signature":"00', witness.read_text()))
    assert any("knows no checkpoint" in line for line in failures(bench, witness))
    witness.write_text("nonsense\n")
    assert failures(bench, witness)
    with pytest.raises(GloveboxError, match="cannot be read"):
        verify.verify(bench, tmp_path / "none")


def test_whose_a_line_is_costs_one_look_for_each_other_bench(
    bench: Home, witness: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A witness of ten lanes and a year has millions of lines that are not ours."""
    others = [line.replace(bench.id, f"{number % 3:016x}") for number in range(300) for line in [first(witness)]]
    forged = [re.sub(r'"signature":"\w\w', '"signature":"00', line) for line in others]
    witness.write_text(witness.read_text() + "".join(forged))
    real, looks = checkpoints._holds, []
    monkeypatch.setattr(checkpoints, "_holds", lambda *given: looks.append(1) or real(*given))
    seen, wrong = checkpoints.against_witness(
        bench, {entry["n"]: entry["hash"] for entry in entries(bench)}, keys.trust(bench).audit, witness, 1 << 20
    )
    assert (seen, wrong) == (4, [])
    assert len(looks) == 4 + 3


def first(path: Path) -> str:
    return path.read_text().splitlines(keepends=True)[0]


def test_a_witness_that_cannot_be_written_stops_the_run(bench: Home, tmp_path: Path) -> None:
    log = AuditLog(bench.audit)
    log.append("refused", {})
    with pytest.raises(GloveboxError, match=r"policies/audit\.yaml"):
        Sealer(bench, str(tmp_path / "no" / "such" / "folder")).seal(log)


def test_a_chain_that_ends_in_a_checkpoint_is_not_sealed_twice(bench: Home) -> None:
    before = len(entries(bench))
    Sealer(bench, "").seal(AuditLog(bench.audit))
    assert len(entries(bench)) == before


def test_without_its_key_a_bench_does_not_begin(bench: Home) -> None:
    bench.audit_key.unlink()
    with pytest.raises(PolicyError, match="audit key"):
        Sealer(bench, "")
    assert keys.trust(bench).audit


def recorder(bench: Home, policies: Policies) -> Recorder:
    ledger, line = Ledger(bench.ledger), GitLine(bench.line)
    return Recorder(bench, "t", ledger, line, AuditLog(bench.audit), "demo-1", policies.digest, Sealer(bench, ""))


def test_a_second_end_of_an_experiment_is_found_even_after_the_runner_has_sealed_it(
    bench: Home, policies: Policies
) -> None:
    """Somebody rewrites a score and appends an entry that fits it: no key is needed for that."""
    from runner.core.evidence import receipts, results_tsv

    forged = Ledger(bench.ledger).experiments("t")[1].model_copy(update={"val_bpb": 0.5})
    with sqlite3.connect(bench.ledger) as database:
        database.execute("UPDATE experiments SET val_bpb = 0.5, row = ? WHERE id = 2", (forged.model_dump_json(),))
    AuditLog(bench.audit).append(
        "finished", receipts.receipt(forged, Ledger(bench.ledger).digest("t", 2), [ended(), ended()], None)
    )
    results_tsv.write(bench.tag("t") / "results.tsv", Ledger(bench.ledger).experiments("t"))
    assert any("finishes an experiment twice" in failure for failure in failures(bench))
    recorder(bench, policies).reconcile()
    assert any("finishes an experiment twice" in failure for failure in failures(bench))


def test_a_row_that_never_ran_is_found_even_after_the_runner_has_sealed_it(bench: Home, policies: Policies) -> None:
    row = Ledger(bench.ledger).experiments("t")[2].model_copy(update={"id": 4, "val_bpb": 0.1})
    with sqlite3.connect(bench.ledger) as database:
        columns = [name for _, name, *_ in database.execute("PRAGMA table_info(experiments)")]
        values = dict(zip(columns, database.execute("SELECT * FROM experiments WHERE id = 3").fetchone(), strict=True))
        values |= {"id": 4, "val_bpb": 0.1, "row": row.model_dump_json(), "done": 4}
        marks = ", ".join("?" * len(columns))
        database.execute(f"INSERT INTO experiments VALUES ({marks})", tuple(values[name] for name in columns))
    recorder(bench, policies).reconcile()
    outcome = verify.verify(bench)
    assert any("does not know that it began" in failure for failure in outcome.failures)
    assert any("entered from the ledger after a crash" in line for line in outcome.unknown)


def test_a_row_whose_end_a_crash_took_away_is_no_failure_but_said(bench: Home, policies: Policies) -> None:
    """The runner died between ledger and chain: the same rows, the last `finished` entry and all after it missing."""
    lines = bench.audit.read_bytes().splitlines(keepends=True)
    last = max(i for i, line in enumerate(lines) if b'"kind":"finished"' in line)
    bench.audit.write_bytes(b"".join(lines[:last]))
    recorder(bench, policies).reconcile()
    outcome = verify.verify(bench)
    assert outcome.failures == []
    assert any("1 experiments were entered from the ledger" in line for line in outcome.unknown)
