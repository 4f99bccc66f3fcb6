"""`bench` as a shell agent uses it: a process of its own, against a desk on a real socket."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.client import Bench
from agent.tools import Editor
from agent.workspace import Workspace
from runner.core.base.home import SOURCE
from tests.agent.conftest import SEED, FakeDesk

Desk = tuple[FakeDesk, Callable[[], Bench], Editor]
Run = Callable[..., tuple[int, Any]]


@pytest.fixture
def space(tmp_path: Path, desk: Desk) -> Workspace:
    made = Workspace(tmp_path / "space", desk[0].train_py)
    made.prepare()
    return made


@pytest.fixture
def bench(desk: Desk, space: Workspace) -> Run:
    """Runs the command: (exit code, the document it prints)."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(SOURCE),
        "GLOVEBOX_BENCH": desk[1]()._path,
        "GLOVEBOX_TRAIN_PY": str(desk[0].train_py),
        "GLOVEBOX_WORKSPACE": str(space.folder),
    }

    def run(*words: str) -> tuple[int, Any]:
        command = [sys.executable, "-m", "agent.bench", *words]
        done = subprocess.run(
            command, env=environment, cwd=space.folder, capture_output=True, text=True, timeout=60, check=False
        )
        return done.returncode, json.loads(done.stdout) if done.stdout else done.stderr

    return run


def train_py(space: Workspace) -> Path:
    assert space.folder is not None
    return space.folder / "train.py"


def test_what_was_edited_in_the_folder_is_what_runs(bench: Run, desk: Desk, space: Workspace) -> None:
    train_py(space).write_text("better\n")
    code, told = bench("run", "a change")
    assert (code, told["feedback"]["experiment"]) == (0, 1)
    assert desk[0].ran == [("a change", "better\n")]
    assert train_py(space).read_text() == SEED  # the desk put the best back
    assert train_py(space).with_name("train.py.tried").read_text() == "better\n"


def test_another_file_can_be_named(bench: Run, desk: Desk, space: Workspace) -> None:
    train_py(space).with_name("idea.py").write_text("idea\n")
    assert bench("run", "an idea", "idea.py")[0] == 0
    assert desk[0].ran == [("an idea", "idea\n")]
    code, told = bench("run", "nothing", "nowhere.py")
    assert (code, told["ok"]) == (1, False)
    assert "nowhere.py cannot be read" in told["reason"]
    assert len(desk[0].ran) == 1


def test_restore_gives_the_best_version_back(bench: Run, space: Workspace) -> None:
    train_py(space).write_text("lost\n")
    assert bench("restore")[0] == 0
    assert train_py(space).read_text() == SEED


def test_an_experiment_may_take_longer_than_a_client_waits(
    bench: Run, desk: Desk, space: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Claude Code ends a command after ten minutes, and its experiment's answer was lost."""
    real, trained = FakeDesk._run_experiment, threading.Event()

    def slow(self: FakeDesk, request: Any) -> dict[str, Any] | None:
        trained.wait(120)
        return real(self, request)

    monkeypatch.setattr(FakeDesk, "_run_experiment", slow)
    assert bench("status") == (1, {"ok": False, "reason": "nothing_detached"})
    train_py(space).write_text("long\n")
    assert bench("run", "--detach", "a long one") == (0, {"ok": True, "running": True})
    assert bench("status") == (4, {"ok": True, "running": True})
    assert bench("wait", "--seconds", "0.1") == (4, {"ok": True, "running": True})
    assert bench("run", "--detach", "another") == (1, {"ok": False, "reason": "busy"})
    trained.set()
    code, told = bench("wait")
    assert (code, told["feedback"]["experiment"]) == (0, 1)
    assert bench("wait") == (code, told)  # it may be asked again
    assert desk[0].ran == [("a long one", "long\n")]
    assert train_py(space).read_text() == SEED


def test_a_detached_run_that_is_refused_or_cut_off_says_so(bench: Run, desk: Desk) -> None:
    desk[0].outcomes.append("hang_up")
    assert bench("run", "--detach", "cut off")[0] == 0
    assert bench("wait") == (3, {"ok": False, "reason": "interrupted"})
    assert bench("run", "--detach", "x", "nowhere.py")[0] == 0
    code, told = bench("wait")
    assert (code, told["ok"]) == (1, False)


def test_a_detached_run_that_was_killed_is_interrupted(bench: Run, space: Workspace) -> None:
    space.state.mkdir(exist_ok=True)
    dead = subprocess.Popen(["true"])
    dead.wait()
    (space.state / "pid").write_text(str(dead.pid))
    assert bench("wait") == (1, {"ok": False, "reason": "interrupted"})


@pytest.mark.parametrize("words", [(), ("run",), ("telemetry", "x"), ("nonsense",), ("wait", "--seconds", "x")])
def test_wrong_usage_is_two(bench: Run, words: tuple[str, ...]) -> None:
    assert bench(*words)[0] == 2
