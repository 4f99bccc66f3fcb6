"""The kept line as a git branch in the runner's own bare repository. TRUSTED; the repository may be a stranger's.

Plumbing commands only, on objects we hashed ourselves. git takes commands to run from the configuration, hooks and
attributes of whatever repository it is pointed at, so a repository that holds anything but objects, references and the
few settings `git init` writes is refused before git sees it. Should something slip through, git runs without a network
or any transport, with every setting that names a command overridden, and in an environment built here.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from runner.core.airlock import invisible
from runner.core.base import files
from runner.core.base.errors import GloveboxError, VerifyError
from runner.core.base.files import open_plain
from runner.core.evidence.git_objects import Objects

CONFIG: Final = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n"
HEAD: Final = "ref: refs/heads/master\n"
MAX_FILE = 64 << 20  # bytes of a train.py, far above policy: an object of a few bytes can stand for gigabytes
_SECONDS = 600.0
_MAX_CONFIG = 4096
_MOST_NAMES = 25_000  # of commits on one command line, a MiB
_PLAIN = re.compile(  # what `git init --bare` writes, on every file system
    r"\[core\]\n(\t(repositoryformatversion = 0"
    r"|(filemode|bare|ignorecase|symlinks|precomposeunicode) = (true|false))\n){1,8}"
)
_ENTRIES = frozenset({"HEAD", "config", "objects", "refs", "packed-refs", "FETCH_HEAD", "info"})
_OBJECTS = re.compile(r"[0-9a-f]{2}|pack|info")
_DATA = re.compile(
    r"|packed-refs|objects(/(pack(/pack-[0-9a-f]{40}\.(pack|idx))?|[0-9a-f]{2}(/[0-9a-f]{38})?))?"
    r"|refs(/(heads|experiments)(/[\w./-]*)?)?",
    re.ASCII,
)
_LOOSE = re.compile(r"([0-9a-f]{40})\n")
_PACKED = re.compile(r"([0-9a-f]{40}) refs/[\x21-\x7e]+\n")
_MAX_LOOSE, _MAX_PACKED = 64, 64 << 20  # bytes
_NOTHING = "/dev/null"
# Settings that name a command or a file, overridden for the case that a configuration got past `inspect`. The test
# enumerates more of them (tests/core/evidence/test_git_line.py); these are those that a command of ours could reach.
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


def inspect(path: Path) -> None:
    """Raises VerifyError unless a repository is of the kind that GitLine makes."""
    strange = sorted({one.name for one in path.iterdir() if not one.name.endswith(".lock")} - _ENTRIES)
    objects = path / "objects"
    strange += [f"objects/{one.name}" for one in objects.glob("*") if not _OBJECTS.fullmatch(one.name)]
    strange += [f"objects/info/{one.name}" for one in (objects / "info").glob("*alternates")]
    strange += [f"info/{one.name}" for one in (path / "info").glob("*") if one.name != "refs"]  # git gc writes that
    strange += [os.path.relpath(one, path) for one in _odd_entries(path)]
    if not strange and not _plain_config(path / "config"):
        strange = ["config"]
    if strange:
        fix = "it can make git run commands: look at it, then remove that, or restore a backup"
        raise VerifyError(f"not as glovebox makes it: {', '.join(strange[:5])}", where=str(path), fix=fix)


def _id(commit: str) -> str:
    """`commit`, if it is the name of an object: anything else might be an option to git."""
    if not re.fullmatch(r"[0-9a-f]{40}", commit):
        raise GloveboxError("not a commit", where=commit[:40], fix="restore the ledger from a backup")
    return commit


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


def _odd_entries(path: Path) -> Iterator[str]:
    """What is neither file nor folder, and folders named like locks, anywhere below."""
    return (entry.path for entry in _entries(path) if not entry.is_file(follow_symlinks=False))


def _entries(path: Path) -> Iterator[os.DirEntry[str]]:
    """Everything below but the folders that are looked into, however deep they lie.

    A night has tens of thousands of entries and every page looks here again, so a folder's own list has to do.
    """
    left = [str(path)]
    while left:
        with os.scandir(left.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False) and not entry.name.endswith(".lock"):
                    left.append(entry.path)
                else:
                    yield entry


def _text(path: Path, most: int) -> str:
    """A plain file of at most so many bytes; raises ValueError for a longer one, OSError."""
    with open_plain(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError("longer than it may be")
    return data.decode("ascii")


def _match(pattern: re.Pattern[str], text: str) -> str:
    if (found := pattern.fullmatch(text)) is None:
        raise ValueError("not a reference of ours")
    return found[1]


def _plain_config(path: Path) -> bool:
    try:
        return bool(_PLAIN.fullmatch(_text(path, _MAX_CONFIG)))
    except (OSError, ValueError):
        return False


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

    def __init__(self, path: Path) -> None:
        self.path = path
        if shutil.which("git") is None:
            raise GloveboxError("git is not installed", fix="apt-get install git")
        if (path / "HEAD").exists() or (path / "config").exists():
            inspect(path)
        else:
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._git("init", "--quiet", "--bare", "--template=", ".")

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

    def sound(self) -> bool:
        """Whether every object is what its name says, and nothing that refers is missing (git fsck).

        References are read first, by us: a git that looks them up itself takes those for missing that a session writes
        while it looks, and one that is told where to begin passes over what it cannot read.
        """
        try:
            names = sorted(self._references())
            if len(names) > _MOST_NAMES:
                names = []  # more than a command line holds: git finds them
            self._run("fsck", "--full", "--strict", "--no-dangling", "--no-progress", *names)
        except (GloveboxError, OSError, ValueError):
            return False
        return True

    def _references(self) -> set[str]:
        """Names of the objects that references name; raises ValueError unless each is plainly one, OSError."""
        found = set[str]()
        for entry in _entries(self.path / "refs"):
            if not entry.name.endswith(".lock"):
                found.add(_match(_LOOSE, _text(Path(entry.path), _MAX_LOOSE)))
        packed = self.path / "packed-refs"  # read last: what a person packs just now moves there
        text = _text(packed, _MAX_PACKED) if packed.exists() else ""
        return found.union(_match(_PACKED, line) for line in text.splitlines(keepends=True) if line[0] not in "#^")

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

    def _git(self, *args: str, data: bytes | None = None, when: str | None = None) -> str:
        dates = {"GIT_AUTHOR_DATE": when, "GIT_COMMITTER_DATE": when} if when else {}
        return self._run(*args, data=data, environment=dates).decode("ascii").strip()

    def _run(self, *args: str, data: bytes | None = None, environment: dict[str, str] | None = None) -> bytes:
        try:
            done = subprocess.run(
                ["git", *args],
                cwd=self.path,
                env=_ENVIRONMENT | (environment or {}),
                input=data or b"",
                capture_output=True,
                check=False,
                timeout=_SECONDS,
            )
        except subprocess.TimeoutExpired:
            fix = "look at it, or restore a backup"
            raise GloveboxError(f"git {args[0]} took too long", where=str(self.path), fix=fix) from None
        if done.returncode:
            detail = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise GloveboxError(
                f"git {args[0]} failed: {detail[-1] if detail else done.returncode}",
                where=str(self.path),
                fix="check that git is installed and the disk is not full",
            )
        return done.stdout
