"""The launcher as it ends: nothing that it made is left, nor what it is making."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import docker
import pytest

from runner.core.base import doors
from runner.core.base.errors import DoorError
from runner.core.base.home import Home
from runner.core.base.launching import LaunchRequest
from runner.core.base.run_folder import new_run_id
from runner.core.policy.policy_files import Policies
from runner.rooms.launcher import containers
from runner.rooms.launcher.server import Launcher

pytestmark = pytest.mark.engine


class Slow(Launcher):
    """Thinks for a second before it makes a container."""

    asked = threading.Event()

    def specification(self, request: LaunchRequest, folder: Path) -> dict[str, Any]:
        self.asked.set()
        time.sleep(1)
        return super().specification(request, folder)


@pytest.mark.parametrize("finished", [True, False])
def test_what_is_being_made_when_a_launcher_ends_is_removed_too(
    engine: docker.DockerClient, home: Home, policies: Policies, tmp_path: Path, finished: bool
) -> None:
    """Without `finish`, the control: it comes to be after the last look at what there is."""
    made = Slow(engine, home, doors.Places(tmp_path), policies)
    made.asked.clear()
    ours, theirs = socket.socketpair()

    def serve() -> None:
        with suppress(DoorError):  # we hang up on it
            made.handle(doors.Line(theirs))

    handler = threading.Thread(target=serve)
    handler.start()
    request = LaunchRequest(role="trainer", run=new_run_id(), policy=policies.digest, artifact="demo-1")
    doors.Line(ours).send(request.model_dump(mode="json"))
    assert made.asked.wait(10)
    try:
        if finished:
            made.finish()
            assert containers.of_bench(engine, home.id) == []
        else:
            assert containers.reap(engine, home.id) == []
            deadline = time.monotonic() + 30
            while not containers.of_bench(engine, home.id):
                assert time.monotonic() < deadline
                time.sleep(0.05)
    finally:
        ours.close()
        handler.join(60)
        theirs.close()
    assert not handler.is_alive()
    assert containers.of_bench(engine, home.id) == []
