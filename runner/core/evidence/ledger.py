"""The ledger: SQLite (WAL) as the state of every run. TRUSTED; one writer, many readers.

Rows are written once when an experiment is accepted (status NULL) and completed once. A row that is
still open when a runner starts was interrupted; it is closed as a crash with reason `interrupted`.
"""

from __future__ import annotations

import json
import re
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from runner.core.base.errors import GloveboxError
from runner.core.base.launching import Frozen, RunId, Sha256
from runner.core.base.values import MAX_TAG, TAG_PATTERN, Experiment, Rerun, Status

_Row = TypeVar("_Row", bound=Frozen)
_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    tag TEXT PRIMARY KEY, started TEXT NOT NULL, artifact TEXT NOT NULL, policy TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS experiments (
    tag TEXT NOT NULL REFERENCES runs(tag), id INTEGER NOT NULL,
    started TEXT NOT NULL, description TEXT NOT NULL, snapshot TEXT NOT NULL, snapshot_size INTEGER NOT NULL,
    run TEXT NOT NULL, status TEXT, val_bpb REAL, row TEXT, done INTEGER,
    PRIMARY KEY (tag, id)
) STRICT;
CREATE TABLE IF NOT EXISTS reruns (
    tag TEXT NOT NULL REFERENCES runs(tag), id INTEGER NOT NULL, begun TEXT NOT NULL, row TEXT,
    PRIMARY KEY (tag, id)
) STRICT;
PRAGMA user_version = 3;
"""


_TABLES = ("runs", "experiments", "reruns")


class Opened(Frozen):
    """The part of a row that is known before anything runs."""

    id: int
    started: str
    description: str
    snapshot: Sha256
    snapshot_size: int
    run: RunId


class Ledger:
    """Runs and experiments of one bench."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        if read_only and not path.exists():
            raise GloveboxError("no experiment has been run yet", where=str(path), fix="run: glovebox run --tag NAME")
        self._known: dict[str, list[Experiment]] = {}
        self._lock = threading.RLock()  # the desk answers from several threads
        uri = f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}"
        try:
            self._open(uri, read_only)
        except sqlite3.DatabaseError as error:
            raise GloveboxError(
                f"not a usable ledger: {error}", where=str(path), fix="restore it from a backup: glovebox restore"
            ) from None

    def _open(self, uri: str, read_only: bool) -> None:
        self._db = sqlite3.connect(uri, uri=True, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA busy_timeout = 5000")
        (sound,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
        if sound != "ok":
            raise sqlite3.DatabaseError(sound)
        self._db.execute("PRAGMA trusted_schema = OFF")
        self._plain()
        if not read_only:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA foreign_keys = ON")
            self._db.executescript(_SCHEMA)
            self._upgrade()

    def _plain(self) -> None:
        """Refuse what lets a doctored database say this now and that later: views, triggers, computed columns."""
        for kind, name, text in self._db.execute("SELECT type, name, sql FROM sqlite_master").fetchall():
            ours = kind == "table" and name in _TABLES and str(text).upper().startswith("CREATE TABLE")
            if not ours and not (kind == "index" and str(name).startswith("sqlite_autoindex_")):
                raise sqlite3.DatabaseError(f"holds a {kind} that is not ours")
        for table in _TABLES:
            if any(row[6] for row in self._db.execute(f"PRAGMA table_xinfo({table})")):
                raise sqlite3.DatabaseError("holds a column that is not ours")

    def _upgrade(self) -> None:
        """A ledger of an older version ran one experiment at a time: they were done in the order of their numbers."""
        with self._transaction() as db:
            if not self._knows("experiments", "done"):
                db.execute("ALTER TABLE experiments ADD COLUMN done INTEGER")
                db.execute("UPDATE experiments SET done = id WHERE status IS NOT NULL")

    def _knows(self, table: str, column: str) -> bool:
        return column in {str(row[1]) for row in self._db.execute(f"PRAGMA table_info({table})")}

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def begin_run(self, tag: str, started: str, artifact: str, policy: str) -> None:
        """Record the tag, once; later runs of the same tag continue it."""
        with self._transaction() as db:
            db.execute("INSERT OR IGNORE INTO runs VALUES (?, ?, ?, ?)", (tag, started, artifact, policy))

    def open_experiment(self, tag: str, *, started: str, description: str, snapshot: str, size: int, run: str) -> int:
        """Accept an experiment; returns its number, from 1."""
        with self._transaction() as db:
            (last,) = db.execute("SELECT COALESCE(MAX(id), 0) FROM experiments WHERE tag = ?", (tag,)).fetchone()
            db.execute(
                "INSERT INTO experiments (tag, id, started, description, snapshot, snapshot_size, run)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (tag, last + 1, started, description, snapshot, size, run),
            )
        return int(last) + 1

    def close_experiment(self, experiment: Experiment) -> None:
        """Complete an open experiment; a second completion is refused."""
        with self._transaction() as db:
            tag = experiment.tag
            (last,) = db.execute("SELECT COALESCE(MAX(done), 0) FROM experiments WHERE tag = ?", (tag,)).fetchone()
            done = db.execute(
                "UPDATE experiments SET status = ?, val_bpb = ?, row = ?, done = ?"
                " WHERE tag = ? AND id = ? AND status IS NULL",
                (
                    experiment.status,
                    experiment.val_bpb,
                    experiment.model_dump_json(),
                    int(last) + 1,
                    experiment.tag,
                    experiment.id,
                ),
            )
            if done.rowcount != 1:
                raise GloveboxError(f"experiment {experiment.id} of {experiment.tag} is not open", where="ledger")

    def open_numbers(self, tag: str) -> list[int]:
        """Experiments that were accepted and not completed."""
        rows = self._db.execute("SELECT id FROM experiments WHERE tag = ? AND status IS NULL ORDER BY id", (tag,))
        return [int(number) for (number,) in rows]

    def opened(self, tag: str, number: int) -> Opened:
        """What was recorded when an experiment was accepted."""
        row = self._db.execute(
            "SELECT id, started, description, snapshot, snapshot_size, run FROM experiments WHERE tag = ? AND id = ?",
            (tag, number),
        ).fetchone()
        return _parsed(Opened, json.dumps(dict(zip(Opened.model_fields, row, strict=True))), tag)

    def experiments(self, tag: str) -> list[Experiment]:
        """Completed experiments in the order in which they were; several may be open at a time.

        A completed row never changes, so each is read and parsed once.
        """
        with self._lock:
            known = self._known.setdefault(tag, [])
            order = "done" if self._knows("experiments", "done") else "id"
            rows = self._db.execute(
                f"SELECT row FROM experiments WHERE tag = ? AND status IS NOT NULL AND {order} > ? ORDER BY {order}",  # noqa: S608
                (tag, len(known)),
            ).fetchall()
            known += [_parsed(Experiment, row, tag) for (row,) in rows]
            return list(known)

    def last_number(self, tag: str) -> int:
        """Number of the newest experiment, open or not; 0 if there is none."""
        (last,) = self._db.execute("SELECT COALESCE(MAX(id), 0) FROM experiments WHERE tag = ?", (tag,)).fetchone()
        return int(last)

    def open_rerun(self, begun: Rerun) -> Rerun:
        """Accept a rerun before it runs; returns it with its number, from 1 in each tag."""
        with self._transaction() as db:
            (last,) = db.execute("SELECT COALESCE(MAX(id), 0) FROM reruns WHERE tag = ?", (begun.tag,)).fetchone()
            numbered = begun.model_copy(update={"id": int(last) + 1})
            values = (numbered.tag, numbered.id, numbered.model_dump_json())
            db.execute("INSERT INTO reruns (tag, id, begun) VALUES (?, ?, ?)", values)
        return numbered

    def close_rerun(self, rerun: Rerun) -> None:
        """Complete an open rerun; a second completion is refused."""
        with self._transaction() as db:
            values = (rerun.model_dump_json(), rerun.tag, rerun.id)
            done = db.execute("UPDATE reruns SET row = ? WHERE tag = ? AND id = ? AND row IS NULL", values)
            if done.rowcount != 1:
                raise GloveboxError(f"rerun {rerun.id} of {rerun.tag} is not open", where="ledger")

    def reruns(self, tag: str) -> list[Rerun]:
        """Completed reruns in order."""
        return self._reruns("SELECT row FROM reruns WHERE tag = ? AND row IS NOT NULL ORDER BY id", tag)

    def open_reruns(self, tag: str) -> list[Rerun]:
        """Reruns that were accepted and not completed, as they were begun."""
        return self._reruns("SELECT begun FROM reruns WHERE tag = ? AND row IS NULL ORDER BY id", tag)

    def _reruns(self, query: str, tag: str) -> list[Rerun]:
        (known,) = self._db.execute("SELECT COUNT(*) FROM sqlite_master WHERE name = 'reruns'").fetchone()
        rows = self._db.execute(query, (tag,)).fetchall() if known else []  # none in a ledger of an older version
        return [_parsed(Rerun, row, tag) for (row,) in rows]

    def tags(self) -> list[str]:
        """All tags, newest first."""
        found = [str(tag) for (tag,) in self._db.execute("SELECT tag FROM runs ORDER BY rowid DESC")]
        if any(len(tag) > MAX_TAG or not re.fullmatch(TAG_PATTERN, tag) for tag in found):
            raise _malformed()
        return found

    def recorded(self, tag: str) -> dict[str, str] | None:
        """What a tag was begun with, None if it is new."""
        return self.run_info(tag) if tag in self.tags() else None

    def run_info(self, tag: str) -> dict[str, str]:
        """Start, artifact version and terms (policy.Policies.terms) of a tag."""
        row = self._db.execute("SELECT started, artifact, policy FROM runs WHERE tag = ?", (tag,)).fetchone()
        if row is None:
            raise GloveboxError(f"no run tagged {tag!r}", where="ledger", fix="see: glovebox status")
        return {"started": row[0], "artifact": row[1], "policy": row[2]}


def _parsed(model: type[_Row], text: str, tag: str) -> _Row:
    """A row as its type, which alone makes its tag, run, commit and hashes fit to be parts of paths and arguments."""
    try:
        row = model.model_validate_json(text)
    except ValidationError:
        raise _malformed() from None
    if getattr(row, "tag", tag) != tag:
        raise _malformed()
    return row


def _malformed() -> GloveboxError:
    return GloveboxError("a malformed row", where="ledger", fix="restore it from a backup: glovebox restore")


def summary(ledger: Ledger, tag: str) -> dict[str, object]:
    """What `glovebox status --json` prints for one tag."""
    rows = ledger.experiments(tag)
    scored = [e for e in rows if e.val_bpb is not None]
    keeps = [e for e in scored if e.status is Status.KEEP]
    return {
        "tag": tag,
        **ledger.run_info(tag),
        "baseline": keeps[0].val_bpb if keeps else None,
        "best": keeps[-1].val_bpb if keeps else None,
        "running": ledger.open_numbers(tag),
        "reruns": len(ledger.reruns(tag)),
        "experiments": [json.loads(e.model_dump_json()) for e in rows],
    }
