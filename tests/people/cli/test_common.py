"""Signals end a command in order, nohup(1) is heeded, and the version is told."""

from __future__ import annotations

import subprocess
import sys
import tomllib

import pytest

from runner.core.base.mountable import SOURCE

WAITING = (
    "import signal, sys, time\n"
    "signal.signal(signal.SIGHUP, signal.SIG_IGN if 'nohup' in sys.argv else signal.SIG_DFL)\n"
    "from runner.people.cli.common import interruptible\n"
    "interruptible()\n"
    "try:\n"
    "    signal.raise_signal(getattr(signal, sys.argv[1]))\n"
    "    print('goes on')\n"
    "except KeyboardInterrupt:\n"
    "    print('ended in order')\n"
)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["SIGTERM"], "ended in order"),
        (["SIGHUP"], "ended in order"),
        (["SIGHUP", "nohup"], "goes on"),
        (["SIGTERM", "nohup"], "ended in order"),
    ],
)
def test_a_hangup_ends_a_run_unless_it_was_started_to_outlive_its_terminal(args: list[str], said: str) -> None:
    command = [sys.executable, "-c", WAITING, *args]
    done = subprocess.run(command, cwd=SOURCE, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == said, done.stderr


def test_the_version_is_the_projects() -> None:
    project = tomllib.loads((SOURCE / "pyproject.toml").read_text())["project"]
    command = [sys.executable, "-m", "runner", "--version"]
    done = subprocess.run(command, cwd=SOURCE, capture_output=True, text=True, check=True)
    assert done.stdout == f"glovebox {project['version']}\n"
