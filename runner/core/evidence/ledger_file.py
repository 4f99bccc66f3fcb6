"""The ledger's database file: schema and version, and what is refused of a file that a stranger may have made. TRUSTED.

A ledger of an older version is read as it is; who may write it is given a copy beside it first. One of a newer version
is refused: what it says may mean something else.
"""

from __future__ import annotations

import errno
import os
import re
import sqlite3
import stat
from pathlib import Path

from runner.core.base import files
from runner.core.base.errors import GloveboxError

# PRAGMA user_version; 1 had no lanes, 2 no reruns, 3 no indices and no origin of a tag, 4 no texts, 5 no holdout.
VERSION = 6
TABLES = {
    "runs": (
        "CREATE TABLE IF NOT EXISTS runs ("
        "tag TEXT PRIMARY KEY, started TEXT NOT NULL, artifact TEXT NOT NULL, policy TEXT NOT NULL, origin TEXT) STRICT"
    ),
    "experiments": (
        "CREATE TABLE IF NOT EXISTS experiments ("
        "tag TEXT NOT NULL REFERENCES runs(tag), id INTEGER NOT NULL, started TEXT NOT NULL, description TEXT NOT NULL,"
        " snapshot TEXT NOT NULL, snapshot_size INTEGER NOT NULL, run TEXT NOT NULL, status TEXT, val_bpb REAL,"
        " row TEXT, done INTEGER, PRIMARY KEY (tag, id)) STRICT"
    ),
    "reruns": (
        "CREATE TABLE IF NOT EXISTS reruns (tag TEXT NOT NULL REFERENCES runs(tag), id INTEGER NOT NULL,"
        " begun TEXT NOT NULL, row TEXT, PRIMARY KEY (tag, id)) STRICT"
    ),
    "texts": "CREATE TABLE IF NOT EXISTS texts (digest TEXT PRIMARY KEY, text TEXT NOT NULL) STRICT",
    "notebooks": "CREATE TABLE IF NOT EXISTS notebooks (tag TEXT PRIMARY KEY, text TEXT NOT NULL) STRICT",
    "steers": (
        "CREATE TABLE IF NOT EXISTS steers (tag TEXT NOT NULL, id INTEGER NOT NULL, request TEXT NOT NULL UNIQUE,"
        " row TEXT NOT NULL, PRIMARY KEY (tag, id)) STRICT"
    ),
}
# Without them the next row costs a look at all rows before it. Their text is compared: what an index says could differ
# from its table, which `verify` looks for (integrity_check).
INDICES = {
    "experiments_done": "CREATE INDEX experiments_done ON experiments (tag, done)",
    "experiments_open": "CREATE INDEX experiments_open ON experiments (tag, id) WHERE status IS NULL",
    "reruns_open": "CREATE INDEX reruns_open ON reruns (tag, id) WHERE row IS NULL",
}


def _solid(text: str) -> str:
    return re.sub(r"\s+", "", text).replace("IFNOTEXISTS", "")


# Tables without white space: as they are made now, as older versions made them, and as they are after what
# _bring_up_to_date adds to those.
_FORMS = {name: {_solid(text)} for name, text in TABLES.items()}
_FORMS["runs"] |= {text.replace(",originTEXT", "") for text in _FORMS["runs"]}
_FORMS["experiments"] |= {text.replace("doneINTEGER,", "") for text in _FORMS["experiments"]}
_FORMS["experiments"] |= {
    text.replace(")STRICT", ",doneINTEGER)STRICT") for text in _FORMS["experiments"] if "done" not in text
}
_FIRST = {"runs", "experiments"}  # tables of every version


def connect(path: Path, *, read_only: bool) -> sqlite3.Connection:
    """The database, checked and, for a writer, brought up to date; raises GloveboxError, sqlite3.DatabaseError."""
    _plain(path)
    uri = f"{path.absolute().as_uri()}?{way(path, read_only=read_only)}"
    db = sqlite3.connect(uri, uri=True, check_same_thread=False, isolation_level=None)
    try:
        _check(db, path, read_only=read_only)
        if not read_only:
            _bring_up_to_date(db, path)
    except BaseException:
        db.close()
        raise
    return db


