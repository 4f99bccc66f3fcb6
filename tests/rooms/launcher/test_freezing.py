"""No agent runs while a candidate does: what the engine says of its container, at every moment that counts."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import docker
import pytest
from docker.models.containers import Container

from runner.core.airlock import snapshot
from runner.core.base.errors import EngineError, RelayedError
from runner.core.base.home import Home
from runner.core.base.launching import Lane, LaunchRequest, Release, named_processors
from runner.core.base.run_folder import new_run_id
from runner.core.policy import policy_files, walls
from runner.people.host import processes
from runner.rooms.desk.launch_client import LaunchClient
from runner.rooms.launcher import containers, freezing, specification
from runner.rooms.launcher.freezing import AGENT_LABEL, EVERY_LANE, LANE_LABEL, Freezer

pytestmark = [pytest.mark.engine, pytest.mark.slow]
Begin = Callable[[int], Container]
BUSY = ["python", "-c", "while True: pass"]


@pytest.fixture
def begin(engine: docker.DockerClient, home: Home) -> Iterator[Begin]:
    """Starts an agent as compose would: labelled, and not of the launcher's."""
    made = []

    def start(lane: int) -> Container:
        labels = {AGENT_LABEL: home.id, LANE_LABEL: str(lane)}
        made.append(engine.containers.run("glovebox/agent:dev", BUSY, labels=labels, network_mode="none",
                                          nano_cpus=10**8, detach=True))  # fmt: skip
        return made[-1]

    yield start
    for container in made:
        with suppress(docker.errors.NotFound):
            container.remove(force=True)


def becomes(container: Container, wanted: str) -> None:
    """What the engine says, once its own events are in; the kernel had frozen it before `hold` came back."""
    deadline = time.monotonic() + 20
    while state(container) != wanted:
        assert time.monotonic() < deadline, f"{state(container)} instead of {wanted}"
        time.sleep(0.02)


def state(container: Container) -> str:
    container.reload()
    return str(container.status)


def test_agents_of_a_lane_stand_still_as_long_as_anybody_holds_them(
    engine: docker.DockerClient, home: Home, begin: Begin
) -> None:
    first, second = begin(0), begin(1)
    freezer = Freezer(engine, home.id)
    with freezer.hold(0):
        assert (state(first), state(second)) == ("paused", "running")
        with freezer.hold(EVERY_LANE):
            assert (state(first), state(second)) == ("paused", "paused")
            with freezer.hold(0):
                pass
            assert (state(first), state(second)) == ("paused", "paused")
        assert (state(first), state(second)) == ("paused", "running")
    assert (state(first), state(second)) == ("running", "running")


def test_one_that_starts_or_ends_meanwhile_is_no_exception(
    engine: docker.DockerClient, home: Home, begin: Begin
) -> None:
    first = begin(0)
    freezer = Freezer(engine, home.id)
    with freezer.hold():
        second = begin(0)
        assert state(second) == "running"  # the control
        freezer.settle()
        assert state(second) == "paused"
        first.remove(force=True)
        freezer.settle()
    assert state(second) == "running"


def test_one_that_uses_up_its_processor_time_is_frozen_all_the_same(
    engine: docker.DockerClient, home: Home, begin: Begin
) -> None:
    """With version 1 of control groups about three tries of four fail at this load."""
    agent = begin(0)
    agent.exec_run(["sh", "-c", "for i in $(seq 60); do (while :; do :; done) & done"], detach=True)
    freezer = Freezer(engine, home.id)
    for _ in range(20):
        with freezer.hold():
            becomes(agent, "paused")
        becomes(agent, "running")


