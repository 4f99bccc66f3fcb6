"""`glovebox` alone: what suits the place one is in; every command it names is one."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from runner.core.artifacts import keys
from runner.core.base import locks
from runner.core.base.home import Home
from runner.people.cli import main, next_step
from tests.people.pages.test_report_page import night

Glovebox = Callable[..., tuple[int, str, str]]


def at(home: Path, monkeypatch: pytest.MonkeyPatch) -> next_step.Next:
    monkeypatch.setenv("GLOVEBOX_HOME", str(home))
    return next_step.here()


def known(found: next_step.Next) -> bool:
    """Whether its commands are commands, and their options options."""
    root = typer.main.get_command(main.app)
    for command, what in found.commands:
        assert what
        words = [word for word in shlex.split(command)[1:] if word.islower() or word.startswith("--")]
        group = root
        while words and hasattr(group, "commands"):
            group = group.commands[words.pop(0)]
        options = {option for parameter in group.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, command
    return True


def test_without_a_bench_one_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = at(tmp_path / "none", monkeypatch)
    assert [command for command, _ in found.commands] == ["glovebox init"]
    monkeypatch.delenv("GLOVEBOX_HOME")
    monkeypatch.chdir(tmp_path)
    assert "no bench" in next_step.here().now


def test_somebody_elses_bench_is_not_made_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".glovebox").mkdir(mode=0o777)
    (tmp_path / ".glovebox").chmod(0o777)
    found = at(tmp_path / ".glovebox", monkeypatch)
    assert not found.commands


def test_a_bench_without_data_gets_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path / ".glovebox")
    home.root.mkdir(mode=0o700)
    keys.create(home)
    found = at(home.root, monkeypatch)
    assert found.commands[0][0] == "glovebox prepare --profile demo"
    assert known(found)


def test_before_during_and_after_a_run(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    before = at(home.root, monkeypatch)
    assert "nothing has run" in before.now
    assert known(before)
    night(home, 3)
    after = at(home.root, monkeypatch)
    assert "t: 3 experiments" in after.now
    assert known(after)
    with locks.hold(home.runner_lock, "a test"):
        during = at(home.root, monkeypatch)
    assert "t is running" in during.now
    assert known(during)


def test_json_before_a_command_is_refused_and_not_passed_over(glovebox: Glovebox, home: Home) -> None:
    code, out, _ = glovebox("--json", "tags", "list")
    assert (code, "goes behind the command" in out) == (2, True)


def test_the_command_says_so_and_in_json(glovebox: Glovebox, home: Home) -> None:
    code, out, _ = glovebox()
    assert (code, out.splitlines()[-1]) == (0, "all commands: glovebox -h")
    assert json.loads(glovebox("--json")[1])["next"][0] == "glovebox doctor"