def _plain(path: Path) -> None:
    """Refuse what is no file in place of the database or of SQLite's own beside it: a pipe would be waited for."""
    for name in ("", "-wal", "-shm", "-journal"):
        place = path.with_name(path.name + name)
        try:
            kind = os.stat(place).st_mode
        except FileNotFoundError:
            continue
        if not stat.S_ISREG(kind):
            raise OSError(errno.EINVAL, "not a regular file", str(place))


def way(path: Path, *, read_only: bool) -> str:
    """How the database is opened as things are now: SQLite's words for it; raises GloveboxError."""
    if not os.access(path.parent, os.W_OK):
        return _as_it_lies(path, read_only=read_only)
    return "mode=ro" if read_only else "mode=rwc"


def _as_it_lies(path: Path, *, read_only: bool) -> str:
    """How to open a ledger beside which nothing can be written (sqlite.org/uri.html, immutable): not even SQLite's own
    files. Where they are there (a run that goes on elsewhere, or was killed) they are read with it."""
    if not read_only:
        raise GloveboxError("the bench is read-only", where=str(path.parent), fix="make it writable, or copy it")
    log, shared = (path.with_name(f"{path.name}-{kind}") for kind in ("wal", "shm"))
    if log.exists() and log.stat().st_size:
        if shared.exists():
            return "mode=ro"
        fix = "copy the bench to where you may write, and look there"
        raise GloveboxError("the bench is read-only, and its ledger was left in the middle", where=str(path), fix=fix)
    return "mode=ro&immutable=1"


def knows(db: sqlite3.Connection, table: str, column: str) -> bool:
    """Whether a table has a column; one of an older version may not, or not exist."""
    return column in {str(row[1]) for row in db.execute(f"PRAGMA table_info({table})")}


def _check(db: sqlite3.Connection, path: Path, *, read_only: bool) -> None:
    """Refuse what is damaged, newer than we are, or doctored to say this now and that later.

    Its tables are ours to the letter before anything is asked of them: a check of theirs may take hours.
    """
    db.execute("PRAGMA busy_timeout = 5000")
    db.execute("PRAGMA trusted_schema = OFF")
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise GloveboxError(
            f"made by a newer glovebox (ledger version {version}, this one knows {VERSION})",
            where=str(path),
            fix="use that glovebox, or another bench",
        )
    for kind, name, text in db.execute("SELECT type, name, sql FROM sqlite_master").fetchall():
        ours = kind == "table" and _solid(str(text)) in _FORMS.get(name, ())
        ours = ours or (kind == "index" and (str(name).startswith("sqlite_autoindex_") or INDICES.get(name) == text))
        if not ours:
            raise sqlite3.DatabaseError(f"holds a {kind} that is not ours")
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not tables >= _FIRST and (tables or read_only):
        raise sqlite3.DatabaseError("lacks a table")
    (sound,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if sound != "ok":
        raise sqlite3.DatabaseError(sound)


def _bring_up_to_date(db: sqlite3.Connection, path: Path) -> None:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (tables,) = db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
    if tables and version < VERSION:
        _keep_copy(db, path.with_name(f"{path.name}.version-{version}"))
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA foreign_keys = ON")
    if version == VERSION:
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        for table in TABLES.values():
            db.execute(table)
        if not knows(db, "experiments", "done"):  # one experiment at a time: they were done in order of their numbers
            db.execute("ALTER TABLE experiments ADD COLUMN done INTEGER")
            db.execute("UPDATE experiments SET done = id WHERE status IS NOT NULL")
        if not knows(db, "runs", "origin"):
            db.execute("ALTER TABLE runs ADD COLUMN origin TEXT")
        for index in INDICES.values():
            db.execute(index.replace("CREATE INDEX", "CREATE INDEX IF NOT EXISTS"))
        db.execute(f"PRAGMA user_version = {VERSION}")
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def _keep_copy(db: sqlite3.Connection, path: Path) -> None:
    """The database as it is now, whole or not at all; a copy that is there stays."""
    if os.path.lexists(path):
        return
    with files.whole(path, mode=0o600) as file, sqlite3.connect(":memory:") as copy:
        db.backup(copy)
        file.write(copy.serialize())
