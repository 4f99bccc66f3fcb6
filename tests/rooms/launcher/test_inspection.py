"""The engine's inspect against the specification: the production container agrees, every wall taken away shows."""

from __future__ import annotations

import copy
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.types import LogConfig, Mount, Ulimit

from runner.core.base.errors import EngineError
from runner.core.base.launching import LaunchRequest
from runner.core.policy import seccomp
from runner.core.policy.policy_files import Policies
from runner.rooms.launcher import containers, specification

pytestmark = pytest.mark.engine


@pytest.fixture
def spec(policies: Policies, tmp_path: Path) -> dict[str, Any]:
    """The trainer's specification as the launcher makes it, with one mount."""
    (tmp_path / "train.py").write_text("pass\n")
    request = LaunchRequest(role="trainer", run="1" * 16, policy="0" * 64)
    return specification.build(
        policies.sandbox,
        request,
        command=["python", "-c", "pass"],
        mounts=[specification.bind(str(tmp_path / "train.py"), "/work/train.py")],
        gid=65532,
        environment={"A": "b"},
        bench="inspect",
        seccomp=seccomp.profile(policies.seccomp),
    )


@pytest.fixture
def made(engine: docker.DockerClient) -> Iterator[Callable[[dict[str, Any]], dict[str, Any]]]:
    """Create (never start) a container and give its inspect."""
    there = []

    def make(spec: dict[str, Any]) -> dict[str, Any]:
        container = containers.create(engine, spec)
        there.append(container)
        container.reload()
        return dict(container.attrs)

    yield make
    for container in there:
        container.remove(force=True)


def test_the_production_container_is_what_was_asked_for(spec: dict[str, Any], made: Any) -> None:
    assert specification.differences(made(spec), spec) == []


HERE = str(Path(__file__).parent)
LOOSENED: dict[str, dict[str, Any]] = {
    "privileged": {"privileged": True},
    "a network": {"network_mode": "bridge"},
    "the host's network": {"network_mode": "host"},
    "a writable root": {"read_only": False},
    "a capability kept": {"cap_drop": ["NET_RAW"]},
    "a capability added": {"cap_add": ["SYS_PTRACE"]},
    "new privileges": {"security_opt": []},
    "no seccomp": {"security_opt": ["no-new-privileges:true", "seccomp=unconfined"]},
    "the host's processes": {"pid_mode": "host"},
    "the host's ipc": {"ipc_mode": "host"},
    "the host's names": {"uts_mode": "host"},
    "the host's users": {"userns_mode": "host"},
    "the host's cgroups": {"cgroupns": "host"},
    "root": {"user": "0:0"},
    "a group added": {"group_add": ["999"]},
    "a mount added": {"mounts": [Mount("/host", HERE, type="bind")]},
    "a mount made writable": {},
    "a bind in the old way": {"binds": {HERE: {"bind": "/host", "mode": "rw"}}},
    "a device": {"devices": ["/dev/null:/dev/x:rwm"]},
    "a device rule": {"device_cgroup_rules": ["a *:* rwm"]},
    "no limit of processes": {"pids_limit": -1},
    "more memory": {"mem_limit": 1 << 40, "memswap_limit": 1 << 40},
    "swap": {"memswap_limit": -1},
    "more processors": {"nano_cpus": 0},
    "no file limit": {"ulimits": [Ulimit(name="core", soft=0, hard=0)]},
    "an executable /tmp": {"tmpfs": {"/tmp": "rw,exec"}},
    "a log driver": {"log_config": LogConfig(type="json-file")},
    "a restart": {"restart_policy": {"Name": "always"}},
    "no init": {"init": False},
    "a host name": {"extra_hosts": {"evil": "10.0.0.1"}},
    "a name server": {"dns": ["10.0.0.1"]},
    "a sysctl": {"sysctls": {"net.ipv4.ip_forward": "1"}, "network_mode": "none"},
    "a published port": {"port_bindings": {"80/tcp": 8080}},
    "a volume of another container": {"volume_driver": "other"},
    "no end by memory": {"oom_kill_disable": True},
    "fewer masked paths": {"host_config": {"MaskedPaths": sorted(specification.MASKED)}},
    "another command": {"command": ["sh"]},
    "a terminal": {"tty": True},
}


@pytest.mark.parametrize("name", LOOSENED)
def test_a_wall_that_is_taken_away_shows(spec: dict[str, Any], made: Any, name: str) -> None:
    loose = {**copy.copy(spec), **LOOSENED[name]}
    if name == "a mount made writable":
        loose["mounts"] = [specification.bind(m["Source"], m["Target"], writable=True) for m in spec["mounts"]]
    assert specification.differences(made(loose), spec), name


def test_a_container_that_differs_is_not_started(
    engine: docker.DockerClient, spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    create = containers.create

    def meddling(client: docker.DockerClient, wanted: dict[str, Any]) -> Any:
        return create(client, {**wanted, "read_only": False})

    monkeypatch.setattr(containers, "create", meddling)
    ours, theirs = socket.socketpair()
    with pytest.raises(EngineError, match="ReadonlyRootfs"):
        containers.run(
            engine, spec, output_bytes=100, sink=lambda _: None, hang_up=ours,
            begin=lambda *_: pytest.fail("started"),
        )  # fmt: skip
    theirs.close()
    ours.close()


def test_a_variable_or_an_entry_point_nobody_asked_for_is_a_difference(spec: dict[str, Any], made: Any) -> None:
    attrs = made(spec)
    image = {"Env": list(attrs["Config"]["Env"]), "Entrypoint": attrs["Config"]["Entrypoint"]}
    assert specification.differences(attrs, spec, image) == []
    attrs["Config"]["Env"] = [*attrs["Config"]["Env"], "HTTP_PROXY=http://user:secret@proxy"]
    attrs["Config"]["Entrypoint"] = ["/bin/evil"]
    assert specification.differences(attrs, spec, image) == [
        "Env HTTP_PROXY, not asked for",
        "Entrypoint: ['/bin/evil']",
    ]
