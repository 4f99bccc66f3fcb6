"""`bench` as a shell agent uses it: a process of its own, against a desk on a real socket."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.client import Bench
from agent.tools import Editor
from agent.workspace import Workspace
from runner.core.base.mountable import SOURCE
from tests.agent.conftest import SEED, FakeDesk

Desk = tuple[FakeDesk, Callable[[], Bench], Editor]
Run = Callable[..., tuple[int, Any]]


@pytest.fixture
def space(tmp_path: Path, desk: Desk) -> Workspace:
    made = Workspace(tmp_path / "space", desk[0].train_py)
    made.prepare("be bold\n")
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
        command = [sys.executable, "-P", "-m", "agent.bench", *words]
        done = subprocess.run(
            command, env=environment, cwd=space.folder, capture_output=True, text=True, timeout=60, check=False
        )
        return done.returncode, json.loads(done.stdout) if done.stdout else done.stderr

    return run


def train_py(space: Workspace) -> Path:
    assert space.folder is not None
    return space.folder / "train.py"


def held(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Experiments of the desk take until this is set."""
    real, over = FakeDesk._run_experiment, threading.Event()

    def waits(self: FakeDesk, request: Any) -> dict[str, Any] | None:
        over.wait(120)
        return real(self, request)

    monkeypatch.setattr(FakeDesk, "_run_experiment", waits)
    return over


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
    trained = held(monkeypatch)
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


def test_a_detached_run_that_was_killed_is_interrupted(
    bench: Run, space: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = held(monkeypatch)
    assert bench("run", "--detach", "killed")[0] == 0
    (pid,) = (
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if path.read_bytes().startswith(b"sh\0-c\0") and str(space.state).encode() in path.read_bytes()
    )
    os.killpg(pid, signal.SIGKILL)  # as for its memory
    assert bench("wait") == (1, {"ok": False, "reason": "interrupted"})
    over.set()
    assert bench("run", "--detach", "once more")[0] == 0


@pytest.mark.parametrize("words", [(), ("run",), ("telemetry", "x"), ("nonsense",), ("wait", "--seconds", "x")])
def test_wrong_usage_is_two(bench: Run, words: tuple[str, ...]) -> None:
    assert bench(*words)[0] == 2


def test_after_a_refusal_or_a_cut_the_next_edit_runs(bench: Run, desk: Desk, space: Workspace) -> None:
    """What was carried over lay there still: `both were edited`, of which the agent had edited one."""
    desk[0].outcomes.extend(["hang_up", "keep", "keep"])
    train_py(space).write_text("first\n")
    assert bench("run", "cut off")[0] == 3
    train_py(space).write_text("second\n")
    assert bench("run", "again")[0] == 0
    assert desk[0].ran == [("again", "second\n")]


def test_no_other_file_runs_under_a_description(
    bench: Run, desk: Desk, space: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The desk reads the file when its turn has come: what was carried over meanwhile ran as what waited."""
    turn = held(monkeypatch)
    train_py(space).write_text("A\n")
    assert bench("run", "--detach", "this is A")[0] == 0
    train_py(space).with_name("b.py").write_text("B\n")
    while not (space.state / "carried").exists():
        time.sleep(0.05)
    assert bench("run", "this is B", "b.py") == (1, {"ok": False, "reason": "busy"})
    train_py(space).write_text("edited meanwhile\n")
    turn.set()
    assert bench("wait")[0] == 0
    assert desk[0].ran == [("this is A", "A\n")]
    assert train_py(space).read_text() == "edited meanwhile\n"  # nobody's work is lost
    assert train_py(space).with_name("train.py.tried").read_text() == "A\n"


def test_another_files_run_leaves_edits_alone(bench: Run, desk: Desk, space: Workspace) -> None:
    train_py(space).write_text("half an idea\n")
    train_py(space).with_name("idea.py").write_text("idea\n")
    assert bench("run", "idea", "idea.py")[0] == 0
    assert train_py(space).read_text() == "half an idea\n"
    assert bench("run", "the rest")[0] == 0
    assert desk[0].ran == [("idea", "idea\n"), ("the rest", "half an idea\n")]


@pytest.mark.parametrize("detached", [False, True])
def test_a_description_may_begin_with_a_dash_and_a_folder_may_hold_modules(
    bench: Run, desk: Desk, space: Workspace, detached: bool
) -> None:
    train_py(space).with_name("json.py").write_text("raise SystemExit('not json')\n")
    assert bench("run", *(["--detach"] if detached else []), "--", "--lr=3e-4")[0] == 0
    assert not detached or bench("wait")[0] == 0
    assert desk[0].ran == [("--lr=3e-4", SEED)]
