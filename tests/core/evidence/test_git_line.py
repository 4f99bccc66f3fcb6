"""The kept line: a plain git branch that no outside configuration can touch."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.core.base.errors import GloveboxError
from runner.core.evidence import git_line
from runner.core.evidence.git_line import GitLine, message
from tests import hostile_git


@pytest.fixture
def line(tmp_path: Path) -> GitLine:
    return GitLine(tmp_path / "line.git")


def log(path: Path, ref: str) -> list[str]:
    done = subprocess.run(
        ["git", "log", "--format=%s", ref], cwd=path, capture_output=True, text=True, check=True, env={**os.environ}
    )
    return done.stdout.split("\n")[:-1]


def test_keeps_form_a_branch_and_discards_do_not(line: GitLine) -> None:
    assert line.head("t") is None
    first = line.commit("t", 1, b"a = 1\n", "experiment 1")
    line.advance("t", first)
    line.commit("t", 2, b"a = 2\n", "experiment 2")
    third = line.commit("t", 3, b"a = 3\n", "experiment 3")
    line.advance("t", third)
    assert line.head("t") == third
    assert log(line.path, "autoresearch/t") == ["experiment 3", "experiment 1"]
    assert log(line.path, "refs/experiments/t/2") == ["experiment 2", "experiment 1"]


def test_content_is_exact(line: GitLine) -> None:
    data = b"\r\n\ttext \xc3\xbc\n\n"
    assert line.content(line.commit("t", 1, data, "x")) == data


def test_diff_shows_the_change(line: GitLine) -> None:
    old, new = line.commit("t", 1, b"a = 1\n", "x"), line.commit("t", 2, b"a = 2\n", "y")
    assert "-a = 1\n+a = 2\n" in line.diff(old, new)


def test_hooks_and_configuration_of_the_user_have_no_effect(
    line: GitLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    mark = tmp_path / "ran"
    for name in ("reference-transaction", "post-commit", "update"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {mark}\n")
        (hooks / name).chmod(0o755)
    config = tmp_path / "gitconfig"
    config.write_text(f"[core]\n\thooksPath = {hooks}\n[user]\n\tname = someone\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    monkeypatch.setenv("GIT_AUTHOR_NAME", "someone")
    commit = line.commit("t", 1, b"x\n", "x")
    line.advance("t", commit)
    assert not mark.exists()
    assert b"author glovebox" in line._run("cat-file", "commit", commit)
    # Positive control: with a plain git the same hooks do run.
    subprocess.run(["git", "update-ref", "refs/heads/other", commit], cwd=line.path, check=True)
    assert mark.exists()


def trailers(text: str) -> str:
    done = subprocess.run(
        ["git", "interpret-trailers", "--parse"], input=text, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.parametrize(
    "description",
    [
        "Signed-off-by: Somebody <s@example.org>",
        "Co-authored-by: A <a@example.org>",
        "x\nSigned-off-by: A <a@example.org>",
        "x\n\nSigned-off-by: A <a@example.org>",
        "x\x85Signed-off-by: A <a@example.org>",
        "cherry picked from commit abc)",
        "Fixes: #1",
    ],
)
def test_a_description_is_no_trailer(description: str) -> None:
    assert trailers(message("experiment 2: keep", description)) == ""


@given(st.text(max_size=200))
def test_a_commit_message_is_a_title_and_one_indented_line(description: str) -> None:
    title, empty, told, end = message("experiment 2: keep", description).split("\n")
    assert (title, empty, end) == ("experiment 2: keep", "", "")
    assert told.startswith("    description: ")
    assert told.isprintable()
    assert not set("#@[]") & set(told)


def test_a_real_commit_has_no_trailer_from_a_description(line: GitLine) -> None:
    commit = line.commit("t", 1, b"a = 1\n", message("experiment 1: keep", "Signed-off-by: Linus <l@example.org>"))
    found = subprocess.run(
        ["git", "log", "-1", "--format=%(trailers)", commit], cwd=line.path, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == ""
    forged = line.commit("t", 2, b"a = 1\n", "experiment 2: keep\n\nSigned-off-by: Linus <l@example.org>\n")
    found = subprocess.run(
        ["git", "log", "-1", "--format=%(trailers)", forged], cwd=line.path, capture_output=True, text=True, check=True
    )
    assert "Signed-off-by" in found.stdout  # the control: as it was


def test_should_a_configuration_get_past_the_check_nothing_runs(
    line: GitLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second wall, with the first removed; and the same repository under a plain git as the control."""
    first = line.commit("t", 1, b"a = 1\n", "x")
    line.advance("t", first)
    bundle = tmp_path / "b"
    line.bundle("autoresearch/t", bundle)
    mark = hostile_git.plant(line.path, tmp_path / "evil")
    monkeypatch.setattr(git_line, "inspect", lambda _: None)
    opened = GitLine(line.path)
    second = opened.commit("t", 2, b"a = 2\n", "y")
    opened.advance("t", second)
    assert opened.content(second) == b"a = 2\n"
    assert "+a = 2" in opened.diff(first, second)
    assert opened.names(second) == ["train.py"]
    opened.publish(
        "exp/CPU/t",
        [({"train.py": b"a\n"}, "m", "2026-01-01T00:00:00+00:00")],
        ({"r": b""}, "e", "2026-01-01T00:00:00+00:00"),
    )
    opened.bundle("exp/CPU/t", tmp_path / "c")
    opened.fetch(bundle, "autoresearch/t")
    hostile_git.lose_objects(line.path)
    for lost in (lambda: opened.content(first), lambda: opened.diff(first, second), lambda: opened.names(second)):
        with pytest.raises(GloveboxError):
            lost()
    assert not mark.exists(), mark.read_text()
    for command in (["cat-file", "-p", first], ["update-ref", "refs/heads/x", "HEAD"], ["gc"]):
        subprocess.run(["git", *command], cwd=line.path, capture_output=True, check=False)
    assert {"core.sshCommand", "included"} & set(mark.read_text().split())


def test_a_repository_that_a_session_writes_to_is_sound(line: GitLine) -> None:
    """git that finds the references itself took those for missing that were written after it had listed objects."""
    stop = threading.Event()

    def record() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            line.advance("t", line.commit("t", number, b"x = %d\n" % number, "x"))

    session = threading.Thread(target=record)
    session.start()
    try:
        assert [line.sound(line.references()) for _ in range(20)] == [True] * 20
    finally:
        stop.set()
        session.join()
