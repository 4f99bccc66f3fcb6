"""The engine, the launcher or a container goes away in the middle of a real experiment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from runner.core.base import faults
from runner.core.base.home import Home
from runner.core.base.mountable import SOURCE
from runner.rooms.launcher import containers, specification
from tests.faults.proxy import ENGINE, Proxy
from tests.samples import begun, plainly

pytestmark = [pytest.mark.engine, pytest.mark.slow]
Glovebox = Callable[..., tuple[int, str, str]]
LAUNCHER = [point for point in faults.POINTS if point.startswith("launcher.")]
SLEEP = "import time\nprint('up', flush=True)\ntime.sleep(60)\n"


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    assert Path(ENGINE).is_socket(), "these tests stand between launcher and engine, at its default socket"
    with tempfile.TemporaryDirectory() as folder:
        made = Proxy(Path(folder) / "engine.sock")
        yield made
        made.close()


class Run:
    """`glovebox run` in the background, on one train.py."""

    def __init__(self, home: Home, text: str, **env: str) -> None:
        source = home.root.parent / "candidate.py"
        source.write_text(text)
        self.home = home
        self.process = subprocess.Popen(
            [sys.executable, "-m", "runner", "run", "--tag", "t", "--train-py", str(source)],
            env={**os.environ, "PYTHONPATH": str(SOURCE), "GLOVEBOX_HOME": str(home.root), **env},
            cwd=home.root.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def container(self, engine: docker.DockerClient, role: str) -> Any:
        """The running container of a role of this bench."""
        labels: dict[str, Any] = {
            "label": [f"{specification.ROLE_LABEL}={role}", f"{specification.BENCH_LABEL}={self.home.id}"]
        }
        for _ in range(3600):
            found = engine.containers.list(filters={**labels, "status": "running"})
            if found:
                return found[0]
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.05)
        raise AssertionError(f"no {role} within 180 s")

    def at_work(self, role: str) -> None:
        """Wait until a container of a role was released: one that dies before is replaced."""
        for _ in range(3600):
            if any(path.stat().st_size for path in self.home.root.glob(f"runs/*/{role}.go.json")):
                return
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.05)
        raise AssertionError(f"no {role} was released within 180 s")

    def end(self, seconds: float = 120) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=seconds)
        return self.process.returncode, out, err


def sound(glovebox: Glovebox, engine: docker.DockerClient, home: Home) -> list[dict[str, Any]]:
    """The bench works again: one more experiment runs, everything verifies, nothing is left over."""
    source = home.root.parent / "again.py"
    source.write_text("raise KeyError\n")
    code, _, err = glovebox("run", "--tag", "t", "--train-py", str(source))
    assert code == 0, err
    assert json.loads(glovebox("verify", "--json")[1])["failures"] == []
    assert containers.of_bench(engine, home.id) == []
    rows: list[dict[str, Any]] = json.loads(glovebox("status", "--json")[1])["experiments"]
    assert rows[-1]["reason"] == "exception"
    return rows[1:]  # after the baseline


@pytest.mark.parametrize("point", LAUNCHER)
def test_a_launcher_killed_anywhere_leaves_no_container_and_no_open_row(
    glovebox: Glovebox, engine: docker.DockerClient, home: Home, point: str
) -> None:
    begun(glovebox, home)
    code, _, err = Run(home, "raise ValueError\n", **{faults.VARIABLE: point}).end()
    assert code == 1, err
    assert "launcher hung up" in err
    assert containers.of_bench(engine, home.id) == []
    rows = sound(glovebox, engine, home)
    assert [row["reason"] for row in rows] == ["interrupted", "exception"]


def test_an_engine_that_is_restarted_in_mid_training_costs_one_experiment(
    glovebox: Glovebox, engine: docker.DockerClient, home: Home, proxy: Proxy
) -> None:
    begun(glovebox, home)
    run = Run(home, SLEEP, DOCKER_HOST=f"unix://{proxy.path}")
    run.container(engine, "trainer")
    proxy.drop()
    threading.Timer(3, proxy.back).start()
    code, _, err = run.end()
    assert code == 5, err
    assert "the engine or the disk failed" in err or "engine" in err
    rows = sound(glovebox, engine, home)
    assert [row["reason"] for row in rows] == ["interrupted", "exception"]


def test_an_engine_that_stalls_is_waited_for_a_minute_and_no_longer(
    glovebox: Glovebox, engine: docker.DockerClient, home: Home, proxy: Proxy
) -> None:
    text = (SOURCE / "policies" / "decision.yaml").read_text()  # the run's own clock ends it; then the engine is asked
    short = text.replace("startup_seconds: 120.0", "startup_seconds: 10.0").replace(
        "hand_over_seconds: 60.0", "hand_over_seconds: 5.0"
    )
    (home.root / "policies" / "decision.yaml").write_text(short)
    begun(glovebox, home)
    run = Run(home, "raise ValueError\n", DOCKER_HOST=f"unix://{proxy.path}", GLOVEBOX_ENGINE_SECONDS="5")
    run.container(engine, "trainer")
    proxy.silent.set()
    code, _, err = run.end(400)
    proxy.back()
    assert code == 5, err
    rows = sound(glovebox, engine, home)
    assert [row["reason"] for row in rows] == ["interrupted", "exception"]


@pytest.mark.parametrize(
    ("role", "expected"), [("trainer", ("crash", "signal")), ("evaluator", ("rejected", "evaluation_failed"))]
)
def test_a_container_that_somebody_kills_is_a_failed_experiment(
    glovebox: Glovebox, engine: docker.DockerClient, home: Home, role: str, expected: tuple[str, str]
) -> None:
    text = SLEEP if role == "trainer" else (SOURCE / "trainer" / "train.py").read_text()
    begun(glovebox, home)
    run = Run(home, text)
    run.at_work(role)
    run.container(engine, role).kill("SIGKILL")
    code, out, err = run.end()
    assert code == 0, err
    row = json.loads(out)["row"]
    assert (row["status"], row["reason"]) == expected
    sound(glovebox, engine, home)


def test_an_evaluator_out_of_memory_is_a_failed_experiment(glovebox: Glovebox, home: Home) -> None:
    """A model that needs more than policy gives, where the seed needs less."""
    text = (SOURCE / "policies" / "sandbox.yaml").read_text()
    before, after = text.split("\nevaluator:")
    small = before + "\nevaluator:" + after.replace("memory_bytes: 17179869184", "memory_bytes: 805306368", 1)
    (home.root / "policies" / "sandbox.yaml").write_text(small)
    plainly(home)
    costs = (SOURCE / "policies" / "evaluator.yaml").read_text()
    generous = costs.replace("scoring_ratio: 8.0 ", "scoring_ratio: 1000.0 ")  # its memory is to end it, not its work
    assert generous != costs
    (home.root / "policies" / "evaluator.yaml").write_text(generous)
    seed = (SOURCE / "trainer" / "train.py").read_text().replace("trained < TIME_BUDGET", "trained < 0.0")
    begun(glovebox, home)
    for fits, text in ((False, seed.replace("4 * WIDTH", "1024 * WIDTH")), (True, seed)):
        code, out, err = Run(home, text).end()
        assert code == 0, err
        row = json.loads(out)["row"]
        assert (row["val_bpb"] is not None) is fits, row
        assert fits or (row["status"], row["reason"]) == ("rejected", "evaluation_failed")
        assert "Traceback" not in (home.run(row["run"]) / "evaluator.log").read_text()  # killed: nothing was raised


def test_a_runner_killed_in_mid_training_takes_its_containers_along(
    glovebox: Glovebox, engine: docker.DockerClient, home: Home
) -> None:
    begun(glovebox, home)
    run = Run(home, SLEEP)
    run.container(engine, "trainer")
    holder = (home.root / "runner.lock").read_text()
    os.kill(int(holder.split(" pid ")[1].split()[0]), signal.SIGKILL)
    code, _, _ = run.end()
    assert code != 0
    assert containers.of_bench(engine, home.id) == []
    assert [row["reason"] for row in sound(glovebox, engine, home)] == ["interrupted", "exception"]
