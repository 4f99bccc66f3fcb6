"""The launcher as a process of its own. TRUSTED, the only one with the engine's socket.

    python -m runner.rooms.launcher HOME DOORS       serve until stdin closes, which `glovebox` holds
    python -m runner.rooms.launcher HOME             only remove what a dead launcher of this bench left behind
    python -m runner.rooms.launcher --service HOME   under compose: until SIGTERM, or the tag is over

Whose bench it is was looked at by who starts it (ownership.py). Prints one event, ready or failed, as a line of JSON.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import docker
from requests.exceptions import RequestException

from runner.core.base import compose, doors, locks
from runner.core.base.errors import GloveboxError
from runner.core.base.mountable import Mountable
from runner.core.policy import walls
from runner.rooms.launcher import containers
from runner.rooms.launcher.engine import SECONDS, connect_engine
from runner.rooms.launcher.server import Launcher, failed

_HANDOVER_SECONDS = 20.0  # a launcher that was told to end may still be removing its containers
_MAX_PEERS = 64  # containers at a time; each is a connection


def main(argv: list[str]) -> int:
    """Serve, or only tidy up; returns the exit code, and prints what went wrong as an event."""
    service = argv[1] == "--service"
    try:
        home = Mountable(Path(argv[-1] if service else argv[1]))
        with locks.hold(home.launcher_lock, "launcher", _HANDOVER_SECONDS):  # a bench has one
            if service:
                ending = threading.Event()
                signal.signal(signal.SIGTERM, lambda *_: ending.set())
                _serve(home, compose.DOORS, partial(compose.until_over, ending, compose.DOORS.launch), watch=True)
            elif len(argv) == 2:
                containers.reap(docker.from_env(timeout=int(SECONDS)), home.id)
            else:
                _serve(home, doors.Places(Path(argv[2])), sys.stdin.read, watch=False)
    except (GloveboxError, docker.errors.DockerException, RequestException, OSError) as error:
        told = failed(error)
        if service:
            return compose.failed("launcher", int(told["code"]), str(told["error"]))
        print(json.dumps(told), flush=True)
        return int(told["code"])
    return 0


def _serve(home: Mountable, places: doors.Places, until: Callable[[], object], *, watch: bool) -> None:
    """Answer launch requests until `until` returns; `watch`: agents are started by somebody else (freezing.py)."""
    launcher = Launcher(connect_engine(walls.load(*home.policies).sandbox), home, places, watch=watch)
    reaped = containers.reap(launcher.client, home.id)  # we hold the lock, so these are a dead launcher's
    launcher.freezer.settle()  # an agent of compose's, which it left standing still
    with doors.listening(places.launch, gid=os.getegid(), mode=0o600) as sock:
        uids = frozenset({os.geteuid()})
        threading.Thread(target=doors.serve, args=(sock, uids, launcher.handle, _MAX_PEERS), daemon=True).start()
        print(json.dumps({"event": "ready", "reaped": reaped}), flush=True)
        until()
        sock.shutdown(socket.SHUT_RDWR)
    launcher.finish()


if __name__ == "__main__":
    sys.exit(main(sys.argv))
