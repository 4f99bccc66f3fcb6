"""What compose starts as `runner`: a desk and its follower, whose lines are for people and whose exit code is the desk's."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from runner.core.base.home import Home
from runner.core.base.mountable import SOURCE


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "GLOVEBOX_TAG: is not set (fix: run: glovebox init"),
        ({"GLOVEBOX_TAG": "night", "GLOVEBOX_EXPERIMENTS": "many"}, "environment: a setting is malformed"),
        ({"GLOVEBOX_TAG": "Night"}, "environment: a setting is malformed"),
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
