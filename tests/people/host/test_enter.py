"""Compose's launcher begins only on a bench that is ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from runner.core.base.home import Home
from runner.core.base.mountable import SOURCE
from runner.people.host import room_check


def enter(home: Home | None, **more: str) -> subprocess.CompletedProcess[str]:
    given = {name: value for name, value in os.environ.items() if not name.startswith("GLOVEBOX_")}
    given |= {"PYTHONPATH": str(SOURCE), "DOCKER_HOST": "unix:///nowhere.sock"} | more
    given |= {"GLOVEBOX_HOME": str(home.root)} if home else {}
    command = [sys.executable, "-P", "-m", "runner.people.host.enter", "runner.rooms.launcher"]
    return subprocess.run(command, env=given, capture_output=True, text=True, check=False, timeout=60)


def test_on_a_bench_of_ours_it_becomes_the_launcher(home: Home) -> None:
    """Here there is no engine, which only the launcher looks for."""
    done = enter(home)
    assert done.returncode == 5
    assert done.stderr.startswith("glovebox launcher: no container engine answers")


def test_a_bench_that_others_can_write_to_is_refused_and_not_tried_again(home: Home) -> None:
    home.trust.parent.chmod(0o777)
    done = enter(home)
    assert done.returncode == 0  # compose restarts what fails; this only a person can mend
    assert "can be written by others: not used as a bench" in done.stderr
    assert "engine" not in done.stderr
    assert enter(home, GLOVEBOX_FOREIGN_HOME=str(home.root)).returncode == 5  # the control: a person may trust it


def test_without_a_bench_it_says_what_is_missing() -> None:
    done = enter(None)
    assert done.returncode == 0
    assert done.stderr == (
        "glovebox launcher: GLOVEBOX_HOME: is not set (fix: run: glovebox init, which writes .env beside compose.yaml)\n"
    )


@pytest.mark.parametrize("service", ["broker", "launcher", "runner", "page"])
def test_every_service_of_compose_looks_at_whose_bench_it_is(service: str) -> None:
    """The launcher by this module; each of the others finds its bench by `of_service`."""
    module = yaml.safe_load(Path("compose.yaml").read_text())["services"][service]["command"][0]
    assert module in room_check.SERVICES
    path = SOURCE / (module.replace(".", "/") + "/__main__.py")
    path = path if path.exists() else SOURCE / (module.replace(".", "/") + ".py")
    assert "benches.of_service()" in path.read_text()
