"""`glovebox backup` and `restore`: a bench as one file, and back. TRUSTED; a restored file is hostile until verified.

In it: ledger, audit chain, git line, snapshots, tags, trust root, policies, imports, keys of the bench. Not in it:
artifacts and their store (`prepare` makes the same bytes again; --artifacts takes them along), logs of runs, secrets/.
The file holds private keys, so it is made with mode 0600.
"""

from __future__ import annotations

import gzip
import os
import shutil
import sqlite3
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from runner import locks, verify
from runner.errors import GloveboxError, VerifyError
from runner.home import Home

_FOLDERS = ("policies", "keys", "snapshots", "line.git", "tags", "imports", "broker")
_FILES = ("audit.jsonl", "audit.pem", "seed.py", "redteam.json")
_DATABASES = ("ledger.sqlite", "broker/spent.sqlite")
_ARTIFACTS = ("artifacts", "store")
MAX_BYTES = 1 << 40
_ROOT = "glovebox"


def write(home: Home, path: Path, *, artifacts: bool = False) -> int:
    """Write the file; returns its size. Raises BusyError while a run is on, GloveboxError if the file exists."""
    if path.exists():
        raise GloveboxError("exists already", where=str(path), fix="name another file")
    partial = path.with_name(path.name + ".partial")
    if not path.parent.is_dir():
        raise GloveboxError("no such folder", where=str(path.parent), fix="make it, or name another")
    with locks.hold(home.runner_lock, "backup"), tempfile.TemporaryDirectory(dir=path.parent) as folder:
        try:
            _archive(partial, _members(home, Path(folder), artifacts))
            os.replace(partial, path)
        except (OSError, sqlite3.Error) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise GloveboxError(f"cannot be written: {why}", where=str(path), fix="free space") from None
        finally:
            partial.unlink(missing_ok=True)  # half of it, with private keys
    return path.stat().st_size


def _archive(partial: Path, members: Iterator[tuple[str, Path]]) -> None:
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz", compresslevel=3) as archive:
        for name, source in members:
            archive.add(source, f"{_ROOT}/{name}", recursive=False, filter=_plain)


def _members(home: Home, folder: Path, artifacts: bool) -> Iterator[tuple[str, Path]]:
    for name in _DATABASES:
        if (home.root / name).exists():
            yield name, _database(home.root / name, folder / name.replace("/", "-"))
    for name in _FILES:
        if (home.root / name).exists():
            yield name, home.root / name
    skipped = {home.root / name for database in _DATABASES for name in (database, f"{database}-wal", f"{database}-shm")}
    for name in _FOLDERS + (_ARTIFACTS if artifacts else ()):
        for path in sorted((home.root / name).rglob("*")):
            if path.is_file() and not path.is_symlink() and path not in skipped:
                yield str(path.relative_to(home.root)), path


def _database(source: Path, target: Path) -> Path:
    """A copy SQLite itself makes, with what is still in the write-ahead log."""
    theirs, ours = sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True), sqlite3.connect(target)
    try:
        theirs.backup(ours)
    finally:
        ours.close()
        theirs.close()
    return target


def _plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    return info


def restore(path: Path, home: Home) -> verify.Outcome:
    """Unpack into a place where no bench is, and verify; raises GloveboxError, VerifyError."""
    if home.root.exists() and any(home.root.iterdir()):
        raise GloveboxError("there is a bench already", where=str(home.root), fix="restore into another GLOVEBOX_HOME")
    home.root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.root.parent) as folder:
        _unpack(path, Path(folder))
        place = Path(folder) / _ROOT
        if not Home(place).trust.is_file():
            raise VerifyError("not a backup of a bench", where=str(path), fix="use a file that glovebox backup made")
        home.root.mkdir(mode=0o700, exist_ok=True)
        for one in sorted(place.iterdir()):
            shutil.move(one, home.root / one.name)
    return verify.verify(home) if home.ledger.exists() else verify.Outcome()


def _unpack(path: Path, folder: Path) -> None:
    """Plain files below one root only: no links, no devices, no way out (PEP 706, and stricter)."""
    total = 0
    try:
        with gzip.open(path) as whole, tarfile.open(fileobj=whole, mode="r:") as archive:
            for member in archive:
                total += member.size
                parts = Path(member.name).parts
                if not member.isfile() or parts[:1] != (_ROOT,) or ".." in parts or total > MAX_BYTES:
                    raise VerifyError(f"holds {member.name!r}", where=str(path), fix="use a file glovebox backup made")
                archive.extract(member, folder, filter="data")
            while whole.read(1 << 20):
                pass  # to the end, where the checksum is
    except (OSError, tarfile.TarError, EOFError, zlib.error, ValueError, OverflowError) as error:
        fix = "use another copy of the backup"
        raise VerifyError(f"cannot be unpacked: {type(error).__name__}", where=str(path), fix=fix) from None
