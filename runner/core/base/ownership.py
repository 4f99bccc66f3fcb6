"""Whose bench is it? A folder that somebody else can write to is not used, and not made. TRUSTED.

A bench names keys, policies and a git repository, so whoever can write one decides where an API key goes. `glovebox`
looks for it upwards, as git looks for a repository, and found a stranger's in a shared folder (the class of
CVE-2022-24765). A path is ours if each step from `/` belongs to this user or root and nobody else can write to it or,
as in /tmp, can only add to it (the rule of OpenSSH's StrictModes). A person may name one bench, never all, in
GLOVEBOX_FOREIGN_HOME.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from runner.core.base.errors import PolicyError

ACCEPT = "GLOVEBOX_FOREIGN_HOME"
_INSIDE = ("policies", "keys", "secrets", "broker", "line.git")  # their entries are looked at too
_MAX_LINKS = 40  # as Linux follows


def check(root: Path) -> None:
    """Raises PolicyError unless the bench at an absolute path, and the way to it, are ours; there may be none yet."""
    if os.environ.get(ACCEPT) == str(root):
        return
    way(root)
    if root.is_symlink():
        raise PolicyError("is a link", where=str(root), fix="set GLOVEBOX_HOME to the folder itself")
    for path in (root, *_inside(root)):
        _ours(path, root, shared=False)


def way(path: Path) -> None:
    """Raises PolicyError unless every step to an absolute path is ours, but for folders where others can only add."""
    for step in _way(path):
        _ours(step, path, shared=True)


def _way(path: Path) -> Iterator[Path]:
    """Every folder and link that the kernel passes on the way to an absolute path, and the path itself."""
    left, at, links = list(path.parts[1:]), Path(path.anchor), 0
    yield at
    while left:
        part = left.pop(0)
        at = at.parent if part == ".." else at / part
        if not os.path.lexists(at):
            return
        yield at
        if at.is_symlink() and at != path:
            links += 1
            if links > _MAX_LINKS:
                raise PolicyError("too many links", where=str(path), fix="set GLOVEBOX_HOME to the folder itself")
            target = at.readlink()
            left = [*(target.parts[1:] if target.is_absolute() else target.parts), *left]
            at = Path(target.anchor) if target.is_absolute() else at.parent


def _inside(root: Path) -> Iterator[Path]:
    if not root.is_dir():
        return
    yield from sorted(root.iterdir())
    for name in _INSIDE:
        if (root / name).is_dir():
            yield from sorted((root / name).iterdir())


def _ours(path: Path, root: Path, *, shared: bool) -> None:
    """`shared`: whether others may add entries to a folder, if they cannot touch ours."""
    try:
        state = path.lstat()
    except FileNotFoundError:
        return  # a temporary file that has gone
    except OSError as error:
        raise _foreign(path, root, f"cannot be looked at: {error.strerror}") from None
    if state.st_uid not in (os.geteuid(), 0):
        raise _foreign(path, root, f"belongs to {_name(state.st_uid)}")
    if stat.S_ISLNK(state.st_mode):
        if not shared:
            raise _foreign(path, root, "is a link")
        return
    if shared and state.st_mode & stat.S_ISVTX:
        return
    if state.st_mode & stat.S_IWOTH or (state.st_mode & stat.S_IWGRP and not _private_group(path, state)):
        raise _foreign(path, root, "can be written by others", f"chmod go-w {path}")


def _private_group(path: Path, state: os.stat_result) -> bool:
    """Whether the group is the owner's alone, as most Linux systems give each user; with an ACL nobody can say."""
    with suppress(KeyError, OSError):
        owner, group = pwd.getpwuid(state.st_uid), grp.getgrgid(state.st_gid)
        alone = group.gr_name == owner.pw_name and set(group.gr_mem) <= {owner.pw_name}
        return alone and "system.posix_acl_access" not in os.listxattr(path)
    return False


def _name(uid: int) -> str:
    with suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return f"user {uid}"


def _foreign(path: Path, root: Path, what: str, fix: str = "") -> PolicyError:
    fix = f"{fix or 'use your own bench (GLOVEBOX_HOME, glovebox init)'}; to trust this one: {ACCEPT}={root}"
    return PolicyError(f"{what}: not used as a bench", where=str(path), fix=fix)