def test_one_of_which_the_engine_said_too_late_that_it_stands_still_goes_on(
    engine: docker.DockerClient, home: Home, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Docker 26 said `running` of a frozen container for a moment; the thaw believed it, and nobody looked again."""
    agent, real = begin(0), freezing.agents
    monkeypatch.setattr(freezing, "_LOOK_SECONDS", 0.2)
    freezer = Freezer(engine, home.id)
    with freezer.hold():
        becomes(agent, "paused")
        late = [{**one, "State": "running"} for one in real(engine, home.id)]
        monkeypatch.setattr(freezing, "agents", lambda *_: late.copy() or real(engine, home.id))
        threading.Timer(0.5, late.clear).start()
    becomes(agent, "running")


def test_agents_of_another_bench_are_left_alone(engine: docker.DockerClient, home: Home, begin: Begin) -> None:
    other = begin(0)
    with Freezer(engine, "0" * 16).hold():
        assert state(other) == "running"


def test_one_that_compose_starts_again_does_not_run_for_long(
    engine: docker.DockerClient, home: Home, begin: Begin
) -> None:
    freezer = Freezer(engine, home.id, watch=True)
    with freezer.hold():
        late = begin(0)
        deadline = time.monotonic() + 20
        while state(late) != "paused":
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert state(late) == "running"


def test_without_an_engine_nobody_is_said_to_stand_still(home: Home) -> None:
    freezer = Freezer(docker.DockerClient(base_url="unix:///nonexistent", version="1.44"), home.id)
    for _ in range(2):
        with pytest.raises(EngineError, match="cannot be frozen"), freezer.hold():
            raise AssertionError
    assert not +freezer._held


@pytest.fixture
def launches(home: Home, engine: docker.DockerClient) -> Iterator[LaunchClient]:
    with processes.doors() as places, processes.launcher(home, places):
        yield LaunchClient(places.launch)


def trainer(policies: policy_files.Policies, lane: Lane) -> LaunchRequest:
    return LaunchRequest(role="trainer", run=new_run_id(), policy=policies.digest, artifact="demo-1", lane=lane)


def waiting(home: Home, release: Path) -> Release:
    """A train.py that is at work until its file of losses says so."""
    text = "import time\nprint('at work', flush=True)\ntime.sleep(4)\nraise SystemExit(3)\n"
    return Release(seconds=60, snapshot=snapshot.keep(text.encode(), home.snapshots).sha256, seed=1, budget=4)


def test_no_agent_runs_while_anything_trains_and_it_goes_on_afterwards(
    home: Home, policies: policy_files.Policies, launches: LaunchClient, begin: Begin, tmp_path: Path
) -> None:
    agent = begin(0)
    launch = launches.open(trainer(policies, Lane()))
    launch.started()
    assert state(agent) == "running"  # one that stands by has seen no candidate
    launch.release(waiting(home, tmp_path))
    assert state(agent) == "paused"
    assert launch.ended().exit_code == 3
    launches.end(launch)
    deadline = time.monotonic() + 20
    while state(agent) != "running":
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_from_the_word_to_the_answer_it_stands_still_whatever_happens_between(
    home: Home, policies: policy_files.Policies, launches: LaunchClient, begin: Begin
) -> None:
    agent = begin(0)
    seen = set()
    with launches.freezing(0) as frozen:
        frozen()
        for _ in range(2):
            launch = launches.open(trainer(policies, Lane()))
            launch.release(waiting(home, home.root))
            launches.end(launch)
            for _ in range(20):
                seen.add(state(agent))
    assert seen == {"paused"}


def test_a_launcher_that_died_leaves_nobody_frozen(home: Home, engine: docker.DockerClient, begin: Begin) -> None:
    agent = begin(0)
    agent.pause()
    with processes.doors() as places, processes.launcher(home, places):
        assert state(agent) == "running"


def test_a_frozen_agent_can_be_ended(home: Home, policies: policy_files.Policies, launches: LaunchClient,
                                     engine: docker.DockerClient) -> None:  # fmt: skip
    request = LaunchRequest(role="agent", run=new_run_id(), policy=policies.digest)
    home.work.parent.mkdir()
    home.work.write_text("x = 1\n")
    (launches.door.parent.parent / "bench").mkdir()
    launch = launches.open(request)
    launch.release(Release(seconds=60))
    (agent,) = containers.of_bench(engine, home.id)
    with launches.freezing(0) as frozen:
        frozen()
        assert state(agent) == "paused"
        launch.stop()
        ended = []
        thread = threading.Thread(target=lambda: ended.append(launch.ended()))
        thread.start()
        thread.join(30)
        assert ended
    assert containers.of_bench(engine, home.id) == []


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="apart from what")
def test_apart_agents_have_a_processor_no_trainer_has_and_only_their_own_experiment_freezes_them(
    home: Home, policies: policy_files.Policies, engine: docker.DockerClient, begin: Begin, tmp_path: Path
) -> None:
    (home.root / "policies").mkdir(exist_ok=True)
    text = (walls.place(home.policies, "sandbox.yaml")).read_text()
    (home.root / "policies" / "sandbox.yaml").write_text(text.replace("agents: frozen ", "agents: apart "))
    apart = policy_files.load(*home.policies)
    mine, others = begin(0), begin(1)
    with processes.doors() as places, processes.launcher(home, places):
        launches = LaunchClient(places.launch)
        launch = launches.open(trainer(apart, Lane()))
        launch.release(waiting(home, tmp_path))
        assert (state(mine), state(others)) == ("paused", "running")
        (container,) = containers.of_bench(engine, home.id)
        last = max(os.sched_getaffinity(0))
        assert last not in named_processors(container.attrs["HostConfig"]["CpusetCpus"])
        launches.end(launch)
    request = LaunchRequest(role="agent", run=new_run_id(), policy=apart.digest)
    assert specification.cores_of(apart.sandbox, request) == str(last)
    with pytest.raises(EngineError, match="agents have the only processor"):
        specification.cores_of(apart.sandbox, trainer(apart, Lane(cores=str(last))))
    assert specification.cores_of(policies.sandbox, request) is None


def test_what_is_no_lane_is_refused(launches: LaunchClient) -> None:
    with pytest.raises(RelayedError, match="not a LaunchRequest"), launches.freezing(99) as frozen:
        frozen()
