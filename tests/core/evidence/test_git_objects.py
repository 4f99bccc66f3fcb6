"""Objects through one process of git: the same as one by one, and nothing of a refused one in the next answer."""

from __future__ import annotations

import os
import resource
import signal
import time
import zlib
from pathlib import Path

import pytest

from runner.core.base.errors import GloveboxError
from runner.core.evidence import git_objects
from runner.core.evidence.git_line import FILE, GitLine
from runner.core.evidence.git_objects import Objects


@pytest.fixture
def line(tmp_path: Path) -> GitLine:
    return GitLine(tmp_path / "line.git")


def test_contents_parents_and_names_are_those_of_git(line: GitLine) -> None:
    texts = [b"x = 1\n", b"", b"\0\n\n" * 50_000, "\u00e4\n".encode()]
    commits = []
    for number, text in enumerate(texts, 1):
        commits.append(line.commit("t", number, text, "title\n\nparent of nothing\ntree of life\n"))
        line.advance("t", commits[-1])
    with line.objects() as objects:
        for at, commit in enumerate(commits):
            assert objects.read(f"{commit}:{FILE}", "blob") == texts[at] == line.content(commit)
            assert objects.commit(commit) == (commits[at - 1 : at] if at else [], [FILE])


def test_another_file_a_folder_and_a_program_are_seen(line: GitLine) -> None:
    blob = line._git("hash-object", "-w", "--stdin", data=b"x")
    inner = line._git("mktree", data=f"100644 blob {blob}\t{FILE}\n".encode())
    entries = {
        f"100644 blob {blob}\ta b\n100644 blob {blob}\t{FILE}\n": ["a b", FILE],
        f"100755 blob {blob}\t{FILE}\n": [""],
        f"120000 blob {blob}\t{FILE}\n": [""],
        f"040000 tree {inner}\t{FILE}\n": [""],
    }
    with line.objects() as objects:
        for text, names in entries.items():
            tree = line._git("mktree", data=text.encode())
            assert objects.commit(line._git("commit-tree", tree, data=b"x")) == ([], names)
        one, two = (line._git("commit-tree", inner, data=text) for text in (b"1", b"2"))
        merge = line._git("commit-tree", inner, "-p", one, "-p", two, data=b"3")
        assert objects.commit(merge) == ([one, two], [FILE])


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("0" * 40, "blob"),
        ("HEAD", "commit"),
        ("--batch-all-objects", "blob"),
        ("0" * 40 + "\n" + "0" * 40, "blob"),
        ("0" * 40 + ":../x", "blob"),
        ("", "blob"),
    ],
)
def test_what_is_not_there_or_no_name_is_refused_and_the_next_is_answered(line: GitLine, name: str, kind: str) -> None:
    commit = line.commit("t", 1, b"x = 1\n", "x\n")
    with line.objects() as objects:
        with pytest.raises(GloveboxError):
            objects.read(name, kind)
        assert objects.read(f"{commit}:{FILE}", "blob") == b"x = 1\n"


def test_of_another_kind_or_too_large_nothing_is_read(line: GitLine) -> None:
    commit = line.commit("t", 1, b"y" * 1000, "x\n")
    small = line.commit("t", 2, b"x" * 100, "x\n")
    with Objects(line.path, line.objects()._environment, 999) as objects:
        with pytest.raises(GloveboxError, match="no blob"):
            objects.read(f"{commit}:{FILE}", "blob")
        with pytest.raises(GloveboxError, match="no tree"):
            objects.read(commit, "tree")
        assert objects.read(f"{small}:{FILE}", "blob") == b"x" * 100


def test_a_git_that_was_killed_is_an_error_and_then_another_one(line: GitLine) -> None:
    commit = line.commit("t", 1, b"x = 1\n", "x\n")
    with line.objects() as objects:
        objects.read(f"{commit}:{FILE}", "blob")
        assert objects._git is not None
        os.kill(objects._git.pid, signal.SIGKILL)
        objects._git.wait()
        with pytest.raises(GloveboxError):
            objects.read(f"{commit}:{FILE}", "blob")
        assert objects.read(f"{commit}:{FILE}", "blob") == b"x = 1\n"
        last = objects._git
    assert last.poll() is not None  # none is left behind


def test_a_git_that_takes_too_long_is_ended(line: GitLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pack of 66 KB made one answer take 49 s, by a chain of deltas."""
    commit = line.commit("t", 1, b"x = 1\n", "x\n")
    monkeypatch.setattr(git_objects, "_SECONDS", 0.3)
    monkeypatch.setattr(git_objects, "_LOOKS", 0.05)
    with line.objects() as objects:
        objects.read(f"{commit}:{FILE}", "blob")
        assert objects._git is not None
        os.kill(objects._git.pid, signal.SIGSTOP)
        with pytest.raises(GloveboxError):
            objects.read(f"{commit}:{FILE}", "blob")
        assert objects.read(f"{commit}:{FILE}", "blob") == b"x = 1\n"


def test_a_git_that_nobody_waits_for_may_be_idle(line: GitLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Verdicts of ten thousand rows are replayed between two objects: the next was refused once."""
    commit = line.commit("t", 1, b"x = 1\n", "x\n")
    monkeypatch.setattr(git_objects, "_SECONDS", 0.2)
    monkeypatch.setattr(git_objects, "_LOOKS", 0.02)
    with line.objects() as objects:
        objects.read(f"{commit}:{FILE}", "blob")
        time.sleep(0.6)
        assert objects.read(f"{commit}:{FILE}", "blob") == b"x = 1\n"


def test_an_object_that_unpacks_to_gigabytes_is_refused_within_a_limit_of_memory(line: GitLine) -> None:
    """The commit on the way to a file is unpacked by git before anybody sees its size."""
    commit = line.commit("t", 1, b"x = 1\n", "x\n")
    path = line.path / "objects" / commit[:2] / commit[2:]
    path.chmod(0o600)
    packer = zlib.compressobj()
    size = 3 << 30
    with path.open("wb") as file:
        file.write(packer.compress(b"commit %d\0" % size))
        for _ in range(size >> 24):
            file.write(packer.compress(bytes(1 << 24)))
        file.write(packer.flush())
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    with line.objects() as objects, pytest.raises(GloveboxError):
        objects.read(f"{commit}:{FILE}", "blob")
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss <= max(before, 2 << 20)  # KiB


def test_a_git_that_was_begun_is_ended_whatever_comes_next(line: GitLine, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = line.commit("t", 1, b"x = 1\n", "x\n")
    begun: list[int] = []

    def refused(pid: int, *_: object) -> None:
        begun.append(pid)
        raise error

    for error in (KeyboardInterrupt(), PermissionError(1, "no"), ValueError("no")):
        with monkeypatch.context() as patched, line.objects() as objects:
            patched.setattr(resource, "prlimit", refused)
            with pytest.raises(GloveboxError if isinstance(error, OSError) else type(error)):
                objects.read(f"{commit}:{FILE}", "blob")
            assert not Path(f"/proc/{begun[-1]}").exists()
            patched.undo()
            assert objects.read(f"{commit}:{FILE}", "blob") == b"x = 1\n"
    assert len(begun) == 3
