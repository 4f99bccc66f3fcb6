"""Starts launcher and runner as separate processes and relays the runner's events. TRUSTED.

Holds the launcher's stdin: when this process ends, however it ends, the launcher ends with its containers.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from runner.doors import PREFIX
from runner.errors import GloveboxError, RelayedError
from runner.home import SOURCE, Home
from runner.session import Settings

_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "XDG_RUNTIME_DIR", "VIRTUAL_ENV", "SSL_CERT_FILE")


@contextmanager
def launcher(home: Home) -> Iterator[tuple[Path, Path]]:
    """A running launcher; yields (launch door, bench door) in a private short-lived folder."""
    doors = Path(tempfile.mkdtemp(prefix=PREFIX))  # short: socket paths end at 108 bytes
    launch, bench = doors / "launch" / "launch.sock", doors / "bench" / "bench.sock"
    process = _spawn("runner.launcher", str(home.root), str(launch), str(bench))
    served = False
    try:
        line = process.stdout.readline() if process.stdout else ""
        ready = json.loads(line) if line else {}
        if ready.get("event") != "ready":
            raise RelayedError(ready.get("error", "the launcher did not start"), ready.get("code", 1))
        served = True
        yield launch, bench
    finally:
        if process.stdin:
            with suppress(OSError):
                process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(60)
        process.kill()
        if process.wait() != 0 and served:  # it was killed, and its containers may run on without a clock
            with suppress(subprocess.TimeoutExpired):
                _spawn("runner.launcher", str(home.root)).wait(90)
        shutil.rmtree(doors, ignore_errors=True)


def run(settings: dict[str, Any], home: Home) -> Iterator[dict[str, Any]]:
    """Run a session to its end, yielding its events; the last is {"event": "exit", "code": n}.

    Closing the iterator or an interrupt stops the session in order.
    """
    with launcher(home) as (launch, bench):
        document = Settings(home=str(home.root), launch_door=str(launch), bench_door=str(bench), **settings)
        process = _spawn("runner.session", document.model_dump_json())
        try:
            yield from _events(process)
        finally:
            _stop(process)
        yield {"event": "exit", "code": process.returncode}


def _events(process: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    for line in process.stdout or ():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            raise GloveboxError("the runner printed something that is not an event", where="runner.session") from None
    process.wait()


def _stop(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _spawn(module: str, *args: str) -> subprocess.Popen[str]:
    environment = {k: v for k, v in os.environ.items() if k in _ENVIRONMENT or k.startswith(("DOCKER_", "GLOVEBOX_"))}
    # -P: the caller's folder must not provide modules to a trusted process.
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module, *args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**environment, "PYTHONPATH": str(SOURCE)},
        start_new_session=True,  # Ctrl-C reaches the supervisor alone, which stops the rest in order
    )
