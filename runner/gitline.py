"""The kept line as a git branch in the runner's own bare repository. TRUSTED.

Plumbing commands only, on objects we hashed ourselves. No one else's configuration, hooks, attributes or
identity takes part: global and system config are switched off and the environment is built here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from runner.errors import GloveboxError

_ENVIRONMENT = {
    "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
    "HOME": "/nonexistent",
    "GIT_DIR": ".",  # named, not discovered: git then accepts a repository of another owner
    "LC_ALL": "C",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_AUTHOR_NAME": "glovebox",
    "GIT_AUTHOR_EMAIL": "runner@glovebox.invalid",
    "GIT_COMMITTER_NAME": "glovebox",
    "GIT_COMMITTER_EMAIL": "runner@glovebox.invalid",
}
FILE = "train.py"


def message(title: str, description: str) -> str:
    """A commit message in which the agent's line is text and nothing else.

    Indented behind a word of ours it is no trailer (a description once was a `Signed-off-by:`), and without # @ [ ] no
    mention, no issue and no [skip ci] on a forge.
    """
    told = " ".join("".join(" " if c in "#@[]" or not c.isprintable() else c for c in description).split())
    return f"{title}\n\n    description: {told}\n"


class GitLine:
    """Branch autoresearch/<tag> of keeps, and one ref per experiment whatever its outcome."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if shutil.which("git") is None:
            raise GloveboxError("git is not installed", fix="apt-get install git")
        if not (path / "HEAD").exists():
            path.mkdir(parents=True, exist_ok=True)
            self._git("init", "--quiet", "--bare", "--template=", ".")

    def unlock(self) -> None:
        """Remove locks that a killed git left; only the one runner of a bench may call this."""
        for lock in [*self.path.glob("*.lock"), *(self.path / "refs").rglob("*.lock")]:
            lock.unlink(missing_ok=True)

    def head(self, tag: str) -> str | None:
        """Commit id of the kept line, None before the first keep."""
        refs = self._git("for-each-ref", "--format=%(objectname)", f"refs/heads/autoresearch/{tag}")
        return refs or None

    def commit(self, tag: str, experiment: int, data: bytes, message: str) -> str:
        """Commit train.py on top of the kept line under the experiment's own ref; returns the commit id."""
        tree = self._tree({FILE: data})
        parent = self.head(tag)
        parents = ["-p", parent] if parent else []
        commit = self._git("commit-tree", tree, *parents, data=message.encode())
        self._git("update-ref", f"refs/experiments/{tag}/{experiment}", commit)
        return commit

    def advance(self, tag: str, commit: str) -> None:
        """Move the kept line to `commit`."""
        self._git("update-ref", f"refs/heads/autoresearch/{tag}", commit)

    def content(self, commit: str) -> bytes:
        """train.py at a commit."""
        return self._run("cat-file", "blob", f"{commit}:{FILE}")

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
        self._git("update-ref", f"refs/heads/{branch}", head)
        return head

    def bundle(self, branch: str, path: Path) -> None:
        """A branch as one file that git can fetch from."""
        self._git("bundle", "create", "--quiet", str(path.absolute()), f"refs/heads/{branch}")

    def names(self, commit: str) -> list[str]:
        """All paths of a commit, in order."""
        return self._git("ls-tree", "-r", "--name-only", "-z", commit).rstrip("\0").split("\0")

    def fetch(self, bundle: Path, branch: str) -> list[str]:
        """Take a branch from a bundle, every object checked; returns its commits, oldest first."""
        source = str(bundle.absolute())
        strict = ["-c", "fetch.fsckObjects=true", "-c", "protocol.allow=never", "-c", "protocol.file.allow=always"]
        self._git(*strict, "fetch", "--quiet", "--no-tags", source, f"+refs/heads/{branch}:refs/heads/{branch}")
        return self._git("rev-list", "--reverse", "--first-parent", f"refs/heads/{branch}").split()

    def _tree(self, files: dict[str, bytes]) -> str:
        blobs = {name: self._git("hash-object", "-w", "--stdin", data=data) for name, data in files.items()}
        lines = "".join(f"100644 blob {blob}\t{name}\n" for name, blob in blobs.items())
        return self._git("mktree", data=lines.encode())

    def diff(self, old: str, new: str) -> str:
        """Unified diff of train.py between two commits."""
        return self._run("diff", "--no-color", "--no-ext-diff", "--no-textconv", old, new, "--", FILE).decode("utf-8")

    def _git(self, *args: str, data: bytes | None = None, when: str | None = None) -> str:
        return self._run(*args, data=data, when=when).decode("ascii").strip()

    def _run(self, *args: str, data: bytes | None = None, when: str | None = None) -> bytes:
        dates = {"GIT_AUTHOR_DATE": when, "GIT_COMMITTER_DATE": when} if when else {}
        command = ["git", "-c", "core.hooksPath=/dev/null", "-c", "core.fsync=all", *args]
        done = subprocess.run(
            command, cwd=self.path, env=_ENVIRONMENT | dates, input=data or b"", capture_output=True, check=False
        )
        if done.returncode:
            detail = done.stderr.decode("utf-8", "replace").strip().splitlines()
            verb = next(arg for arg in args if arg[:1] != "-" and "=" not in arg)
            raise GloveboxError(
                f"git {verb} failed: {detail[-1] if detail else done.returncode}",
                where=str(self.path),
                fix="check that git is installed and the disk is not full",
            )
        return done.stdout
