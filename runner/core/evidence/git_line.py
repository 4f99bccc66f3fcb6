"""The kept line as a git branch in the runner's own bare repository. TRUSTED; the repository may be a stranger's.

Plumbing commands only, on objects we hashed ourselves, in a repository that git_shape found to hold nothing else.
Should something slip through, git runs without a network or any transport, with every setting that names a command
overridden, in an environment built here, and with a limit of memory and of time.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from runner.core.airlock import invisible
from runner.core.base import files
from runner.core.base.errors import GloveboxError, VerifyError
from runner.core.evidence.git_objects import Objects
from runner.core.evidence.git_shape import CONFIG, HEAD, inspect, references

MAX_FILE = 64 << 20  # bytes of a train.py, far above policy: an object of a few bytes can stand for gigabytes
_SECONDS = 600.0
_MERGE_SECONDS = 20.0
_MEMORY = 4 << 30  # bytes of address space: what a few bytes unpack to
_NOTHING = "/dev/null"
# Settings that name a command or a file, overridden for the case that a configuration got past `inspect`. The test
# enumerates more of them (tests/hostile_git.py); these are those that a command of ours could reach.
_SETTINGS = {
    "core.hooksPath": _NOTHING,
    "core.fsync": "all",
    "core.fsmonitor": "false",
    "core.sshCommand": "false",
    "core.askPass": "false",
    "core.gitProxy": "none",
    "core.alternateRefsCommand": "true",
    "core.attributesFile": _NOTHING,
    "core.excludesFile": _NOTHING,
    "core.commitGraph": "false",
    "core.multiPackIndex": "false",
    "pack.readReverseIndex": "false",
    "pack.useBitmaps": "false",
    "core.pager": "cat",
    "attr.tree": "4b825dc642cb6eb9a060e54bf8d69288fbee4904",  # the empty one: no attributes come out of commits
    "credential.helper": "",
    "uploadpack.packObjectsHook": "",
    "protocol.allow": "never",
    "gpg.program": "false",
    "gpg.ssh.program": "false",
    "gpg.x509.program": "false",
    "commit.gpgSign": "false",
    "submodule.recurse": "false",
    "fetch.recurseSubmodules": "false",
    "fetch.fsckObjects": "true",
    "fetch.writeCommitGraph": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
}
# What a person's git may look up instead of the objects: `git gc` writes the first.
_INDICES = {
    "commit-graph": ("info/commit-graph", "info/commit-graphs"),
    "multi-pack-index": ("pack/multi-pack-index",),
}
_ENVIRONMENT = {
    "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
    "HOME": "/nonexistent",
    "GIT_DIR": ".",  # named, not discovered; whose it may be is for ownership.py to say
    "LC_ALL": "C",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": _NOTHING,
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_NO_LAZY_FETCH": "1",  # an object that is missing is missing
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_ALLOW_PROTOCOL": "none",  # a list of transports; there is none of that name
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_SSH_COMMAND": "false",
    "GIT_ASKPASS": "false",
    "GIT_AUTHOR_NAME": "glovebox",
    "GIT_AUTHOR_EMAIL": "runner@glovebox.invalid",
    "GIT_COMMITTER_NAME": "glovebox",
    "GIT_COMMITTER_EMAIL": "runner@glovebox.invalid",
    "GIT_CONFIG_COUNT": str(len(_SETTINGS)),
    **{f"GIT_CONFIG_KEY_{n}": key for n, key in enumerate(_SETTINGS)},
    **{f"GIT_CONFIG_VALUE_{n}": value for n, value in enumerate(_SETTINGS.values())},
}
FILE = "train.py"


def _id(commit: str) -> str:
    """`commit`, if it is the name of an object: anything else might be an option to git."""
    if not re.fullmatch(r"[0-9a-f]{40}", commit):
        raise GloveboxError("not a commit", where=commit[:40], fix="restore the ledger from a backup")
    return commit


def message(title: str, description: str) -> str:
    """A commit message in which the agent's line is text and nothing else.

    Indented behind a word of ours it is no trailer (a description once was a `Signed-off-by:`), and without # @ [ ] no
    mention, no issue and no [skip ci] on a forge.
    """
    told = " ".join(
        "".join(" " if c in "#@[]" or not c.isprintable() else c for c in invisible.blanked(description)).split()
    )
    return f"{title}\n\n    description: {told}\n"


class GitLine:
    """Branch autoresearch/<tag> of keeps, and one ref per experiment whatever its outcome."""

    def __init__(self, path: Path, *, make: bool = True) -> None:
        """Raises VerifyError for a repository that is not ours; one that is not there is made, unless `make` is off."""
        self.path = path
        if shutil.which("git") is None:
            raise GloveboxError("git is not installed", fix="apt-get install git")
        if os.path.lexists(path) and not _empty(path):
            inspect(path)
        elif make:
            with files.whole_folder(path) as self.path:
                self._git("init", "--quiet", "--bare", "--template=", ".")
            self.path = path
            path.chmod(0o700)
        else:
            raise VerifyError("no git line is there", where=str(path), fix="restore it from a backup: glovebox restore")

    def unlock(self) -> None:
        """Remove locks that a killed git left; only the one runner of a bench may call this."""
        for lock in [*self.path.glob("*.lock"), *(self.path / "refs").rglob("*.lock")]:
            lock.unlink(missing_ok=True)

    def head(self, tag: str) -> str | None:
        """Commit id of the kept line, None before the first keep."""
        wanted = f"refs/heads/autoresearch/{tag}"
        for line in self._git("for-each-ref", "--format=%(refname) %(objectname) %(symref)", wanted).splitlines():
            name, commit, *elsewhere = line.split()
            if name == wanted and not elsewhere:  # the pattern also matches what lies below that name
                return commit
        return None

    def commit(self, tag: str, experiment: int, data: bytes, message: str) -> str:
        """Commit train.py on top of the kept line under the experiment's own ref; returns the commit id."""
        tree = self._tree({FILE: data})
        parent = self.head(tag)
        parents = ["-p", parent] if parent else []
        commit = self._git("commit-tree", tree, *parents, data=message.encode())
        self._git("update-ref", "--no-deref", f"refs/experiments/{tag}/{experiment}", commit)
        return commit

    def advance(self, tag: str, commit: str) -> None:
        """Move the kept line to `commit`."""
        self._git("update-ref", "--no-deref", f"refs/heads/autoresearch/{tag}", commit)

    def content(self, commit: str) -> bytes:
        """train.py at a commit."""
        blob = f"{_id(commit)}:{FILE}"
        size = self._git("cat-file", "-s", blob)
        if not size.isdecimal() or int(size) > MAX_FILE:
            raise GloveboxError("larger than any train.py", where=str(self.path), fix="restore it from a backup")
        return self._run("cat-file", "blob", blob)

    def references(self) -> dict[str, str]:
        """The object each reference names; raises VerifyError unless every one is plainly a name of an object."""
        try:
            return references(self.path)
        except (OSError, ValueError) as error:
            told = f"its references are not as glovebox makes them: {error}"
            raise VerifyError(told, where=str(self.path), fix="restore it from a backup") from None

    def sound(self, found: Mapping[str, str]) -> bool:
        """Whether every object is what its name says, and nothing that these references need is missing (git fsck).

        git looks from a repository made for the purpose, at our objects: one that finds references itself takes those
        for missing that a session writes while it looks.
        """
        objects = (self.path / "objects").absolute()
        lines = "".join(f"{commit} {name}\n" for name, commit in sorted(found.items()))
        try:
            with tempfile.TemporaryDirectory() as folder:
                for name, text in (("config", CONFIG), ("HEAD", HEAD), ("packed-refs", lines)):
                    files.write(Path(folder) / name, text)
                (Path(folder) / "refs").mkdir()
                apart = {"GIT_DIR": folder, "GIT_OBJECT_DIRECTORY": str(objects)}
                self._run("fsck", "--full", "--strict", "--no-dangling", "--no-progress", environment=apart)
                for kind, index in _INDICES.items():
                    if any(os.path.lexists(objects / name) for name in index):
                        self._run(kind, "verify", environment=apart)
        except (GloveboxError, OSError):
            return False
        return True

    def objects(self) -> Objects:
        """Many objects, through one process of git; to be used as a context manager."""
        return Objects(self.path, _ENVIRONMENT, MAX_FILE)

    def publish(
        self, branch: str, steps: list[tuple[dict[str, bytes], str, str]], closing: tuple[dict[str, bytes], str, str]
    ) -> str:
        """A branch of its own: a commit for each step's files, then one that adds `closing`; returns its head.

        A step is (files by name, message, ISO time); the same steps give the same commit.
        """
        head, files = "", dict[str, bytes]()
        for new, message, when in (*steps, closing):
            files |= new
            tree = self._tree(files)
            parents = ["-p", head] if head else []
            head = self._git("commit-tree", tree, *parents, data=message.encode(), when=when)
        self._git("update-ref", "--no-deref", f"refs/heads/{branch}", head)
        return head

    def bundle(self, branch: str, path: Path) -> None:
        """A branch as one file that git can fetch from."""
        self._git("bundle", "create", "--quiet", str(path.absolute()), f"refs/heads/{branch}")

    def names(self, commit: str) -> list[str]:
        """All paths of a commit, in order."""
        return self._git("ls-tree", "-r", "--name-only", "-z", _id(commit)).rstrip("\0").split("\0")

    def fetch(self, bundle: Path, branch: str) -> list[str]:
        """Take a branch from a bundle, every object checked; returns its commits, oldest first."""
        source = str(bundle.absolute())
        reference = f"+refs/heads/{branch}:refs/heads/{branch}"
        self._run("fetch", "--quiet", "--no-tags", source, reference, environment={"GIT_ALLOW_PROTOCOL": "file"})
        return self._git("rev-list", "--reverse", "--first-parent", f"refs/heads/{branch}").split()

    def _tree(self, files: dict[str, bytes]) -> str:
        blobs = {name: self._git("hash-object", "-w", "--stdin", data=data) for name, data in files.items()}
        lines = "".join(f"100644 blob {blob}\t{name}\n" for name, blob in blobs.items())
        return self._git("mktree", data=lines.encode())

    def diff(self, old: str, new: str) -> str:
        """Unified diff of train.py between two commits."""
        plain = ("--no-color", "--no-ext-diff", "--no-textconv")
        return self._run("diff", *plain, _id(old), _id(new), "--", FILE).decode("utf-8", "replace")

    def merged(self, base: bytes, ours: bytes, theirs: bytes) -> bytes | None:
        """`ours` with what `theirs` changed in `base`; None where both changed the same lines, or it takes too long."""
        with tempfile.TemporaryDirectory(dir=self.path.parent) as folder:
            names = []
            for name, data in (("ours", ours), ("base", base), ("theirs", theirs)):
                files.write(Path(folder) / name, data)
                names.append(str(Path(folder) / name))
            try:
                return self._run("merge-file", "-p", "-q", *names, seconds=_MERGE_SECONDS)
            except GloveboxError:
                return None

    def _git(self, *args: str, data: bytes | None = None, when: str | None = None) -> str:
        dates = {"GIT_AUTHOR_DATE": when, "GIT_COMMITTER_DATE": when} if when else {}
        try:
            return self._run(*args, data=data, environment=dates).decode("ascii").strip()
        except UnicodeDecodeError:
            raise self._failed(f"git {args[0]} told of a name that is none of ours") from None

    def _run(
        self,
        *args: str,
        data: bytes | None = None,
        environment: dict[str, str] | None = None,
        seconds: float = _SECONDS,
    ) -> bytes:
        git = subprocess.Popen(
            ["git", *args],
            cwd=self.path,
            env=_ENVIRONMENT | (environment or {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with suppress(ProcessLookupError):  # it has ended already
            resource.prlimit(git.pid, resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        try:
            out, error = git.communicate(data or b"", timeout=seconds)
        except BaseException as what:
            git.kill()
            git.communicate()
            if isinstance(what, subprocess.TimeoutExpired):
                raise self._failed(f"git {args[0]} took too long") from None
            raise
        if git.returncode:
            detail = error.decode("utf-8", "replace").strip().splitlines()
            told = f"git {args[0]} failed: {ascii(detail[-1])[1:-1] if detail else git.returncode}"
            raise self._failed(told, "check that git is installed and the disk is not full")
        return out

    def _failed(self, what: str, fix: str = "look at it, or restore a backup") -> GloveboxError:
        return GloveboxError(what, where=str(self.path), fix=fix)


def _empty(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and not any(path.iterdir())
