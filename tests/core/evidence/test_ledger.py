"""The ledger: rows are accepted once, completed once, and survive a dead runner."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from runner.core.base.errors import GloveboxError
from runner.core.base.values import Experiment, Rerun, Status
from runner.core.decision import standing
from runner.core.evidence import ledger_file
from runner.core.evidence.ledger import Ledger, Origin, start
from tests.samples import experiment


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    book = Ledger(tmp_path / "ledger.sqlite")
    book.begin_run("t", "2026-01-01T00:00:00+00:00", "demo-1", "f" * 64)
    return book


def accept(ledger: Ledger, row: Experiment) -> int:
    return ledger.open_experiment(
        row.tag, started=row.started, description=row.description, snapshot=row.snapshot, size=100, run=row.run
    )


def test_a_row_reads_back_as_it_was_written(ledger: Ledger) -> None:
    row = experiment(1)
    assert accept(ledger, row) == 1
    ledger.close_experiment(row)
    assert ledger.experiments("t") == [row]


def test_an_open_row_is_running_and_interrupted_until_completed(ledger: Ledger) -> None:
    accept(ledger, experiment(1))
    assert ledger.open_numbers("t") == [1]
    assert ledger.open_numbers("t") == [1]
    assert ledger.opened("t", 1).description == "idea 1"
    ledger.close_experiment(experiment(1, status=Status.CRASH, val_bpb=None, reason="interrupted"))
    assert ledger.open_numbers("t") == []
    assert ledger.open_numbers("t") == []


def test_a_row_cannot_be_completed_twice_or_without_being_open(ledger: Ledger) -> None:
    accept(ledger, experiment(1))
    ledger.close_experiment(experiment(1))
    for number in (1, 2):
        with pytest.raises(GloveboxError):
            ledger.close_experiment(experiment(number))


def test_rows_come_in_the_order_in_which_they_were_completed(ledger: Ledger, tmp_path: Path) -> None:
    """Lanes run several at a time: the frontier moves when an experiment ends, not when it begins."""
    for number in (1, 2, 3):
        accept(ledger, experiment(number))
    for number in (2, 3, 1):
        ledger.close_experiment(experiment(number))
        assert ledger.experiments("t")[-1].id == number
    for book in (ledger, Ledger(tmp_path / "ledger.sqlite", read_only=True)):
        assert [row.id for row in book.experiments("t")] == [2, 3, 1]
        best = standing.best(book.experiments("t"))
        assert best is not None
        assert best.id == 1


def test_a_ledger_from_before_lanes_is_read_and_continued(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    old = sqlite3.connect(path)
    old.executescript(
        "CREATE TABLE runs (tag TEXT PRIMARY KEY, started TEXT NOT NULL, artifact TEXT NOT NULL, policy TEXT NOT NULL)"
        " STRICT; CREATE TABLE experiments (tag TEXT NOT NULL REFERENCES runs(tag), id INTEGER NOT NULL,"
        " started TEXT NOT NULL, description TEXT NOT NULL, snapshot TEXT NOT NULL, snapshot_size INTEGER NOT NULL,"
        " run TEXT NOT NULL, status TEXT, val_bpb REAL, row TEXT, PRIMARY KEY (tag, id)) STRICT;"
        " INSERT INTO runs VALUES ('t', '', 'demo-1', 'p');"
    )
    for number in (1, 2):
        row = experiment(number)
        told = row.model_dump_json(exclude={"lane", "pace", "hopeless"})
        values = (number, row.started, row.description, row.snapshot, row.snapshot_size, row.run, row.status)
        old.execute("INSERT INTO experiments VALUES ('t', ?, ?, ?, ?, ?, ?, ?, ?, ?)", (*values, row.val_bpb, told))
    old.commit()
    old.close()
    assert [row.id for row in Ledger(path, read_only=True).experiments("t")] == [1, 2]  # without a migration
    book = Ledger(path)
    assert accept(book, experiment(3)) == 3
    book.close_experiment(experiment(3))
    assert [row.id for row in Ledger(path).experiments("t")] == [1, 2, 3]


def test_best_is_the_last_keep(ledger: Ledger) -> None:
    assert standing.best(ledger.experiments("t")) is None
    for row in (experiment(1), experiment(2), experiment(3, status=Status.DISCARD, val_bpb=1.0)):
        accept(ledger, row)
        ledger.close_experiment(row)
    best = standing.best(ledger.experiments("t"))
    assert best is not None
    assert best.val_bpb == experiment(2).val_bpb


def test_a_reader_sees_completed_rows_while_the_writer_is_open(ledger: Ledger, tmp_path: Path) -> None:
    accept(ledger, experiment(1))
    ledger.close_experiment(experiment(1))
    reader = Ledger(tmp_path / "ledger.sqlite", read_only=True)
    assert len(reader.experiments("t")) == 1
    with pytest.raises(Exception, match="readonly"):
        reader.begin_run("x", "", "", "")


def test_reading_before_the_first_run_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(GloveboxError, match="glovebox run"):
        Ledger(tmp_path / "none.sqlite", read_only=True)


def test_an_unknown_tag_says_so(ledger: Ledger) -> None:
    with pytest.raises(GloveboxError, match="nope"):
        start(ledger, "nope")


def test_rows_are_parsed_once_and_the_list_is_the_callers(ledger: Ledger) -> None:
    accept(ledger, experiment(1))
    ledger.close_experiment(experiment(1))
    first = ledger.experiments("t")
    first.clear()
    accept(ledger, experiment(2))
    ledger.close_experiment(experiment(2))
    again = ledger.experiments("t")
    assert [row.id for row in again] == [1, 2]
    assert ledger.experiments("t")[0] is again[0]


def test_many_threads_that_ask_at_once_see_each_row_once(tmp_path: Path) -> None:
    book = Ledger(tmp_path / "ledger.sqlite")
    book.begin_run("t", "2026-01-01T00:00:00+00:00", "demo-1", "f" * 64)
    over, wrong = threading.Event(), list[int]()

    def ask() -> None:
        while not over.is_set():
            numbers = [row.id for row in book.experiments("t")]
            if numbers != sorted(set(numbers)):
                wrong.append(len(numbers))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(1, 60):
        accept(book, experiment(number))
        book.close_experiment(experiment(number))
    over.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(book.experiments("t")) == 59


def version(path: Path) -> int:
    with sqlite3.connect(path) as db:
        return int(db.execute("PRAGMA user_version").fetchone()[0])


def test_an_older_ledger_is_brought_up_to_date_with_a_copy_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    book = Ledger(path)
    book.begin_run("t", "", "demo-1", "p")
    book.close()
    with sqlite3.connect(path) as db:
        for index in ledger_file.INDICES:
            db.execute(f"DROP INDEX {index}")
        db.execute("ALTER TABLE runs DROP COLUMN origin")
        db.execute("PRAGMA user_version = 3")
    assert Ledger(path, read_only=True).tags() == ["t"]  # as it is
    assert Ledger(path, read_only=True).origin("t") is None
    assert version(path) == 3
    Ledger(path).close()
    kept = tmp_path / "ledger.sqlite.version-3"
    assert (version(path), version(kept)) == (ledger_file.VERSION, 3)
    assert kept.stat().st_mode & 0o777 == 0o600
    assert Ledger(kept, read_only=True).tags() == ["t"]
    Ledger(path).close()  # once
    assert [one.name for one in tmp_path.glob("*version-?")] == [kept.name]


def test_a_newer_ledger_is_refused_and_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    Ledger(path).close()
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {ledger_file.VERSION + 1}")
    for read_only in (False, True):
        with pytest.raises(GloveboxError, match="newer glovebox"):
            Ledger(path, read_only=read_only)
    assert version(path) == ledger_file.VERSION + 1


@pytest.mark.parametrize(
    "doctored",
    [
        "CREATE INDEX experiments_more ON experiments (tag)",
        "DROP INDEX experiments_done; CREATE INDEX experiments_done ON experiments (tag, id)",
        "DROP INDEX experiments_done; CREATE INDEX experiments_done ON experiments (tag, done) WHERE done > 1",
    ],
)
def test_an_index_that_is_not_ours_is_refused(tmp_path: Path, doctored: str) -> None:
    path = tmp_path / "ledger.sqlite"
    Ledger(path).close()
    with sqlite3.connect(path) as db:
        db.executescript(doctored)
    with pytest.raises(GloveboxError, match="not ours"):
        Ledger(path)


def test_an_index_that_hides_a_row_is_noticed(ledger: Ledger, tmp_path: Path) -> None:
    """Its text is ours, its content is another's: what is read through it would lack an experiment."""
    for number in (1, 2):
        accept(ledger, experiment(number))
        ledger.close_experiment(experiment(number))
    assert ledger.sound()
    ledger.close()
    with sqlite3.connect(tmp_path / "ledger.sqlite") as db:
        db.execute("PRAGMA writable_schema = ON")
        index = "CREATE INDEX experiments_done ON experiments (tag, done)"
        partial = f"{index} WHERE id = 1"
        db.execute("DROP INDEX experiments_done")
        db.execute(partial)
        db.execute("UPDATE sqlite_master SET sql = ? WHERE name = 'experiments_done'", (index,))
    book = Ledger(tmp_path / "ledger.sqlite", read_only=True)
    assert not book.sound()


