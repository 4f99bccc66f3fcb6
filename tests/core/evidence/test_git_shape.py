"""What a repository may hold before git sees it, and references that only we read."""

from __future__ import annotations

import hashlib
import os
import struct
import subprocess
import threading
import zlib
from pathlib import Path

import pytest

from runner.core.base.errors import GloveboxError, VerifyError
from runner.core.evidence import git_line, git_shape
from runner.core.evidence.git_line import GitLine
from tests import hostile_git


@pytest.fixture
def line(tmp_path: Path) -> GitLine:
    return GitLine(tmp_path / "line.git")


def sound(line: GitLine) -> bool:
    try:
        return line.sound(line.references())
    except VerifyError:
        return False


def test_a_foreign_configuration_is_refused_before_git_sees_it(line: GitLine, tmp_path: Path) -> None:
    commit = line.commit("t", 1, b"a = 1\n", "x")
    assert GitLine(line.path).content(commit) == b"a = 1\n"  # the control
    hostile_git.plant(line.path, tmp_path / "evil")
    with pytest.raises(VerifyError, match="not as glovebox makes it: hooks, info/attributes"):
        GitLine(line.path)


@pytest.mark.parametrize("key", hostile_git.KEYS)
def test_no_setting_that_can_run_something_is_accepted(line: GitLine, key: str) -> None:
    subprocess.run(["git", "config", "-f", line.path / "config", key, "true"], check=True)
    with pytest.raises(VerifyError, match=r"not as glovebox makes it: config"):
        GitLine(line.path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.worktree", "[core]\n\tfsmonitor = true\n"),
        ("commondir", "/elsewhere\n"),
        ("hooks/update", "#!/bin/sh\n"),
        ("info/attributes", "* filter=f\n"),
        ("info/grafts", ""),
        ("objects/info/alternates", "/elsewhere\n"),
        ("objects/info/http-alternates", "https://elsewhere\n"),
        ("config", "[core]\n\tbare = true\n[include]\n\tpath = /x\n"),
        ("config", "[core]\n\tbare = true\n\tsshCommand = x\n"),
        ("config", "[core]\n\tbare = true ; \\\n\tx\n"),
        ("config", ""),
        ("config", "[core]\n" + "\tbare = true\n" * 9),
    ],
)
def test_what_could_bring_commands_is_refused(line: GitLine, name: str, content: str) -> None:
    (line.path / name).parent.mkdir(exist_ok=True, parents=True)
    (line.path / name).write_text(content)
    with pytest.raises(VerifyError, match="not as glovebox makes it"):
        GitLine(line.path)


def test_a_link_is_refused(line: GitLine, tmp_path: Path) -> None:
    (line.path / "config").rename(tmp_path / "config")
    (line.path / "config").symlink_to(tmp_path / "config")
    with pytest.raises(VerifyError, match="config"):
        GitLine(line.path)


def test_a_reference_that_is_a_link_is_refused(line: GitLine) -> None:
    """git passes over one that leads nowhere without a word."""
    (line.path / "refs/x").symlink_to("nowhere")
    with pytest.raises(VerifyError, match="refs/x"):
        GitLine(line.path)


def test_a_repository_a_person_packed_is_still_ours(line: GitLine) -> None:
    commit = line.commit("t", 1, b"a = 1\n", "x")
    subprocess.run(["git", "gc", "--quiet"], cwd=line.path, check=True)
    assert GitLine(line.path).content(commit) == b"a = 1\n"


@pytest.mark.parametrize("what", ["rubbish", "cut short", "of nothing", "elsewhere", "packed", "altered"])
def test_a_repository_with_what_refers_to_nothing_is_not_sound(line: GitLine, what: str) -> None:
    """git passes over a reference that it cannot read if it is told what to look at."""
    commit = line.commit("t", 1, b"a = 1\n", "x")
    line.advance("t", commit)
    assert sound(line)  # the control
    reference = line.path / "refs/experiments/t/2"
    if what == "altered":
        path = line.path / "objects" / commit[:2] / commit[2:]
        path.chmod(0o600)
        path.write_bytes(zlib.compress(zlib.decompress(path.read_bytes()).replace(b"glovebox", b"somebody")))
    else:
        texts = {
            "rubbish": "x\n",
            "cut short": commit[:30],
            "of nothing": "0" * 39 + "1\n",
            "elsewhere": "ref: refs/x\n",
        }
        reference.write_text(texts.get(what, commit + "\n"))
        assert sound(line) is (what == "packed")
        if what == "packed":
            subprocess.run(["git", "pack-refs", "--all"], cwd=line.path, check=True)
            assert not reference.exists()
            assert sound(line)
            packed = line.path / "packed-refs"
            packed.write_text(packed.read_text().replace(commit, "0" * 39 + "1", 1))
    assert not sound(line)


