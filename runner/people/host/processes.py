"""Starts launcher, broker and runner as separate processes and relays the runner's events. TRUSTED.

Holds the stdin of launcher and broker: when this process ends, however it ends, they end too, the launcher
with its containers. A broker that dies is started again; its budget is on disk.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from runner.core.base.doors import PREFIX, Places
from runner.core.base.errors import GloveboxError, RelayedError
from runner.core.base.home import Home
from runner.core.base.mountable import SOURCE
from runner.rooms.broker.settings import Settings as BrokerSettings
from runner.rooms.desk.settings import Settings

_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "XDG_RUNTIME_DIR", "VIRTUAL_ENV", "SSL_CERT_FILE")
_RESTART_SECONDS = 1.0


@contextmanager
def doors() -> Iterator[Places]:
    """A private short-lived folder for the sockets of one run."""
    root = Path(tempfile.mkdtemp(prefix=PREFIX))  # short: socket paths end at 108 bytes
    try:
        yield Places(root)
    finally:
        shutil.rmtree(root, ignore_errors=True)


@contextmanager
def launcher(home: Home, places: Places) -> Iterator[None]:
    """A running launcher."""
    process = start("runner.rooms.launcher", str(home.root), str(places.root))
    served = False
    try:
        _ready(process, "launcher")
        served = True
        yield
    finally:
        _close(process, 30)
        if process.wait() != 0 and served:  # it was killed, and its containers may run on without a clock
            _close(start("runner.rooms.launcher", str(home.root)), 30)


@contextmanager
def broker(settings: BrokerSettings) -> Iterator[None]:
    """A running broker, started again whenever it dies; raises what it says when it cannot start at all."""
    current = [start("runner.rooms.broker", settings.model_dump_json())]
    leaving, swapping = threading.Event(), threading.Lock()

    def keep() -> None:
        pause = _RESTART_SECONDS
        while True:
            current[0].wait()
            if leaving.wait(pause):
                return
            try:
                with swapping:
                    if leaving.is_set():
                        return
                    current[0] = start("runner.rooms.broker", settings.model_dump_json())
                _ready(current[0], "broker")
                pause = _RESTART_SECONDS
            except (GloveboxError, OSError) as error:
                pause = min(60.0, pause * 2)
                print(f"glovebox broker: {error}; again in {pause:.0f} s", file=sys.stderr, flush=True)

    try:
        _ready(current[0], "broker")
        threading.Thread(target=keep, daemon=True).start()
        yield
    finally:
        leaving.set()
        with swapping:
            _close(current[0], 10)


def run(settings: dict[str, Any], home: Home, key_file: Path | None = None) -> Iterator[dict[str, Any]]:
    """Run a session to its end, yielding its events; the last is {"event": "exit", "code": n}.

    With a key file a broker stands between the agent and the model API. Closing the iterator or an interrupt
    stops the session in order.
    """
    with ExitStack() as stack:
        places = stack.enter_context(doors())
        if key_file is not None:
            stack.enter_context(broker(broker_settings(home, places, settings["tag"], key_file)))
        stack.enter_context(launcher(home, places))
        document = Settings(home=str(home.root), doors=str(places.root), meter=key_file is not None, **settings)
        process = start("runner.rooms.desk", document.model_dump_json())
        try:
            yield from events(process)
        finally:
            _stop(process)
        yield {"event": "exit", "code": process.returncode}


def broker_settings(home: Home, places: Places, tag: str, key_file: Path) -> BrokerSettings:
    """The broker of a bench."""
    return BrokerSettings(
        policies=[str(folder) for folder in home.policies],
        state=str(home.broker),
        doors=str(places.root),
        tag=tag,
        key_file=str(key_file.absolute()),
    )


def _ready(process: subprocess.Popen[str], what: str) -> None:
    line = process.stdout.readline() if process.stdout else ""
    told = json.loads(line) if line else {}
    if told.get("event") != "ready":
        raise RelayedError(told.get("error", f"the {what} did not start"), told.get("code", 1))


def _close(process: subprocess.Popen[str], seconds: float) -> None:
    """End a process by closing its stdin, or by force."""
    if process.stdin:
        with suppress(OSError):
            process.stdin.close()
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    process.kill()
    process.wait()


def events(process: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    """What a desk tells, to its end."""
    for line in process.stdout or ():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            raise GloveboxError(
                "the runner printed something that is not an event", where="runner.rooms.desk"
            ) from None
    process.wait()


def _stop(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def start(
    module: str, *args: str, stdin: int = subprocess.PIPE, stdout: int = subprocess.PIPE
) -> subprocess.Popen[str]:
    """A trusted process of ours, with as much of the environment as it needs."""
    environment = {k: v for k, v in os.environ.items() if k in _ENVIRONMENT or k.startswith(("DOCKER_", "GLOVEBOX_"))}
    # -P: the caller's folder must not provide modules to a trusted process.
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module, *args],
        stdin=stdin,
        stdout=stdout,
        text=True,
        env={**environment, "PYTHONPATH": str(SOURCE)},
        start_new_session=True,  # Ctrl-C reaches the supervisor alone, which stops the rest in order
    )
