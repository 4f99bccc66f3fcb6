"""The ledger: SQLite (WAL) as the state of every run. TRUSTED; one writer, many readers.

Rows are written once when an experiment is accepted (status NULL) and completed once. A row that is
still open when a runner starts was interrupted; it is closed as a crash with reason `interrupted`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from runner.core.base.errors import GloveboxError, UsageError
from runner.core.base.launching import Frozen, RunId, Sha256
from runner.core.base.values import INTERRUPTED, MAX_TAG, TAG_PATTERN, Experiment, Rerun, Status, Tag
from runner.core.evidence import ledger_file

_BESIDE = ("id", "run", "status", "val_bpb")  # columns that are used beside a row's text
_OPENED = ("started", "description", "snapshot", "snapshot_size")  # those it was opened with
_STAYS = set(Rerun.model_fields) - {  # of a rerun that was begun: what stays as it is
    "status", "reason", "val_bpb", "memory_gb", "neighbours", "speed", "seconds", "evaluation",
}  # fmt: skip
_NAMED = 10  # tags that are named to whoever asked for another
_Row = TypeVar("_Row", bound=Frozen)


class Opened(Frozen):
    """The part of a row that is known before anything runs."""

    id: int
    started: str
    description: str
    snapshot: Sha256
    snapshot_size: int
    run: RunId


class Glance(Frozen):
    """What a list of tags shows of each."""

    experiments: int
    kept: int
    baseline: float | None
    best: float | None


class Origin(Frozen):
    """The experiment that another tag begins with."""

    begun_from: Tag
    experiment: int


class Ledger:
    """Runs and experiments of one bench."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        if read_only and not path.exists():
            raise UsageError("no experiment has been run yet", where=str(path), fix="run: glovebox run --tag NAME")
        self._known: dict[str, list[Experiment]] = {}
        self._again: dict[str, list[Rerun]] = {}
        self._lock = threading.RLock()  # the desk answers from several threads
        try:
            self._db = ledger_file.connect(path, read_only=read_only)
        except sqlite3.DatabaseError as error:
            raise GloveboxError(
                f"not a usable ledger: {error}", where=str(path), fix="restore it from a backup: glovebox restore"
            ) from None
        self._order = "done" if ledger_file.knows(self._db, "experiments", "done") else "id"

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def sound(self) -> bool:
        """Whether indices say what their tables say (verify; opening looks at the tables alone)."""
        return self.read("PRAGMA integrity_check(1)") == [("ok",)]

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """What is read within is of one moment, whatever other processes write meanwhile."""
        with self._lock:
            if self._db.in_transaction:
                yield
                return
            self._db.execute("BEGIN")
            try:
                yield
            finally:
                self._db.execute("ROLLBACK")

    def read(self, query: str, *values: Any) -> list[Any]:
        """All rows of a query; the lock keeps it out of another thread's transaction."""
        with self._lock:
            return self._db.execute(query, values).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All that is written within, or nothing of it."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def begin_run(self, tag: str, started: str, artifact: str, policy: str, origin: Origin | None = None) -> None:
        """Record the tag, once; later runs of the same tag continue it. `origin`: whose best it begins with.

        A tag begins with its first experiment: what a start that came to nothing recorded gives way.
        """
        link = None if origin is None else origin.model_dump_json()
        with self.transaction() as db:
            db.execute("DELETE FROM runs WHERE tag = ? AND tag NOT IN (SELECT tag FROM experiments)", (tag,))
            values = (tag, started, artifact, policy, link)
            db.execute(
                "INSERT OR IGNORE INTO runs (tag, started, artifact, policy, origin) VALUES (?, ?, ?, ?, ?)", values
            )

    def forget(self, tag: str) -> None:
        """Remove a tag that never had an experiment; raises UsageError for one that had."""
        with self.transaction() as db:
            unused = "tag = ? AND tag NOT IN (SELECT tag FROM experiments) AND tag NOT IN (SELECT tag FROM reruns)"
            if db.execute(f"DELETE FROM runs WHERE {unused}", (tag,)).rowcount != 1:  # noqa: S608
                raise UsageError(f"tag {tag} has experiments", where="ledger", fix="glovebox tags archive")

    def origin(self, tag: str) -> Origin | None:
        """The experiment of another tag that a tag begins with, None if it begins with the bench's seed."""
        if not ledger_file.knows(self._db, "runs", "origin"):
            return None
        rows = self.read("SELECT origin FROM runs WHERE tag = ? AND origin IS NOT NULL", tag)
        return _parsed(Origin, rows[0][0], tag) if rows else None

    def open_experiment(self, tag: str, *, started: str, description: str, snapshot: str, size: int, run: str) -> int:
        """Accept an experiment; returns its number, from 1."""
        with self.transaction() as db:
            (last,) = db.execute("SELECT COALESCE(MAX(id), 0) FROM experiments WHERE tag = ?", (tag,)).fetchone()
            db.execute(
                "INSERT INTO experiments (tag, id, started, description, snapshot, snapshot_size, run)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (tag, last + 1, started, description, snapshot, size, run),
            )
        return int(last) + 1

    def close_experiment(self, experiment: Experiment) -> None:
        """Complete an open experiment; a second completion is refused."""
        with self.transaction() as db:
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
        rows = self.read("SELECT id FROM experiments WHERE tag = ? AND status IS NULL ORDER BY id", tag)
        return [int(number) for (number,) in rows]

    def opened(self, tag: str, number: int) -> Opened:
        """What was recorded when an experiment was accepted."""
        (row,) = self.read(
            "SELECT id, started, description, snapshot, snapshot_size, run FROM experiments WHERE tag = ? AND id = ?",
            tag,
            number,
        )
        return _parsed(Opened, json.dumps(dict(zip(Opened.model_fields, row, strict=True))), tag)

    def experiments(self, tag: str) -> list[Experiment]:
        """Completed experiments in the order in which they were; several may be open at a time.

        A completed row never changes, so each is read and parsed once.
        """
        with self._lock:
            known = self._known.setdefault(tag, [])
            if self._order == "id":  # a writer may have extended it since
                self._order = "done" if ledger_file.knows(self._db, "experiments", "done") else "id"
            order = self._order
            rows = self.read(
                f"SELECT {', '.join(_BESIDE)}, {order}, row FROM experiments"  # noqa: S608
                f" WHERE tag = ? AND status IS NOT NULL AND {order} > ? ORDER BY {order}",
                tag,
                len(known),
            )
            for *columns, done, text in rows:
                row = _parsed(Experiment, text, tag)
                known.append(row)
                if columns != [getattr(row, name) for name in _BESIDE] or (order == "done" and done != len(known)):
                    self._known.pop(tag)
                    raise _malformed()
            return list(known)

    def odd(self, tag: str) -> list[str]:
        """Completed experiments and reruns that say of their start something else than what was recorded then."""
        columns = self.read(f"SELECT id, {', '.join(_OPENED)} FROM experiments WHERE tag = ?", tag)  # noqa: S608
        opened = {number: tuple(told) for number, *told in columns}
        rows = [row for row in self.experiments(tag) if opened[row.id] != tuple(getattr(row, name) for name in _OPENED)]
        begun = dict(self._reruns_of("SELECT id, begun FROM reruns WHERE tag = ?", tag))
        reruns = [one for one in self.reruns(tag) if not _same_start(one, _parsed(Rerun, begun[one.id], tag))]
        return [f"experiment {row.id}" for row in rows] + [f"rerun {one.id}" for one in reruns]

    def digests(self, tag: str) -> dict[int, str]:
        """SHA-256 of each completed row's text, by its number."""
        rows = self.read("SELECT id, row FROM experiments WHERE tag = ? AND status IS NOT NULL", tag)
        return {int(number): text_digest(text) for number, text in rows}

    def digest(self, tag: str, number: int) -> str:
        """That of one completed row."""
        ((text,),) = self.read("SELECT row FROM experiments WHERE tag = ? AND id = ?", tag, number)
        return text_digest(text)

    def strays(self) -> list[str]:
        """Tags that experiments or reruns name and that were never begun."""
        found = self.read("SELECT DISTINCT tag FROM experiments WHERE tag NOT IN (SELECT tag FROM runs)")
        found += self._reruns_of("SELECT DISTINCT tag FROM reruns WHERE tag NOT IN (SELECT tag FROM runs)")
        return sorted({ascii(str(tag)[:MAX_TAG])[1:-1] for (tag,) in found})

    def last_number(self, tag: str) -> int:
        """Number of the newest experiment, open or not; 0 if there is none."""
        ((last,),) = self.read("SELECT COALESCE(MAX(id), 0) FROM experiments WHERE tag = ?", tag)
        return int(last)

    def open_rerun(self, begun: Rerun) -> Rerun:
        """Accept a rerun before it runs; returns it with its number, from 1 in each tag."""
        with self.transaction() as db:
            (last,) = db.execute("SELECT COALESCE(MAX(id), 0) FROM reruns WHERE tag = ?", (begun.tag,)).fetchone()
            numbered = begun.model_copy(update={"id": int(last) + 1})
            values = (numbered.tag, numbered.id, numbered.model_dump_json())
            db.execute("INSERT INTO reruns (tag, id, begun) VALUES (?, ?, ?)", values)
        return numbered

    def close_rerun(self, rerun: Rerun) -> None:
        """Complete an open rerun; a second completion is refused."""
        with self.transaction() as db:
            values = (rerun.model_dump_json(), rerun.tag, rerun.id)
            done = db.execute("UPDATE reruns SET row = ? WHERE tag = ? AND id = ? AND row IS NULL", values)
            if done.rowcount != 1:
                raise GloveboxError(f"rerun {rerun.id} of {rerun.tag} is not open", where="ledger")

    def reruns(self, tag: str) -> list[Rerun]:
        """Completed reruns in the order of their numbers.

        One that is completed never changes; those before the first that is open are read and parsed once.
        """
        with self._lock:
            known = self._again.setdefault(tag, [])
            after = known[-1].id if known else 0
            rows = self._reruns_of("SELECT id, row FROM reruns WHERE tag = ? AND id > ? ORDER BY id", tag, after)
            settled = list(itertools.takewhile(lambda row: row[1] is not None, rows))
            known += [_rerun(tag, *row) for row in settled]
            return known + [_rerun(tag, *row) for row in rows[len(settled) :] if row[1] is not None]

    def open_reruns(self, tag: str) -> list[Rerun]:
        """Reruns that were accepted and not completed, as they were begun."""
        rows = self._reruns_of("SELECT begun FROM reruns WHERE tag = ? AND row IS NULL ORDER BY id", tag)
        return [_parsed(Rerun, row, tag) for (row,) in rows]

    def _reruns_of(self, query: str, *values: Any) -> list[Any]:
        """Rows of a query about reruns; none in a ledger that is older than they are."""
        return self.read(query, *values) if self.knows("reruns", "row") else []

    def knows(self, table: str, column: str) -> bool:
        """Whether there is such a column; a ledger that is only read may be older than it."""
        return ledger_file.knows(self._db, table, column)

    def tags(self) -> list[str]:
        """All tags, newest first."""
        found = [str(tag) for (tag,) in self.read("SELECT tag FROM runs ORDER BY rowid DESC")]
        if any(len(tag) > MAX_TAG or not re.fullmatch(TAG_PATTERN, tag) for tag in found):
            raise _malformed()
        return found

    def glance(self, tag: str) -> Glance:
        """A tag's figures without its rows, of which there may be thousands."""
        with self.at_once():
            count = self.read("SELECT COUNT(*) FROM experiments WHERE tag = ? AND status IS NOT NULL", tag)[0][0]
            keeps = self.read(
                f"SELECT val_bpb FROM experiments WHERE tag = ? AND status = 'keep' ORDER BY {self._order}",  # noqa: S608
                tag,
            )
        first, last = (keeps[0][0], keeps[-1][0]) if keeps else (None, None)
        told = {"experiments": count, "kept": len(keeps), "baseline": first, "best": last}
        return _parsed(Glance, json.dumps(told, default=str), tag)

    def latest(self) -> str | None:
        """The tag whose experiment was the last to begin; None before the first."""
        rows = self.read("SELECT tag FROM experiments ORDER BY rowid DESC LIMIT 1")
        return str(rows[0][0]) if rows else None

    def recorded(self, tag: str) -> dict[str, str] | None:
        """What a tag was begun with, None if it is new."""
        return self.run_info(tag) if self.begun(tag) and tag in self.tags() else None

    def begun(self, tag: str) -> bool:
        """Whether an experiment of a tag was accepted."""
        return bool(self.read("SELECT 1 FROM experiments WHERE tag = ? LIMIT 1", tag))

    def run_info(self, tag: str) -> dict[str, str]:
        """Start, artifact version and terms (policy.Policies.terms) of a tag."""
        rows = self.read("SELECT started, artifact, policy FROM runs WHERE tag = ?", tag)
        if not rows:
            known = ", ".join(self.tags()[:_NAMED]) or "none yet"
            raise UsageError(f"no tag {tag}", where="ledger", fix=f"tags: {known}")
        (row,) = rows
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


def _rerun(tag: str, number: int, text: str) -> Rerun:
    row = _parsed(Rerun, text, tag)
    if row.id != number:
        raise _malformed()
    return row


def text_digest(text: str) -> str:
    """SHA-256 of a row's text."""
    return hashlib.sha256(text.encode()).hexdigest()


def interrupted(begun: Rerun) -> Rerun:
    """How a rerun ends that a crash ended: with nothing but its start."""
    return Rerun(**begun.model_dump(include=_STAYS), status=Status.CRASH, reason=INTERRUPTED)


def _same_start(ended: Rerun, begun: Rerun) -> bool:
    return ended.model_dump(include=_STAYS) == begun.model_dump(include=_STAYS)


def _malformed() -> GloveboxError:
    return GloveboxError("a malformed row", where="ledger", fix="restore it from a backup: glovebox restore")


def start(ledger: Ledger, tag: str) -> dict[str, Any]:
    """All that was recorded when a tag began; what the audit chain has of it, too."""
    origin = ledger.origin(tag)
    return {"tag": tag, **ledger.run_info(tag), "origin": None if origin is None else origin.model_dump(mode="json")}
