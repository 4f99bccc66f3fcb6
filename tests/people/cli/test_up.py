"""An unattended run between its sessions: what it tells, what it waits for, how it is stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from runner.core.base.errors import EngineError
from runner.core.base.home import Home
from runner.core.base.mountable import SOURCE
from runner.core.base.values import INTERRUPTED
from runner.core.evidence.ledger import Ledger
from runner.core.evidence.recorder import now
from runner.people.cli import up
from runner.people.cli.session import Followed
from runner.people.host.restarts import FRUITLESS
from tests.samples import experiment

Glovebox = Callable[..., tuple[int, str, str]]
HOLDING = (
    "import signal, sys, threading\n"
    "from pathlib import Path\n"
    "from runner.core.base import locks\n"
    "asked = threading.Event()\n"
    "signal.signal(signal.SIGUSR1, lambda *_: asked.set())\n"
    "with locks.hold(Path(sys.argv[1]), sys.argv[2]):\n"
    "    print('held', flush=True)\n"
    "    sys.exit(0 if asked.wait(30) else 1)\n"
)


class Sessions:
    """Stands in for `follow`: each session ends as listed, an error is one that did not start."""

    def __init__(self, *ends: Any) -> None:
        self.ends = list(ends)

    def __call__(self, *_: Any) -> Followed:
        end = self.ends.pop(0)
        if callable(end):
            end = end()
        if isinstance(end, BaseException):
            raise end
        return Followed(None, end, True)


@pytest.fixture
def keep_up(home: Home, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    def run(sessions: Sessions, after: threading.Event | None = None) -> int:
        monkeypatch.setattr(up, "follow", sessions)
        monkeypatch.setattr("runner.people.host.restarts.FIRST_PAUSE", 0.01)
        monkeypatch.setattr("runner.people.cli.up.interruptible", lambda: None)
        return up._keep_up(home, {"tag": "t"}, None, lambda _: None, after or threading.Event())

    return run


def fails_in(home: Home, reason: str | None) -> Callable[[], int]:
    """A session that fails after an experiment that ended so."""

    def run() -> int:
        book = Ledger(home.ledger)
        book.begin_run("t", now(), "demo-1", "0" * 64)
        row = experiment(book.last_number("t") + 1, reason=reason)
        told = {"started": row.started, "description": "x", "snapshot": row.snapshot, "run": row.run}
        book.open_experiment("t", size=row.snapshot_size, **told)
        book.close_experiment(row)
        book.close()
        return 1

    return run


def test_interrupted_experiments_are_nothing_to_go_on_for(keep_up: Callable[..., int], home: Home) -> None:
    """A GPU that is lost interrupts one in every session, each paid for with a model's turns."""
    sessions = Sessions(*[fails_in(home, INTERRUPTED)] * 20)
    assert keep_up(sessions) == 1
    assert len(sessions.ends) == 20 - FRUITLESS


def test_experiments_that_ended_are(keep_up: Callable[..., int], home: Home) -> None:
    sessions = Sessions(*[fails_in(home, None)] * 2 * FRUITLESS, 0)
    assert keep_up(sessions) == 0


def test_an_engine_that_is_away_for_a_while_is_waited_for(keep_up: Callable[..., int]) -> None:
    sessions = Sessions(5, *[EngineError("no engine")] * (FRUITLESS + 3), 1, 0)
    assert keep_up(sessions) == 0
    assert sessions.ends == []


def test_one_that_never_answered_is_not(keep_up: Callable[..., int]) -> None:
    sessions = Sessions(EngineError("no engine"), 0)
    assert keep_up(sessions) == 5
    assert sessions.ends == [0]


def test_a_system_that_starts_no_process_just_now_is_no_traceback(
    keep_up: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert keep_up(Sessions(1, OSError(24, "Too many open files"), 0)) == 0
    assert "glovebox: could not be started: [Errno 24] Too many open files" in capsys.readouterr().err


def test_stop_after_holds_however_the_last_experiment_ends(keep_up: Callable[..., int]) -> None:
    """A session that crashed in it is not started again."""
    after = threading.Event()

    def crashes() -> int:
        after.set()
        return 1

    sessions = Sessions(1, crashes, 0)
    assert keep_up(sessions, after) == 0
    assert sessions.ends == [0]


def test_stop_after_reaches_a_run_that_waits_between_sessions(glovebox: Glovebox, home: Home) -> None:
    keeper = subprocess.Popen(
        [sys.executable, "-c", HOLDING, str(home.up_lock), "up, tag night"],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert keeper.stdout is not None
    assert keeper.stdout.readline() == "held\n"
    assert glovebox("stop", "--after")[:2] == (0, "night ends after the experiment in progress\n")
    assert keeper.wait(30) == 0


def test_stop_after_leaves_housekeeping_alone(glovebox: Glovebox, home: Home) -> None:
    keeper = subprocess.Popen(
        [sys.executable, "-c", HOLDING, str(home.runner_lock), "gc"],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert keeper.stdout is not None
    assert keeper.stdout.readline() == "held\n"
    assert json.loads(glovebox("stop", "--after", "--json")[1]) == {"stopping": None}
    keeper.kill()
    assert keeper.wait() == -signal.SIGKILL
