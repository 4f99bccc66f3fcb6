"""`glovebox policy`: words for people, and differences found in running containers."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import docker
import pytest

from runner.core.base.home import Home
from runner.core.policy.policy_files import Policies
from runner.people.pages import explain
from runner.rooms.launcher import specification
from tests.samples import begun

Glovebox = Callable[..., tuple[int, str, str]]


def test_every_room_is_explained_with_the_numbers_in_force(policies: Policies) -> None:
    rooms = explain.rooms(policies)
    words = json.dumps(rooms)
    assert [name.split()[0] for name in rooms] == ["every", "trainer", "evaluator", "agent", "broker", "runner", "what"]
    for fact in ("16 GiB", "no network", "read-only root", "$50", policies.agent.model, "https://api.anthropic.com"):
        assert fact in words, fact
    loose = policies.model_copy(update={"sandbox": policies.sandbox.model_copy(update={"seccomp": "engine"})})
    assert "the engine's seccomp profile" in json.dumps(explain.rooms(loose))


def test_what_is_not_counted_is_told_for_the_policy_in_force(policies: Policies) -> None:
    """419 bits a second went past a count of 147 bits an answer."""

    def last(**changes: str) -> str:
        sandbox = policies.sandbox.model_copy(update=changes)
        explained = explain.rooms(policies.model_copy(update={"sandbox": sandbox}))
        return explained["what the trainer can tell the agent, at most"][-1]

    assert "without a bound" in last()
    assert "after a trainer has ended" in last()
    assert "while others train" in last(agents="apart")
    assert "without a bound" not in last(agent_runtime="runsc")


def test_the_way_to_the_model_is_said_where_it_is_not_the_plain_one(policies: Policies) -> None:
    def sent(**changes: object) -> str:
        broker = policies.broker.model_copy(update=changes)
        rooms = explain.rooms(policies.model_copy(update={"broker": broker}))
        return next(lines[0] for name, lines in rooms.items() if name.startswith("broker"))

    assert "(" not in sent()
    near = sent(upstream="http://10.0.0.7", auth="none", proxy="http://p:3128", ca_file="/ca.pem")
    assert "by http://p:3128, UNENCRYPTED, trusting /ca.pem, without a key" in near
    assert "bearer" in sent(auth="bearer")


def test_explain_on_the_command_line(glovebox: Glovebox, policies: Policies) -> None:
    code, out, err = glovebox("policy", "explain")
    assert code == 0, err
    assert policies.digest in out
    assert json.loads(glovebox("policy", "explain", "--json")[1])["digest"] == policies.digest


@pytest.mark.engine
@pytest.mark.slow
def test_running_containers_agree_with_policy_until_one_does_not(
    glovebox: Glovebox, home: Home, engine: docker.DockerClient, tmp_path: Path
) -> None:
    assert "no container" in glovebox("policy", "diff")[1]
    begun(glovebox, home)
    sleeper = tmp_path / "sleep.py"
    sleeper.write_text("import time\ntime.sleep(60)\n")
    import os
    import sys

    process = subprocess.Popen(
        [sys.executable, "-m", "runner", "run", "--tag", "t", "--train-py", str(sleeper)],
        env={**os.environ, "GLOVEBOX_HOME": str(home.root)},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    label = f"{specification.BENCH_LABEL}={home.id}"
    stray = None
    try:
        deadline = time.monotonic() + 60
        while not engine.containers.list(filters={"label": label}) and time.monotonic() < deadline:
            time.sleep(0.2)
        code, out, err = glovebox("policy", "diff", "--json")
        assert code == 0, out + err
        assert [name.split()[0] for name in json.loads(out)["containers"]] == ["trainer"]
        stray = engine.containers.run(
            "glovebox/trainer:dev", ["sleep", "60"], detach=True, network_mode="none",
            labels={specification.BENCH_LABEL: home.id, specification.ROLE_LABEL: "trainer"},
        )  # fmt: skip
        code, out, _ = glovebox("policy", "diff")
        assert code == 8
        assert "ReadonlyRootfs: False" in out
    finally:
        if stray is not None:
            stray.remove(force=True)
        process.terminate()
        process.wait(60)
