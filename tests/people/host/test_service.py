"""What compose starts as `runner`: a desk and its follower, whose lines are for people and whose exit code is the desk's."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from runner.core.base.home import Home
from runner.core.base.mountable import SOURCE
from runner.rooms.desk.__main__ import _of_compose


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "GLOVEBOX_TAG: is not set (fix: run: glovebox init"),
        ({"GLOVEBOX_TAG": "night", "GLOVEBOX_EXPERIMENTS": "many"}, "environment: a setting is malformed"),
        ({"GLOVEBOX_TAG": "Night"}, "environment: a setting is malformed"),
        ({"GLOVEBOX_TAG": "night", "GLOVEBOX_PRUNE": "9"}, "GLOVEBOX_PRUNE: is set for a tag without an end"),
        ({"GLOVEBOX_TAG": "n", "GLOVEBOX_PRUNE": "0", "GLOVEBOX_EXPERIMENTS": "9"}, "environment: a setting is malf"),
    ],
)
def test_a_setting_that_is_missing_or_malformed_is_said_in_one_line(
    home: Home, settings: dict[str, str], told: str
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "GLOVEBOX_HOME": str(home.root), **settings}
    command = [sys.executable, "-P", "-m", "runner.people.host.service"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0  # compose would start it again, to no avail
    assert "session" not in done.stdout
    assert told in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("given", "runs"), [("", None), ("12", 12)])
def test_a_tag_of_compose_is_pruned_if_it_is_asked_for(
    home: Home, monkeypatch: pytest.MonkeyPatch, given: str, runs: int | None
) -> None:
    """compose.yaml passes an empty word where nothing is set."""
    named = {"HOME": str(home.root), "TAG": "night", "EXPERIMENTS": "40", "PRUNE": given, "GPU": ""}
    for name, value in named.items():
        monkeypatch.setenv(f"GLOVEBOX_{name}", value)
    settings = _of_compose()
    assert settings.until == 40
    assert (settings.prune and settings.prune.runs) == runs