def test_references_that_lie_too_deep_or_too_many_are_told(line: GitLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list that was cut at a line's end was taken for the whole; folders in folders were a traceback."""
    commit = line.commit("t", 1, b"a = 1\n", "x")
    (line.path / "packed-refs").write_text(f"{commit} refs/heads/x\n" * 3)
    assert sound(line)
    monkeypatch.setattr(git_shape, "_MAX_PACKED", 2 * len(f"{commit} refs/heads/x\n"))
    assert not sound(line)
    monkeypatch.undo()
    here = os.getcwd()
    try:
        os.chdir(line.path / "refs")
        for _ in range(1100):
            os.mkdir("d")
            os.chdir("d")
    finally:
        os.chdir(here)
    assert sound(line)
    subprocess.run(["rm", "-rf", line.path / "refs" / "d"], check=True)  # whoever cleans up here recurses, too


def git(line: GitLine, *arguments: str, data: bytes = b"") -> str:
    done = subprocess.run(["git", *arguments], cwd=line.path, capture_output=True, input=data, check=True)
    return done.stdout.decode().strip()


def test_what_is_there_without_configuration_is_not_made_into_a_repository(line: GitLine, tmp_path: Path) -> None:
    """`git init` took a folder over that nobody had looked at: alternates, hooks and all."""
    for name in ("HEAD", "config"):
        (line.path / name).unlink()
    (line.path / "hooks").mkdir()
    (line.path / "objects" / "info").mkdir(exist_ok=True)
    (line.path / "objects" / "info" / "alternates").write_text(f"{tmp_path}/elsewhere\n")
    before = sorted(line.path.rglob("*"))
    with pytest.raises(VerifyError, match="hooks"):
        GitLine(line.path)
    assert sorted(line.path.rglob("*")) == before


def test_who_only_reads_makes_no_repository(tmp_path: Path) -> None:
    with pytest.raises(VerifyError, match="no git line"):
        GitLine(tmp_path / "none", make=False)
    assert not (tmp_path / "none").exists()
    (tmp_path / "empty").mkdir()
    with pytest.raises(VerifyError, match="no git line"):
        GitLine(tmp_path / "empty", make=False)
    assert GitLine(tmp_path / "empty").head("t") is None  # the nearest that must pass: one that is to be made


@pytest.mark.parametrize("text", ["ref: refs/heads/autoresearch/t\n", "0" * 40 + "\n", "", "ref: refs/heads/master"])
def test_what_a_person_is_shown_first_is_no_branch(line: GitLine, text: str) -> None:
    (line.path / "HEAD").write_text(text)
    with pytest.raises(VerifyError, match="HEAD"):
        GitLine(line.path)


@pytest.mark.parametrize(
    "name", ["gc.pid", "gc.log", "packed-refs.new", "objects/maintenance.lock", "info/refs_Ut5DRg"]
)
def test_what_a_persons_git_leaves_in_passing_is_no_stranger(line: GitLine, name: str) -> None:
    (line.path / name).parent.mkdir(exist_ok=True)
    (line.path / name).write_text("1 host\n")
    assert GitLine(line.path).head("t") is None


def test_references_that_a_person_packs_just_now_are_all_found(line: GitLine) -> None:
    """A file that went between two looks was an error."""
    commit = line.commit("t", 1, b"a = 1\n", "x")
    wanted = {f"refs/heads/b{number}": commit for number in range(40)}
    stop = threading.Event()

    def pack() -> None:
        while not stop.is_set():
            for name in wanted:
                git(line, "update-ref", name, commit)
            git(line, "pack-refs", "--all", "--prune")

    for name in wanted:
        git(line, "update-ref", name, commit)
    person = threading.Thread(target=pack)
    person.start()
    try:
        for _ in range(200):
            assert wanted.items() <= line.references().items()
    finally:
        stop.set()
        person.join()


def test_a_folder_that_a_person_empties_just_now_is_an_empty_one(
    line: GitLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`git pack-refs` removes it between two looks."""
    commit = line.commit("t", 1, b"a = 1\n", "x")
    git(line, "update-ref", "refs/heads/exp/a/t", commit)
    real = os.scandir

    def scandir(path: str) -> object:
        if path.endswith("exp/a"):
            git(line, "pack-refs", "--all", "--prune")
        return real(path)

    monkeypatch.setattr(git_shape.os, "scandir", scandir)
    assert line.references()["refs/heads/exp/a/t"] == commit
    assert not (line.path / "refs/heads/exp/a").exists()


@pytest.mark.parametrize("name", ["refs/heads/\u00fc", "refs/heads/a b", "refs/heads/a\x1b[2J"])
def test_a_reference_with_a_name_that_is_none_is_refused_and_shows_nothing(line: GitLine, name: str) -> None:
    commit = line.commit("t", 1, b"a = 1\n", "x")
    line.advance("t", commit)
    (line.path / name).write_text(commit + "\n")
    with pytest.raises(VerifyError) as told:
        line.references()
    assert str(told.value).isprintable()


def test_a_name_below_a_packed_branch_that_is_no_text_is_no_traceback(line: GitLine) -> None:
    commit = line.commit("t", 1, b"a = 1\n", "x")
    line.advance("t", commit)
    git(line, "pack-refs", "--all", "--prune")
    (line.path / "refs/heads/autoresearch/t").mkdir(parents=True)
    (line.path / "refs/heads/autoresearch/t/\u00fc").write_text(commit + "\n")
    with pytest.raises(GloveboxError):
        line.head("t")


def test_a_reference_that_stands_twice_in_one_file_is_refused(line: GitLine) -> None:
    """git takes the one, a reader may take the other."""
    one, two = line.commit("t", 1, b"a = 1\n", "x"), line.commit("t", 2, b"a = 2\n", "x")
    (line.path / "packed-refs").write_text(f"{one} refs/heads/x\n{two} refs/heads/x\n")
    assert not sound(line)


def test_more_commits_than_a_command_line_holds_are_looked_at(line: GitLine) -> None:
    """Beyond a number git looked for references itself, and took those of a session for missing."""
    commit = line.commit("t", 1, b"a = 1\n", "x")
    found = {f"refs/heads/b{number:06d}": commit for number in range(60_000)}
    assert line.sound(found)
    assert not line.sound({**found, "refs/heads/z": "0" * 39 + "1"})


def test_an_index_that_says_other_than_its_objects_is_found(line: GitLine) -> None:
    """`git show BRANCH:train.py` gave a person another file than the branch has."""
    first = line.commit("t", 1, b"a = 1\n", "x")
    line.advance("t", first)
    line.advance("t", line.commit("t", 2, b"a = 2\n", "x"))
    head = line.head("t")
    assert head is not None
    git(line, "commit-graph", "write", "--reachable")
    assert sound(line)  # the control: `git gc` writes one
    path = line.path / "objects/info/commit-graph"
    forged = bytearray(path.read_bytes())
    places = {bytes(forged[at : at + 4]): struct.unpack(">Q", forged[at + 4 : at + 12])[0] for at in range(8, 68, 12)}
    names = [bytes(forged[at : at + 20]) for at in range(places[b"OIDL"], places[b"CDAT"], 20)]
    at = places[b"CDAT"] + 36 * names.index(bytes.fromhex(head))
    forged[at : at + 20] = bytes.fromhex(git(line, "rev-parse", f"{first}^{{tree}}"))
    forged[-20:] = hashlib.sha1(bytes(forged[:-20]), usedforsecurity=False).digest()
    path.chmod(0o600)
    path.write_bytes(forged)
    tree = git(line, "rev-parse", f"{first}^{{tree}}")
    assert git(line, "log", "-1", "--format=%T", "autoresearch/t") == tree  # what a person would be shown
    assert line.content(head) == b"a = 2\n"
    assert not sound(line)


def test_a_pack_that_unpacks_to_gigabytes_is_refused_within_a_limit_of_memory(
    line: GitLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = line.commit("t", 1, b"x = 1\n", "x\n")
    path = line.path / "objects" / commit[:2] / commit[2:]
    path.chmod(0o600)
    monkeypatch.setattr(git_line, "_MEMORY", 1 << 30)
    assert sound(line)
    packer = zlib.compressobj(1)
    with path.open("wb") as file:
        file.write(packer.compress(b"commit %d\0" % (2 << 30)))
        for _ in range(128):
            file.write(packer.compress(bytes(1 << 24)))
        file.write(packer.flush())
    assert not sound(line)
