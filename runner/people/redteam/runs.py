"""Probes from the host: how runs end, and what they leave behind. TRUSTED.

Each is one function, called once with its wall in place and once without. It returns if the attack got through and
raises Blocked if not, so that the same lines show both.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import docker

from runner.core.base.launching import EndReason
from runner.people.redteam.scenario import Blocked, Scenario, Unable
from runner.people.redteam.stage import Stage
from runner.rooms.launcher import specification

_SOON_SECONDS = 15.0
_Seen = TypeVar("_Seen")


def _wall_clock(stage: Stage, intact: bool) -> None:
    source = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(3)"
    result, _ = stage.run(stage.specification("trainer", small=True), source, seconds=1.5 if intact else 30.0)
    if result.reason is EndReason.WALL:
        raise Blocked


def _flood(stage: Stage, intact: bool) -> None:
    source = "import os\nfor _ in range(48): os.write(1, b'x' * 65536)"
    output = (1 << 20) if intact else (1 << 30)
    result, _ = stage.run(stage.specification("trainer", small=True), source, output=output)
    if result.reason is EndReason.OUTPUT:
        raise Blocked


def _bomb(stage: Stage, intact: bool, control: str, source: str) -> None:
    """Whoever ends it, the bomb or its container: what counts is that it did not go off."""
    if control == "process limit" and stage.policies.sandbox.runtime != "runc":
        raise Unable("gVisor's processes are not the host's; its memory is")
    spec = stage.specification("trainer", small=True)
    spec = spec if intact else stage.without(spec, (control,))
    result, output = stage.run(spec, source, seconds=20.0)
    if result.exit_code != 0 or b"went off" not in output:
        raise Blocked


_MEMORY = "x = bytearray(700 << 20); x[::4096] = b'1' * len(x[::4096]); print('went off')"
_FORKS = (
    "import os, time\n"
    "for _ in range(200):\n"
    "    if os.fork() == 0: time.sleep(5); os._exit(0)\n"
    "print('went off', flush=True); os._exit(0)"
)
_LEAVE = "for p in ('/tmp', '/cache', '/dev/shm'): open(p + '/left', 'w').close()"
_FIND = "import os; print([p for p in ('/tmp', '/cache', '/dev/shm') if os.path.exists(p + '/left')])"


def _leftover_files(stage: Stage, intact: bool) -> None:
    spec = stage.specification("trainer", small=True)
    if intact:
        stage.run(spec, _LEAVE)
        _, found = stage.run(spec, _FIND)
    else:
        with stage.container(spec, _LEAVE + "\nimport time; time.sleep(30)") as container:
            container.start()
            found = _soon(
                lambda: container.exec_run(["python", "-c", _FIND]).output, lambda seen: seen.strip() != b"[]"
            )
    if found.strip() == b"[]":
        raise Blocked


def _leftover_process(stage: Stage, intact: bool) -> None:
    if stage.policies.sandbox.runtime != "runc":
        raise Unable("gVisor's processes are not the host's")
    mark = f"61.{os.getpid():08}"  # seconds of a sleep that no other process has
    source = f"import subprocess, sys, time; subprocess.Popen(['sleep', '{mark}'], start_new_session=True)"
    spec = stage.specification("trainer", small=True)
    with stage.container(spec, source if intact else source + "; time.sleep(30)") as container:
        if intact:
            stage.attend(container)
        else:
            container.start()
            _soon(lambda: _running(mark), bool)
        if not _running(mark):
            raise Blocked


def _soon(look: Callable[[], _Seen], enough: Callable[[_Seen], bool]) -> _Seen:
    """What is seen once it is enough, or after 15 s: without its wall an attack gets the time that it needs."""
    deadline = time.monotonic() + _SOON_SECONDS
    while not enough(seen := look()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return seen


def _running(argument: str) -> bool:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if argument.encode() in path.read_bytes().split(b"\0"):
                return True
    return False


def _kept_log(stage: Stage, intact: bool) -> None:
    spec = stage.specification("trainer", small=True)
    spec = spec if intact else stage.without(spec, ("no log of output",))
    with stage.container(spec, "print('kept by the engine')") as container:
        stage.attend(container)
        try:
            text = container.logs()
        except docker.errors.APIError:
            raise Blocked from None
        if b"kept by the engine" not in text:
            raise Blocked


def _restart(stage: Stage, intact: bool) -> None:
    spec = stage.specification("trainer", small=True)
    spec = spec if intact else stage.without(spec, ("no restart",))
    with stage.container(spec, "raise SystemExit(1)") as container:
        container.start()
        deadline = time.monotonic() + (4 if intact else _SOON_SECONDS)
        while time.monotonic() < deadline:
            container.reload()
            if container.attrs["RestartCount"]:
                return
            time.sleep(0.2)
    raise Blocked


def _another_container(stage: Stage, intact: bool) -> None:
    """An engine whose defaults add something: is it noticed before the start?"""
    spec = stage.specification("trainer")
    made = spec | {"cap_add": ["SYS_PTRACE"], "dns": ["192.0.2.53"]}
    with stage.container(made, "pass") as container:
        container.reload()
        attrs = container.attrs
    attrs["Config"]["Cmd"] = spec["command"]
    if intact and specification.differences(attrs, spec):
        raise Blocked


RUNS = [
    Scenario("run-wall-clock", "T06", "host's clock", "-", _wall_clock),
    Scenario("run-output-flood", "T10", "output limit", "-", _flood),
    Scenario("run-memory-bomb", "T21", "memory limit", "5.11", lambda s, i: _bomb(s, i, "memory limit", _MEMORY)),
    Scenario("run-fork-bomb", "T21", "process limit", "5.29", lambda s, i: _bomb(s, i, "process limit", _FORKS)),
    Scenario("run-leftover-files", "T18", "fresh container", "-", _leftover_files),
    Scenario("run-leftover-process", "T18", "container is ended", "-", _leftover_process),
    Scenario("run-kept-log", "T10", "no log of output", "-", _kept_log),
    Scenario("run-restart", "T18", "no restart", "5.15", _restart),
    Scenario("engine-other-container", "T16", "compared before the start", "5", _another_container),
]
