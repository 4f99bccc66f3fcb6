"""Containers that are started ahead of their work: what they see before it, and when their clock starts."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import docker
import pytest

from runner.core.airlock import snapshot
from runner.core.artifacts import store
from runner.core.base.errors import RelayedError
from runner.core.base.home import Home
from runner.core.base.launching import EndReason, LaunchRequest, Release
from runner.core.base.run_folder import new_run_id
from runner.core.policy import policy_files
from runner.people.host import processes
from runner.rooms.desk.launch_client import Ahead, Launch, LaunchClient
from runner.rooms.desk.train_and_score import Stages
from runner.rooms.launcher import containers

pytestmark = [pytest.mark.engine, pytest.mark.slow]


@pytest.fixture
def launches(home: Home, engine: docker.DockerClient) -> Iterator[LaunchClient]:
    with processes.doors() as places, processes.launcher(home, places):
        yield LaunchClient(places.launch)
    assert left(home, engine) == []


def left(home: Home, engine: docker.DockerClient) -> list[Any]:
    return list(containers.of_bench(engine, home.id))


@pytest.fixture
def request_(policies: policy_files.Policies) -> LaunchRequest:
    return LaunchRequest(role="trainer", run=new_run_id(), policy=policies.digest, artifact="demo-1")


def work(home: Home, text: str, seconds: float = 30.0, budget: int | None = None) -> Release:
    taken = snapshot.keep(text.encode(), home.snapshots)
    return Release(seconds=seconds, snapshot=taken.sha256, seed=1234, budget=budget)


def ready(home: Home, launch: Launch) -> Path:
    """Wait until it has imported everything; its folder."""
    telemetry = home.run(launch.run) / "telemetry.jsonl"
    deadline = time.monotonic() + 120
    while not (telemetry.exists() and telemetry.stat().st_size):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return telemetry.parent


def test_it_waits_without_a_candidate_and_its_clock_starts_with_the_release(
    home: Home, launches: LaunchClient, request_: LaunchRequest, engine: docker.DockerClient
) -> None:
    began, limit = time.monotonic(), 6.0
    launch = launches.open(request_)
    folder = ready(home, launch)
    assert [(folder / name).read_bytes() for name in ("train.py", "trainer.go.json")] == [b"", b""]
    assert len(left(home, engine)) == 1
    time.sleep(max(0.0, began + limit + 1 - time.monotonic()))  # it would be over, had it begun
    text = (
        "import os, sys, time\n"
        "assert 'torch.export' in sys.modules\n"  # imported while nobody waited
        "assert (os.environ['GLOVEBOX_SEED'], os.environ['GLOVEBOX_TIME_BUDGET']) == ('1234', '7')\n"
        "time.sleep(0.5)\n"
    )
    launch.release(work(home, text, seconds=limit, budget=7))
    ended = launch.ended()
    launches.end(launch)
    assert (ended.reason, ended.exit_code) == (EndReason.EXIT, 0), (folder / "trainer.log").read_text()
    assert 0.5 <= ended.seconds < limit
    phases = [json.loads(line)["phase"] for line in (folder / "telemetry.jsonl").read_text().splitlines()]
    assert phases == ["ready", "start", "done"]


def test_what_it_was_given_it_cannot_write(home: Home, launches: LaunchClient, request_: LaunchRequest) -> None:
    launch = launches.open(request_)
    text = (
        "for name in ('train.py', 'go.json'):\n"
        "    try:\n        open('/work/' + name, 'a')\n    except OSError:\n        continue\n"
        "    raise SystemExit(3)\n"
    )
    launch.release(work(home, text))
    assert launch.ended().exit_code == 0
    launches.end(launch)


def test_the_clock_that_came_with_the_release_ends_it(
    home: Home, launches: LaunchClient, request_: LaunchRequest
) -> None:
    ended = launches.run(request_, work(home, "import time\ntime.sleep(60)\n", seconds=1.5))
    assert ended.reason is EndReason.WALL
    assert ended.seconds < 15


def test_it_goes_when_nobody_wants_it_any_more(
    home: Home, launches: LaunchClient, request_: LaunchRequest, engine: docker.DockerClient
) -> None:
    launch = launches.open(request_)
    ready(home, launch)
    launches.end(launch)
    for _ in range(200):
        if not left(home, engine):
            return
        time.sleep(0.1)
    raise AssertionError("it is still there")


def test_one_that_dies_while_it_waits_costs_no_candidate(
    home: Home, launches: LaunchClient, request_: LaunchRequest, engine: docker.DockerClient
) -> None:
    ahead = Ahead(launches)
    ahead.prepare(request_)
    ahead.check()
    (waiting,) = left(home, engine)
    waiting.kill("SIGKILL")
    with suppress(docker.errors.NotFound):  # removed already
        waiting.wait(timeout=30)
    launch = ahead.release(request_, work(home, "import time\ntime.sleep(0.2)\n"))
    ended = launch.ended()
    launches.end(launch)
    assert (ended.reason, ended.exit_code) == (EndReason.EXIT, 0)
    assert ended.container != waiting.id


@pytest.mark.parametrize(
    ("changed", "told"),
    [({"seconds": 7201.0}, "max_seconds"), ({"snapshot": "a" * 64}, "no such snapshot"), ({}, None)],
)
def test_a_release_is_held_against_the_policy(
    home: Home, launches: LaunchClient, request_: LaunchRequest, changed: dict[str, object], told: str | None
) -> None:
    given = work(home, "pass\n").model_copy(update=changed)
    if told is None:
        assert launches.run(request_, given).exit_code == 0
        return
    with pytest.raises(RelayedError, match=told):
        launches.run(request_, given)


def test_policy_may_want_nothing_ahead(
    home: Home, launches: LaunchClient, policies: policy_files.Policies, engine: docker.DockerClient
) -> None:
    sandbox = policies.sandbox.model_copy(update={"standby": False})
    without = policies.model_copy(update={"sandbox": sandbox})
    artifact = store.admit(home, "demo-1")
    Stages(home, without, launches, artifact).prepare()
    assert left(home, engine) == []
    stages = Stages(home, policies, launches, artifact)
    run = stages.next_run()
    stages.prepare()
    assert stages.next_run() == stages.next_run() != run
    while not left(home, engine):
        time.sleep(0.05)
    launches.cancel_all()
