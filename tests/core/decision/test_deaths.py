"""A process that ends without an exception is named by the engine's word."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from runner.core.decision import deaths


@pytest.mark.parametrize(
    ("code", "error", "said"),
    [
        (139, "SIGSEGV", "ended by signal SIGSEGV: a kernel"),
        (134, "SIGABRT", "ended by signal SIGABRT"),
        (142, "SIGALRM", "SIGALRM: a timer"),
        (137, "SIGKILL", "ended by signal SIGKILL"),
        (3, "ExitCode", "train.py ended with exit code 3"),
        (255, "ExitCode", "exit code 255"),
        (128, "ExitCode", "exit code 128"),  # no signal is number 0
        (-1, "ExitCode", "exit code 255"),
    ],
)
def test_an_exit_code_has_a_name_and_a_sentence(code: int, error: str, said: str) -> None:
    found = deaths.crash(code)
    assert found is not None
    assert (found.error, found.line) == (error, 0)
    assert said in (found.message or "")


def test_success_is_no_death() -> None:
    assert deaths.crash(0) is None


def test_no_two_signals_share_a_code_and_a_shell_says_them_alike() -> None:
    assert len(deaths.SIGNALS) == len(deaths._NAMES)
    done = subprocess.run(["sh", "-c", f"{sys.executable} -c 'import os; os.abort()'"], check=False)
    assert done.returncode in (128 + signal.SIGABRT, -signal.SIGABRT)  # a shell may take the command's place
