"""The compose services: walls as the engine sees them, and a run that survives the loss of any one of them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest

from runner.core.base.home import Home
from runner.core.base.mountable import SOURCE
from tests.e2e.project import EXPERIMENTS, Project
from tests.rooms.broker.conftest import edited
from tests.samples import plainly

pytestmark = [pytest.mark.engine, pytest.mark.slow]
Glovebox = Callable[..., tuple[int, str, str]]
KEY = "stand-in-needs-no-key"


@pytest.fixture
def project(glovebox: Glovebox, home: Home, engine: docker.DockerClient) -> Iterator[Project]:
    edited(home.root / "policies", upstream="http://standin:8765")
    home.key.parent.mkdir(mode=0o700)
    home.key.write_text(KEY + "\n")
    home.key.chmod(0o600)
    plainly(home)
    made = Project(home, engine, "tests/standin/compose.yaml")
    code, _, err = glovebox("init", "--env-file", str(made.env_file))
    assert code == 0, err
    try:
        yield made
    finally:
        made.compose("down", "--volumes", "--timeout", "20")


def test_a_run_through_compose_survives_the_loss_of_any_service(
    project: Project, glovebox: Glovebox, engine: docker.DockerClient
) -> None:
    project.compose("up", "--detach", "--no-build")
    _walls(project)
    for begun, service in enumerate(("agent", "broker", "launcher", "runner"), 1):
        project.wait(lambda begun=begun: project.experiments() > begun - 1, f"experiment {begun} did not begin")
        time.sleep(1.0)
        if service == "runner":  # its process dies, and the engine starts it again
            pid = project.container(service).attrs["State"]["Pid"]
            assert pid > 0  # 0 would be this process and all of its kind
            os.kill(pid, signal.SIGKILL)
        else:
            project.container(service).kill()
            time.sleep(1.0)
            project.compose("start", service)
    for service in ("runner", "agent", "broker", "launcher"):  # a tag that is over ends them all
        project.wait(lambda service=service: project.container(service).status == "exited", f"{service} goes on", 400)
    assert project.container("runner").attrs["State"]["ExitCode"] == 0
    assert "tag t is over" in project.compose("logs", "runner")
    document = json.loads(glovebox("status", "--json")[1])
    rows = document["experiments"]
    assert [row["id"] for row in rows] == list(range(1, len(rows) + 1))
    interrupted = [row["id"] for row in rows if row["reason"] == "interrupted"]
    assert 1 <= len(interrupted) <= 2, rows  # the launcher's and the runner's; an agent or a broker cost none
    done = [row for row in rows if row["id"] not in interrupted]
    assert len(done) == EXPERIMENTS
    assert all(row["status"] in ("keep", "discard") or row["reason"] == "exception" for row in done), rows
    assert document["cost"]["dollars"] > 0
    code, out, _ = glovebox("verify", "--json")
    assert code == 0, out
    assert engine.containers.list(filters={"label": f"glovebox.bench={project.home.id}"}) == []
    assert KEY not in project.compose("logs")


@pytest.mark.parametrize("trouble", ["key", "policy"])
def test_what_only_a_person_can_mend_is_one_line_and_no_restart(project: Project, trouble: str) -> None:
    """JSON, again and again, with a path of the container's; the services went on for fifty starts."""
    if trouble == "key":
        project.home.key.write_text("two keys\n")
    else:
        (project.home.root / "policies" / "sandbox.yaml").write_text("nobody: knows this\n")
    project.compose("up", "--detach", "--no-build", fails=True)
    project.wait(lambda: project.container("broker").status == "exited", "the broker goes on")
    time.sleep(2.0)  # it would be started again within a tenth of that
    attrs = project.container("broker").attrs
    assert (attrs["State"]["Status"], attrs["State"]["ExitCode"], attrs["RestartCount"]) == ("exited", 0, 0)
    (line,) = project.compose("logs", "--no-log-prefix", "broker").splitlines()
    assert line.removeprefix("\x1b[2K").startswith("glovebox broker: ")  # which compose itself puts there
    assert "(fix: " in line
    assert "two keys" not in line


def _walls(project: Project) -> None:
    """What a reviewer looks for with docker inspect."""
    services = {name: project.container(name).attrs for name in ("agent", "broker", "runner", "launcher")}
    for name, attrs in services.items():
        host = attrs["HostConfig"]
        assert host["ReadonlyRootfs"], name
        assert host["CapDrop"] == ["ALL"], name
        assert "no-new-privileges:true" in host["SecurityOpt"], name
        assert not host["Privileged"], name
        assert KEY not in json.dumps(attrs), name
        socket = [m for m in attrs["Mounts"] if m["Source"].endswith("docker.sock")]
        assert bool(socket) == (name == "launcher")
        secret = [m for m in attrs["Mounts"] if m["Destination"] == "/run/secrets/anthropic_api_key"]
        assert bool(secret) == (name == "broker")
        assert (host["NetworkMode"] == "none") == (name != "broker")
    agent = services["agent"]
    assert [m["Destination"] for m in agent["Mounts"] if m["RW"]] == ["/work/train.py"]
    assert not [value for value in agent["Config"]["Env"] if "KEY" in value or "TOKEN" in value]
    hidden = subprocess.run(
        [
            "docker",
            "exec",
            services["runner"]["Id"],
            "ls",
            "-A",
            f"{project.home.root}/secrets",
            f"{project.home.root}/keys",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert not [name for name in hidden if not name.endswith(":")]


def test_compose_says_what_to_do_before_init(tmp_path: Path) -> None:
    copy = tmp_path / "checkout"
    copy.mkdir()
    shutil.copy(SOURCE / "compose.yaml", copy)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GLOVEBOX_")}
    done = subprocess.run(
        ["docker", "compose", "config"], cwd=copy, capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode != 0
    assert "run glovebox init first" in done.stderr


def test_the_gpu_file_adds_a_uuid_two_folders_and_a_look_at_the_device(project: Project) -> None:
    """The launcher gets the driver's management library and nothing to compute with; nobody else gets a device."""
    plain = json.loads(project.compose("config", "--format", "json"))
    gpu = "GPU-" + "0" * 8 + "-1111-2222-3333-" + "4" * 12
    with project.env_file.open("a") as file:
        file.write(f"GLOVEBOX_GPU={gpu}\n")
    with_gpu = json.loads(project.compose("-f", str(SOURCE / "compose.gpu.yaml"), "config", "--format", "json"))
    assert with_gpu["services"]["runner"]["environment"].pop("GLOVEBOX_GPU") == gpu
    assert plain["services"]["runner"]["environment"].pop("GLOVEBOX_GPU") == ""
    launcher, before = with_gpu["services"]["launcher"], plain["services"]["launcher"]["volumes"]
    added = {volume["target"]: volume for volume in launcher["volumes"] if volume not in before}
    assert set(added) == {"/run/lock", "/etc/cdi"}
    assert added["/etc/cdi"]["read_only"] is True
    (device,) = launcher.pop("deploy")["resources"]["reservations"]["devices"]
    assert (device["driver"], device["device_ids"], device["capabilities"]) == ("nvidia", [gpu], ["utility"])
    launcher["volumes"] = before
    assert plain == with_gpu
