"""Many objects of a git repository through one process of git. TRUSTED; the repository may be a stranger's.

`git cat-file --batch` answers a name and a newline with `ID TYPE SIZE`, a newline, the object's bytes and a newline
(git-cat-file(1), "BATCH OUTPUT"). Type and size are looked at before any of its bytes are read; git itself may unpack
much before it answers (a commit on the way to a file, a chain of deltas), so it has a limit of memory and of time.
"""

from __future__ import annotations

import math
import re
import resource
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from runner.core.base.errors import GloveboxError

_HEADER = re.compile(rb"([0-9a-f]{40}) (blob|tree|commit|tag) ([0-9]{1,12})\n")
_COMMIT = re.compile(rb"tree ([0-9a-f]{40})\n((?:parent [0-9a-f]{40}\n)*)author ")
_ENTRY = re.compile(rb"([0-7]{5,6}) ([^\0]+)\0[\s\S]{20}")
_NAME = re.compile(r"[0-9a-f]{40}(:[\w.]{1,40})?", re.ASCII)
_FILE = b"100644"
_MAX_HEADER = 1024
_SMALL = 64 << 10  # bytes of a commit or of its tree, of which ours have a few hundred
_MEMORY = 2 << 30  # bytes of address space
_SECONDS = 60.0  # of one answer
_LOOKS = 0.5  # seconds between two looks whether that has passed


class Objects:
    """Objects of the repository at `path`, of at most `most` bytes each; a context manager."""

    def __init__(self, path: Path, environment: Mapping[str, str], most: int) -> None:
        self._path, self._environment, self._most = path, environment, most
        self._git: subprocess.Popen[bytes] | None = None
        self._deadline = math.inf  # of the answer that is waited for; one that nobody waits for may take its time

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._end()

    def read(self, name: str, kind: str, most: int | None = None) -> bytes:
        """An object by its name; raises GloveboxError if there is none of that kind, or it is larger than `most`."""
        if not _NAME.fullmatch(name):
            raise self._refused(f"not the name of an object: {name[:60]!r}")
        try:
            data = self._answer(name, kind, self._most if most is None else most)
        except OSError as error:
            data, name = None, f"{name} ({error.strerror})"
        except BaseException:
            self._end()
            raise
        finally:
            self._deadline = math.inf
        if data is None:
            self._end()  # what git would still write must not be taken for the next answer
            raise self._refused(f"no {kind} {name}")
        return data

    def commit(self, name: str) -> tuple[list[str], list[str]]:
        """(parents, names of the plain files at the top of its tree; "" for anything else) of a commit."""
        head = _COMMIT.match(self.read(name, "commit", _SMALL))
        if head is None:
            raise self._refused(f"not a commit: {name}")
        tree, parents = head[1].decode(), head[2].decode()
        listed = self.read(tree, "tree", _SMALL)
        entries = _ENTRY.findall(listed)
        if sum(len(mode) + len(path) + 22 for mode, path in entries) != len(listed):
            raise self._refused(f"not a tree: {tree}")
        names = [path.decode("utf-8", "replace") if mode == _FILE else "" for mode, path in entries]
        return [line.removeprefix("parent ") for line in parents.splitlines()], names

    def _answer(self, name: str, kind: str, most: int) -> bytes | None:
        git = self._git or self._start()
        if git.stdin is None or git.stdout is None:
            return None
        self._deadline = time.monotonic() + _SECONDS
        git.stdin.write(name.encode() + b"\n")
        git.stdin.flush()
        header = _HEADER.fullmatch(git.stdout.readline(_MAX_HEADER))
        if header is None or header[2] != kind.encode() or int(header[3]) > most:
            return None
        size = int(header[3])
        data = git.stdout.read(size + 1)
        return data[:-1] if len(data) == size + 1 else None

    def _start(self) -> subprocess.Popen[bytes]:
        git = self._git = subprocess.Popen(  # ours to end from now on, whatever comes next
            ["git", "cat-file", "--batch"],
            cwd=self._path,
            env=dict(self._environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        resource.prlimit(git.pid, resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        threading.Thread(target=self._watch, args=(git,), daemon=True).start()
        return git

    def _watch(self, git: subprocess.Popen[bytes]) -> None:
        """End a git that takes too long for one answer."""
        while git.poll() is None and self._git is git:
            if time.monotonic() > self._deadline:
                git.kill()
            time.sleep(_LOOKS)

    def _end(self) -> None:
        git, self._git = self._git, None
        if git is not None:
            git.kill()
            git.communicate()

    def _refused(self, what: str) -> GloveboxError:
        return GloveboxError(what, where=str(self._path), fix="restore it from a backup")
