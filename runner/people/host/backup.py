"""`glovebox backup` and `restore`: a bench as one file, and back. TRUSTED; a restored file is hostile until verified.

In it: ledger, audit chain, git line, snapshots, tags, trust root, policies, imports, keys of the bench. Not in it:
artifacts and their store (`prepare` makes the same bytes again; --artifacts takes them along), logs of runs, secrets/.
The file holds private keys, so nobody else may read it at any moment.

Of a restored git line only objects and references are taken: its configuration, hooks and attributes could make git run
commands. Policies come as they are, so where they differ from the checkout's is told.
"""

from __future__ import annotations

import gzip
import shutil
import sqlite3
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from runner.core.base import files, locks, ownership
from runner.core.base.benches import folders
from runner.core.base.errors import GloveboxError, UsageError, VerifyError
from runner.core.base.home import Home
from runner.core.evidence import git_shape, verify
from runner.core.evidence.outcome import Outcome

_FOLDERS = ("policies", "keys", "snapshots", "line.git", "tags", "imports", "broker", "asked")
_FILES = ("audit.jsonl", "audit.pem", "seed.py", "program.md", "redteam.json", "tags.json")
_DATABASES = ("ledger.sqlite", "broker/spent.sqlite")
_ARTIFACTS = ("artifacts", "store")
MAX_BYTES = 1 << 40
MAX_MEMBERS = 1 << 20
_MAX_HEADER = 64 << 10  # bytes of a long name, or of a record of attributes
_ROOT = "glovebox"


def write(home: Home, path: Path, *, artifacts: bool = False) -> int:
    """Write the file; returns its size. Raises BusyError while a run is on, GloveboxError if the file exists."""
    if not path.parent.is_dir():
        raise UsageError("no such folder", where=str(path.parent), fix="make it, or name another")
    with locks.hold(home.runner_lock, "backup"), tempfile.TemporaryDirectory(dir=home.root) as folder:
        try:
            with files.whole(path, mode=0o600, replace=False) as file:
                _archive(file, _members(home, Path(folder), artifacts))
        except FileExistsError:
            raise UsageError("exists already", where=str(path), fix="name another file") from None
        except (OSError, sqlite3.Error) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise GloveboxError(f"cannot be written: {why}", where=str(path), fix="free space") from None
    return path.stat().st_size


def _archive(file: BinaryIO, members: Iterator[tuple[str, Path]]) -> None:
    with tarfile.open(fileobj=file, mode="w:gz", compresslevel=3) as archive:
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
        place = home.root / name
        for path in (place, *sorted(place.rglob("*"))):
            if (path.is_file() or path.is_dir()) and not path.is_symlink() and path not in skipped:
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


def restore(path: Path, home: Home) -> Outcome:
    """Unpack into a place where no bench is, and verify; raises GloveboxError, VerifyError."""
    if home.root.exists() and any(home.root.iterdir()):
        raise UsageError("there is a bench already", where=str(home.root), fix="restore into another GLOVEBOX_HOME")
    folders(home.root.parent)
    with tempfile.TemporaryDirectory(dir=home.root.parent) as folder:
        _unpack(path, Path(folder))
        place = Path(folder) / _ROOT
        if not Home(place).trust.is_file():
            raise VerifyError("not a backup of a bench", where=str(path), fix="use a file that glovebox backup made")
        git_shape.settle(place / "line.git")
        place.chmod(0o700)
        try:
            files.publish(place, home.root)  # in one step: onto nothing, or an empty folder of ours, never a stranger's
        except OSError as error:
            fix = "restore into another GLOVEBOX_HOME"
            raise GloveboxError(f"cannot be made: {error.strerror}", where=str(home.root), fix=fix) from None
    ownership.check(home.root)
    return verify.verify(home) if home.ledger.exists() else Outcome()


class _Member(tarfile.TarInfo):
    """A header that cannot make tarfile read without end: no long names, no records of their own, no holes."""

    def _proc_member(self, archive: tarfile.TarFile) -> Any:
        long = self.type in (*tarfile.GNU_TYPES, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
        if self.size < 0 or (long and self.size > _MAX_HEADER) or self.type == tarfile.GNUTYPE_SPARSE:
            raise tarfile.ReadError("an impossible header")
        return super()._proc_member(archive)  # type: ignore[misc] # there is no other place before it is read


def _unpack(path: Path, folder: Path) -> None:
    """Plain files and folders below one root only: no links, no devices, no way out (PEP 706, and stricter)."""
    most, total, members = min(MAX_BYTES, shutil.disk_usage(folder).free), 0, 0
    try:
        with gzip.open(path) as whole, tarfile.open(fileobj=whole, mode="r:", tarinfo=_Member) as archive:
            for member in archive:
                total, members = total + member.size, members + 1
                if total > most or members > MAX_MEMBERS:
                    raise VerifyError("more than a bench, or than fits on the disk", where=str(path), fix="free space")
                if not _taken(member):
                    raise VerifyError(f"holds {member.name!r}", where=str(path), fix="use a file glovebox backup made")
                parts = Path(member.name).parts
                if parts[1:2] != ("line.git",) or (len(parts) > 2 and git_shape.data("/".join(parts[2:]))):
                    archive.extract(member, folder, filter=_safely)
                archive.members = []  # type: ignore[attr-defined] # it would keep them all
            while whole.read(1 << 20):
                pass  # to the end, where the checksum is
    except (OSError, tarfile.TarError, EOFError, zlib.error, ValueError, OverflowError) as error:
        fix = "use another copy of the backup"
        raise VerifyError(f"cannot be unpacked: {type(error).__name__}", where=str(path), fix=fix) from None


def _taken(member: tarfile.TarInfo) -> bool:
    """Whether it is a plain file or folder of a kind that `write` puts in; secrets/ is none."""
    parts = Path(member.name).parts
    plain = (member.isfile() and not member.issparse()) or (member.isdir() and member.size == 0)
    if not plain or ".." in parts or parts[:1] != (_ROOT,):
        return False
    files_of_ours = {*_FILES, *_DATABASES}
    return len(parts) == 1 or parts[1] in (*_FOLDERS, *_ARTIFACTS) or "/".join(parts[1:]) in files_of_ours


def _safely(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo:
    """Never wider than it was, never more than the owner may write; a folder is the owner's to enter."""
    kept = tarfile.data_filter(member, folder)
    mode = (0o700 if member.isdir() else 0o600) | (member.mode & 0o755)
    return kept.replace(mode=mode, deep=False)
