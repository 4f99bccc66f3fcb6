"""How a process ended that raised no exception: by a signal, or with an exit code of its own. TRUSTED, pure.

The engine's word, as the init program in the container passes it on: 128 and the signal's number, as a shell says it
(POSIX.1-2017, XCU 2.8.2). A train.py may end itself either way, so both are counted as what it tells (leak_budget.py).
"""

from __future__ import annotations

import signal

from runner.core.base.values import Crash

_NAMES = (
    "SIGHUP", "SIGINT", "SIGQUIT", "SIGILL", "SIGTRAP", "SIGABRT", "SIGBUS", "SIGFPE", "SIGKILL", "SIGUSR1", "SIGSEGV",
    "SIGUSR2", "SIGPIPE", "SIGALRM", "SIGTERM", "SIGXCPU", "SIGXFSZ", "SIGSYS",
)  # fmt: skip
_WHY = {
    "SIGSEGV": "a kernel or an extension read memory that is not its own",
    "SIGABRT": "a library gave up: look at the end of the log",
    "SIGBUS": "memory behind a file was not there",
    "SIGILL": "an instruction this processor does not have",
    "SIGFPE": "an integer was divided by zero",
    "SIGALRM": "a timer of train.py's own",
    "SIGXFSZ": "a file became larger than policy allows",
    "SIGSYS": "a system call that the sandbox does not allow",
}
SIGNALS = {128 + getattr(signal, name): name for name in _NAMES}
EXIT_CODE = "ExitCode"
EXIT_CODES = 256


def crash(exit_code: int) -> Crash | None:
    """What to tell of an exit code; None of success."""
    if exit_code == 0:
        return None
    name = SIGNALS.get(exit_code)
    if name is None:
        return Crash(error=EXIT_CODE, line=0, message=f"train.py ended with exit code {exit_code & 0xFF}")
    why = f": {_WHY[name]}" if name in _WHY else ""
    return Crash(error=name, line=0, message=f"ended by signal {name}{why}")
