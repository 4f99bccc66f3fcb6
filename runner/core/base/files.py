"""Files that are either whole or not there, and their hashes. TRUSTED.

Everything the runner writes under a name that others could guess goes through here (test_files.py finds what does
not): a shared folder, /tmp above all, is where strangers wait for such names.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

CHUNK = 1 << 20
PARTIAL = ".partial"
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def whole(path: Path, *, mode: int = 0o644, replace: bool = True) -> Iterator[BinaryIO]:
    """A file to write that appears under its name, with `mode`, only when it is complete and on disk.

    Until then it has a name that nobody can guess, was made by this call, and nobody else may read it: whoever may
    write into the folder can neither have it first nor lay a link where it goes (CWE-377, CWE-59). `replace`: take the
    place of what is there; else raise FileExistsError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    partial = f"{path.name}.{secrets.token_hex(8)}{PARTIAL}"
    made = []
    try:
        if not replace:
            os.close(os.open(path.name, _NEW, 0o600, dir_fd=folder))  # ours from now on
            made.append(path.name)
        with os.fdopen(os.open(partial, _NEW, 0o600, dir_fd=folder), "wb") as file:
            made.append(partial)
            yield file
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.rename(partial, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)
    except BaseException:
        for name in made:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)
        raise
    finally:
        os.close(folder)


def sweep(folder: Path) -> None:
    """Remove what a killed process left of `whole` anywhere below; only for who has the folder to himself."""
    for path in folder.rglob(f"*{PARTIAL}"):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


def write(path: Path, data: bytes | str, *, mode: int = 0o644, replace: bool = True) -> None:
    """`whole` for content that is there already; text as UTF-8."""
    with whole(path, mode=mode, replace=replace) as file:
        file.write(data.encode("utf-8") if isinstance(data, str) else data)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, nobody else's meanwhile, that takes its name when it is complete; OSError if one is there.

    rename(2) replaces an empty folder; whoever may make one of that name gains nothing by it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=path.parent, prefix=f"{path.name}.", suffix=PARTIAL))
    try:
        yield partial
        partial.chmod(0o755)
        publish(partial, path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def publish(made: Path, path: Path) -> None:
    """Give what was made, a file or a folder, its name: it and all below it is on disk before, and the name after.

    rename(2), so on one file system; raises OSError.
    """
    for one in [made, *(made.rglob("*") if made.is_dir() else ())]:
        if one.is_dir() or one.is_file():
            _sync(one)
    os.rename(made, path)
    for folder in {made.parent, path.parent}:
        _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def append(path: Path) -> BinaryIO:
    """`path` to add to, unbuffered; made with mode 0600. Raises OSError for a link, or what is not a regular file."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    return _regular(os.open(path, flags, 0o600), "ab")


def open_plain(path: Path) -> BinaryIO:
    """`path` for reading, if it is a regular file: no link is followed and no pipe waited for; raises OSError."""
    return _regular(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb")


def read_plain(path: Path, most: int) -> bytes:
    """All of a regular file of at most so many bytes; raises OSError, for a longer one too."""
    with open_plain(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, "longer than it may be", str(path))
    return data


def _regular(descriptor: int, mode: str) -> BinaryIO:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file")
    return cast("BinaryIO", os.fdopen(descriptor, mode, buffering=0 if mode == "ab" else -1))


def hash_file(path: Path) -> tuple[str, int]:
    """(SHA-256, size) of a file, read in chunks."""
    digest, size = hashlib.sha256(), 0
    buffer = bytearray(CHUNK)
    view = memoryview(buffer)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(view[:count])
            size += count
    return digest.hexdigest(), size
