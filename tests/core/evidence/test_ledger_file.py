"""A bench that nobody may write to can still be looked at, and says what it is."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.core.base.errors import GloveboxError
from runner.core.base.mountable import SOURCE
from runner.core.evidence import ledger_file
from runner.core.evidence.ledger import Ledger


def unwritable(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a read-only file system: root may write into any folder, so the question is answered for it."""
    real: Callable[..., bool] = os.access
    monkeypatch.setattr(ledger_file.os, "access", lambda path, mode: mode != os.W_OK and real(path, mode))


def book(path: Path) -> Ledger:
    made = Ledger(path)
    made.begin_run("t", "", "demo-1", "p")
    return made


def test_it_is_read_as_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ledger.sqlite"
    book(path).close()
    unwritable(monkeypatch)
    assert Ledger(path, read_only=True).tags() == ["t"]
    assert [one.name for one in tmp_path.iterdir()] == [path.name]  # nothing was written beside it
    with pytest.raises(GloveboxError, match="the bench is read-only"):
        Ledger(path)


def test_what_is_not_merged_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ledger.sqlite"
    code = f"""
import os
from pathlib import Path
from runner.core.evidence.ledger import Ledger
book = Ledger(Path({str(path)!r}))
book.begin_run("t", "", "demo-1", "p")
os._exit(0)  # as one that was killed
"""
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(SOURCE)}, check=True)
    assert path.with_name(f"{path.name}-wal").stat().st_size
    unwritable(monkeypatch)
    assert Ledger(path, read_only=True).tags() == ["t"]
    path.with_name(f"{path.name}-shm").unlink()
    with pytest.raises(GloveboxError, match=r"left in the middle.*copy the bench"):
        Ledger(path, read_only=True)


@pytest.mark.parametrize(
    "change",
    [
        "CREATE TABLE runs2 AS SELECT * FROM runs; DROP TABLE runs; ALTER TABLE runs2 RENAME TO runs",
        "ALTER TABLE runs ADD COLUMN x INTEGER CHECK (length(hex(zeroblob(200000000))) > 0)",
        "ALTER TABLE reruns ADD COLUMN more TEXT",
    ],
)
def test_a_table_is_ours_to_the_letter_before_it_is_asked_anything(tmp_path: Path, change: str) -> None:
    """Without its types and keys a table holds what no reader expects, and a check of its own may take hours."""
    path = tmp_path / "ledger.sqlite"
    Ledger(path).close()
    with sqlite3.connect(path) as db:
        db.executescript(change)
    for read_only in (True, False):
        with pytest.raises(GloveboxError, match="not a usable ledger: holds a table that is not ours"):
            Ledger(path, read_only=read_only)


def test_tables_of_every_version_are_ours(tmp_path: Path) -> None:
    """As they were made, and as they are after what later ones added."""
    first = (
        "CREATE TABLE IF NOT EXISTS runs (\n tag TEXT PRIMARY KEY, started TEXT NOT NULL, artifact TEXT NOT NULL,"
        " policy TEXT NOT NULL\n) STRICT; CREATE TABLE IF NOT EXISTS experiments (\n tag TEXT NOT NULL REFERENCES"
        " runs(tag), id INTEGER NOT NULL,\n started TEXT NOT NULL, description TEXT NOT NULL, snapshot TEXT NOT NULL,"
        " snapshot_size INTEGER NOT NULL,\n run TEXT NOT NULL, status TEXT, val_bpb REAL, row TEXT,\n"
        " PRIMARY KEY (tag, id)\n) STRICT; PRAGMA user_version = 1;"
    )
    path = tmp_path / "ledger.sqlite"
    with sqlite3.connect(path) as db:
        db.executescript(first)
    Ledger(path, read_only=True).close()
    for _ in range(2):  # brought up to date, and opened again
        Ledger(path).close()
    Ledger(path, read_only=True).close()
