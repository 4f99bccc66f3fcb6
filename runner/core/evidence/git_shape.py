"""What a git repository of ours may hold, and its references read by us. TRUSTED; the repository may be a stranger's.

git takes commands to run from the configuration, hooks and attributes of whatever repository it is pointed at, and
objects from wherever `alternates` says; so one that holds anything but objects, references and the few settings that
`git init` writes is refused before git sees it. git also passes over references it cannot read, takes a name from the
first of two places, and puts one object in another's place (refs/replace): so references are read here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from runner.core.base import files
from runner.core.base.errors import VerifyError
from runner.core.base.files import open_plain, read_plain

CONFIG: Final = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n"
HEAD: Final = "ref: refs/heads/master\n"
_MAX_CONFIG = 4096
_PLAIN = re.compile(  # what `git init --bare` writes, on every file system
    r"\[core\]\n(\t(repositoryformatversion = 0"
    r"|(filemode|bare|ignorecase|symlinks|precomposeunicode) = (true|false))\n){1,8}"
)
_HEAD = re.compile(r"ref: refs/heads/(master|main)\n")  # neither is a branch of ours: what is shown there is nothing
_ENTRIES = frozenset({"HEAD", "config", "objects", "refs", "packed-refs", "info"})
_PASSING = frozenset({"gc.pid", "gc.log", "packed-refs.new"})  # of a person's `git gc`; git reads none for a command
_INFO = re.compile(r"refs(_\w{6})?", re.ASCII)  # likewise, under another name until it is whole
_OBJECTS = re.compile(r"[0-9a-f]{2}|pack|info|\w+\.lock")
_DATA = re.compile(
    r"|packed-refs|objects(/(pack(/pack-[0-9a-f]{40}\.(pack|idx))?|[0-9a-f]{2}(/[0-9a-f]{38})?))?"
    r"|refs(/(heads|experiments)(/[\w./-]*)?)?",
    re.ASCII,
)
_LOOSE = re.compile(r"([0-9a-f]{40})\n")
_NAME = re.compile(r"refs/[\x21-\x7e]+")
_PACKED = re.compile(r"([0-9a-f]{40}) (refs/[\x21-\x7e]+)\n")
_MAX_LOOSE, _MAX_PACKED = 64, 64 << 20  # bytes


def inspect(path: Path) -> None:
    """Raises VerifyError unless a repository is of the kind that GitLine makes."""
    strange = sorted({one.name for one in path.iterdir() if not one.name.endswith(".lock")} - _ENTRIES - _PASSING)
    objects = path / "objects"
    strange += [f"objects/{one.name}" for one in objects.glob("*") if not _OBJECTS.fullmatch(one.name)]
    strange += [f"objects/info/{one.name}" for one in (objects / "info").glob("*alternates")]
    strange += [f"info/{one.name}" for one in (path / "info").glob("*") if not _INFO.fullmatch(one.name)]
    strange += [os.path.relpath(one, path) for one in _odd_entries(path)]
    strange += [name for name, good in (("config", _PLAIN), ("HEAD", _HEAD)) if not _is(path / name, good)]
    if strange:
        told = ", ".join(ascii(name)[1:-1] for name in strange[:5])
        fix = "it can make git run commands: look at it, then remove that, or restore a backup"
        raise VerifyError(f"not as glovebox makes it: {told}", where=str(path), fix=fix)


def data(name: str) -> bool:
    """Whether a path within a repository is an object or a reference; "" and folders on the way to one count."""
    return bool(_DATA.fullmatch(name)) and ".." not in name


def settle(path: Path) -> None:
    """Give a repository whose objects and references were restored the configuration that is ours."""
    if path.is_dir():
        files.write(path / "config", CONFIG)
        files.write(path / "HEAD", HEAD)
        (path / "objects").mkdir(exist_ok=True)
        (path / "refs").mkdir(exist_ok=True)
        inspect(path)


def references(path: Path) -> dict[str, str]:
    """The object each reference names; raises ValueError unless every one is plainly a name of an object, OSError."""
    loose = dict[str, str]()
    for entry in _entries(path / "refs"):
        if not entry.name.endswith(".lock"):
            try:
                text = _text(Path(entry.path), _MAX_LOOSE)
            except FileNotFoundError:
                continue  # what a person packs just now is in packed-refs, which is read last
            name = os.path.relpath(entry.path, path)
            if not _NAME.fullmatch(name):
                raise ValueError("not a reference of ours")
            loose[name] = _match(_LOOSE, text)[1]
    return _packed(path / "packed-refs") | loose


def _packed(path: Path) -> dict[str, str]:
    """Those in one file; each once, or git may take the first and we the last."""
    found = dict[str, str]()
    if not path.exists():
        return found
    with open_plain(path) as file:
        if os.fstat(file.fileno()).st_size > _MAX_PACKED:
            raise ValueError("longer than it may be")
        for line in file:
            if line[0] in b"#^":
                continue
            commit, name = _match(_PACKED, line.decode("ascii")).groups()
            if found.setdefault(name, commit) != commit:
                raise ValueError("a reference twice")
    return found


def _odd_entries(path: Path) -> Iterator[str]:
    """What is neither file nor folder, and folders named like locks, anywhere below."""
    return (entry.path for entry in _entries(path) if not entry.is_file(follow_symlinks=False))


def _entries(path: Path) -> Iterator[os.DirEntry[str]]:
    """Everything below but the folders that are looked into, however deep they lie.

    A night has tens of thousands of entries and every page looks here again, so a folder's own list has to do.
    """
    left = [str(path)]
    while left:
        try:
            with os.scandir(left.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False) and not entry.name.endswith(".lock"):
                        left.append(entry.path)
                    else:
                        yield entry
        except FileNotFoundError:
            continue  # a person packs just now, and it became empty


def _text(path: Path, most: int) -> str:
    """A plain file of at most so many bytes; raises OSError, ValueError for one that is no ASCII."""
    return read_plain(path, most).decode("ascii")


def _match(pattern: re.Pattern[str], text: str) -> re.Match[str]:
    if (found := pattern.fullmatch(text)) is None:
        raise ValueError("not a reference of ours")
    return found


def _is(path: Path, good: re.Pattern[str]) -> bool:
    try:
        return bool(good.fullmatch(_text(path, _MAX_CONFIG)))
    except (OSError, ValueError):
        return False
