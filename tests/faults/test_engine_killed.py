"""SIGKILL of a real engine, while a container stands by, trains and evaluates; `up` goes on by itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest

from runner.core.base.home import Home
from runner.core.base.mountable import SOURCE
from runner.core.policy.policy_files import Policies
from runner.rooms.launcher import containers
from tests.faults import own_engine
from tests.faults.own_engine import OwnEngine
from tests.faults.test_night import agent
from tests.samples import begun

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(1800)]
Glovebox = Callable[..., tuple[int, str, str]]
THINKING = 'until grep -q GO /work/train.py; do sleep 0.2; done; bench run "idea"'  # until the test says so


@pytest.fixture
def own(engine: docker.DockerClient, policies: Policies) -> Iterator[OwnEngine]:
    if (reason := own_engine.missing()) is not None:
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp())  # short: sockets lie in it
    made = OwnEngine(folder)
    try:
        made.start()
        made.load(policies.sandbox.trainer.image, policies.sandbox.agent.image)
        yield made
    finally:
        made.close()


def stands_by(run: Path) -> bool:
    told = run / "telemetry.jsonl"
    return told.exists() and told.stat().st_size > 0 and not at_work("trainer")(run)


def propose(home: Home) -> None:
    """Tell the agent; a session that is started again finds the file as it was."""
    with home.work.open("a") as file:
        file.write("# GO\n")


def at_work(role: str) -> Callable[[Path], bool]:
    def released(run: Path) -> bool:
        go = run / f"{role}.go.json"
        return go.exists() and go.stat().st_size > 0

    return released


def test_an_engine_that_is_killed_at_every_step_costs_no_more_than_what_ran(
    own: OwnEngine, home: Home, glovebox: Glovebox
) -> None:
    """Once it stays away for longer than it takes to try again."""
    agent(home, THINKING)
    begun(glovebox, home, DOCKER_HOST=own.host)
    log = home.root.parent / "up.log"
    with log.open("wb") as told:
        up = subprocess.Popen(
            [sys.executable, "-m", "runner", "up", "--tag", "t", "--agent", "command", "--experiments", "2"],
            env={
                **os.environ,
                "PYTHONPATH": str(SOURCE),
                "GLOVEBOX_HOME": str(home.root),
                "DOCKER_HOST": own.host,
            },
            stdout=subprocess.DEVNULL,
            stderr=told,
        )
    seen = set((home.root / "runs").glob("*"))  # of sessions before

    def wait(ready: Callable[[Path], bool]) -> None:
        for _ in range(6000):
            assert up.poll() is None, log.read_text()
            if any(ready(run) for run in (home.root / "runs").glob("*") if run not in seen):
                return
            time.sleep(0.05)
        raise AssertionError(log.read_text())

    try:
        for ready, away in ((stands_by, 0.0), (at_work("trainer"), 0.0), (at_work("evaluator"), 8.0)):
            wait(stands_by)
            if ready is not stands_by:
                propose(home)
                wait(ready)
            own.kill()
            seen.update((home.root / "runs").glob("*"))
            time.sleep(away)
            own.start()
        wait(stands_by)
        propose(home)
        assert up.wait(300) == 0, log.read_text()
    finally:
        up.kill()
    rows = json.loads(glovebox("status", "--json")[1])["experiments"][1:]
    ends = [row["reason"] for row in rows]
    assert ends == ["interrupted", "interrupted", None]  # whoever stood by is nobody's experiment
    assert rows[-1]["val_bpb"] is not None
    assert json.loads(glovebox("verify", "--json")[1])["failures"] == []
    client = own.client()
    assert containers.of_bench(client, home.id) == []
    client.close()
    assert "Traceback" not in log.read_text()
    assert log.read_text().count("started again in") >= 3
