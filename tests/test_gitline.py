"""The kept line: a plain git branch that no outside configuration can touch."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from runner.gitline import GitLine


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


def test_a_repository_of_another_owner_still_works(line: GitLine) -> None:
    first = line.commit("t", 1, b"a = 1\n", "x")
    if os.geteuid() == 0:
        for path in (line.path, *line.path.rglob("*")):
            os.chown(path, 12345, 12345)
    assert GitLine(line.path).content(first) == b"a = 1\n"
    line.advance("t", first)
    assert line.head("t") == first


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
