"""The ledger: rows are accepted once, completed once, and survive a dead runner."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from runner.core.base.errors import GloveboxError
from runner.core.base.values import Experiment, Status
from runner.core.decision import standing
from runner.core.evidence.ledger import Ledger, summary
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
        values = (number, row.run, row.status, row.val_bpb, row.model_dump_json(exclude={"lane", "pace", "hopeless"}))
        old.execute("INSERT INTO experiments VALUES ('t', ?, '', '', '', 1, ?, ?, ?, ?)", values)
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


def test_summary_has_the_published_fields(ledger: Ledger) -> None:
    accept(ledger, experiment(1))
    ledger.close_experiment(experiment(1))
    document = summary(ledger, "t")
    assert {"tag", "baseline", "best", "experiments"} <= set(document)
    (row,) = document["experiments"]  # type: ignore[misc]
    assert {"id", "status", "val_bpb", "claimed", "confirmed", "causality", "description", "seconds"} <= set(row)


def test_reading_before_the_first_run_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(GloveboxError, match="glovebox run"):
        Ledger(tmp_path / "none.sqlite", read_only=True)


def test_an_unknown_tag_says_so(ledger: Ledger) -> None:
    with pytest.raises(GloveboxError, match="nope"):
        summary(ledger, "nope")


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
