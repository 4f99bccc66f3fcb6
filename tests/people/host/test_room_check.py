"""Rooms that look complete and cannot start: doctor starts them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import docker
import pytest

from runner.core.base.home import Home
from runner.core.base.mountable import SOURCE
from runner.core.policy.policy_files import Policies
from runner.people.host import room_check
from runner.people.redteam.stage import stage

pytestmark = pytest.mark.engine
CLOSED = "glovebox/test-closed:dev"


@pytest.fixture(params=["trainer", "agent", "runner"])
def closed(engine: docker.DockerClient, request: pytest.FixtureRequest) -> Iterator[str]:
    """A room's image as a clone under umask 077 made it: its files readable by root alone."""
    name = f"glovebox/{request.param}:dev"
    container = engine.containers.create(name, ["chmod", "-R", "go=", "/opt/glovebox"], user="0", entrypoint=[])
    try:
        container.start()
        assert container.wait()["StatusCode"] == 0
        entry = engine.api.inspect_image(name)["Config"]["Entrypoint"]
        container.commit(*CLOSED.split(":"), conf={"Entrypoint": entry})
    finally:
        container.remove(force=True)
    yield str(request.param)
    engine.images.remove(CLOSED, force=True)


def test_an_image_whose_files_nobody_may_read_fails_by_its_own_line(
    engine: docker.DockerClient, policies: Policies, closed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`doctor` passed it: the image was there."""
    rooms = {"trainer": ("trainer", "evaluator"), "agent": ("agent",), "runner": ()}[closed]
    sandbox = policies.sandbox.model_copy(
        update={room: getattr(policies.sandbox, room).model_copy(update={"image": CLOSED}) for room in rooms}
    )
    if closed == "runner":
        monkeypatch.setattr(room_check, "SERVICES_IMAGE", CLOSED)
        monkeypatch.setattr(room_check.os, "getuid", lambda: 1000)
    monkeypatch.setattr("runner.rooms.launcher.engine.check_apart", lambda *_: None)  # they are not what is looked at
    with stage(engine, policies.model_copy(update={"sandbox": sandbox}), None) as made:
        found = {check.name: check for check in room_check.of_rooms(made)}
    failed = {name for name, check in found.items() if not check.ok}
    wanted = {f"room: {room}" for room in rooms} or {"room: compose's services"}
    assert wanted <= failed <= wanted | {"mounts: bench and sockets"}
    assert all("make images" in found[name].fix for name in wanted)


def test_without_compose_its_image_is_not_asked_for(
    engine: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room_check, "SERVICES_IMAGE", "glovebox/none:dev")
    made: Any = SimpleNamespace(client=engine, bench="none")
    one = room_check._services(made)
    assert one.ok
    assert "is not built" in one.detail


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a folder that the engine does not see")
@pytest.mark.parametrize("hidden", [True, False])
def test_an_engine_that_does_not_see_the_sockets_folder_is_found_before_a_run(
    home: Home, tmp_path: Path, hidden: bool
) -> None:
    """Docker in a virtual machine, or one with a /tmp of its own: agents found an empty folder."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    home.root.chmod(0o700)
    hide = f"mount -t tmpfs none {folder}; " if hidden else ""
    command = f"{hide}TMPDIR={folder} {sys.executable} -m runner doctor --json"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", command],
        env={**os.environ, "GLOVEBOX_HOME": str(home.root), "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=False,
    )
    (found,) = (c for c in json.loads(done.stdout)["checks"] if c["name"] == "mounts: bench and sockets")
    assert found["ok"] is not hidden, found
    assert not hidden or "TMPDIR" in found["fix"]