def test_reruns_that_end_out_of_order_are_all_there_in_the_order_of_their_numbers(ledger: Ledger) -> None:
    """Completed ones are read once; one that was open meanwhile must not be passed over."""
    opened = [ledger.open_rerun(rerun(0)) for _ in range(5)]
    seen = []
    for at in (0, 2, 3, 1, 4):
        ledger.close_rerun(opened[at].model_copy(update={"val_bpb": float(at)}))
        seen.append([one.id for one in ledger.reruns("t")])
    assert seen == [[1], [1, 3], [1, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4, 5]]
    assert [one.val_bpb for one in ledger.reruns("t")] == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_what_is_read_at_once_is_of_one_moment(ledger: Ledger, tmp_path: Path) -> None:
    reader = Ledger(tmp_path / "ledger.sqlite", read_only=True)
    with reader.at_once():
        assert reader.experiments("t") == []
        accept(ledger, experiment(1))
        ledger.close_experiment(experiment(1))
        assert reader.last_number("t") == 0
    assert reader.last_number("t") == 1


def test_a_tag_knows_whose_best_it_began_with(ledger: Ledger) -> None:
    origin = Origin(begun_from="t", experiment=7)
    ledger.begin_run("u", "", "demo-1", "p", origin)
    assert (ledger.origin("u"), ledger.origin("t")) == (origin, None)
    assert start(ledger, "u")["origin"] == {"begun_from": "t", "experiment": 7}


def rerun(number: int) -> Rerun:
    return Rerun(id=number, tag="t", experiment=1, during=1, seed=43, given=7, budget=1.0, artifact="demo-1",
                 snapshot="0" * 64, run="0" * 16, started="2026-01-01T00:00:00+00:00", status="scored")  # fmt: skip
