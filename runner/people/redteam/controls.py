"""The controls of a container, and how to take each away: what `--mutate` does, one after another. TRUSTED.

A removal changes the specification (specification.py) and nothing else. Weakened containers run our own probes only.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docker.types import Mount

from runner.core.policy import counters
from runner.core.policy.walls import Sandbox
from runner.rooms.launcher import specification

Spec = dict[str, Any]


@dataclass(frozen=True)
class Control:
    """One wall: its name, the CIS Docker Benchmark 1.6 id if there is one, and the container without it."""

    name: str
    cis: str
    remove: Callable[[Spec], Spec]


def _set(**changes: Any) -> Callable[[Spec], Spec]:
    return lambda spec: spec | changes


def _options(gone: str, more: tuple[str, ...] = ()) -> Callable[[Spec], Spec]:
    def remove(spec: Spec) -> Spec:
        kept = [option for option in spec["security_opt"] if not option.startswith(gone)]
        return spec | {"security_opt": [*kept, *more]}

    return remove


def _tmpfs(word: str, instead: str, path: str = "/tmp") -> Callable[[Spec], Spec]:
    def remove(spec: Spec) -> Spec:
        options = [instead if o.startswith(word) else o for o in spec["tmpfs"][path].split(",")]
        return spec | {"tmpfs": spec["tmpfs"] | {path: ",".join(o for o in options if o)}}

    return remove


def _unlimited(name: str) -> Callable[[Spec], Spec]:
    return lambda spec: spec | {"ulimits": [limit for limit in spec["ulimits"] if limit["Name"] != name]}


def _writable(spec: Spec) -> Spec:
    return spec | {"mounts": [specification.bind(m["Source"], m["Target"], writable=True) for m in spec["mounts"]]}


def mounted(*pairs: tuple[str, str]) -> Callable[[Spec], Spec]:
    """A removal that mounts what must not be there: (source, target)."""
    return lambda spec: (
        spec | {"mounts": [*spec["mounts"], *(specification.bind(source, target) for source, target in pairs)]}
    )


def _environment(name: str, value: str | None) -> Callable[[Spec], Spec]:
    def remove(spec: Spec) -> Spec:
        kept = {key: found for key, found in spec["environment"].items() if key != name}
        return spec | {"environment": kept | ({} if value is None else {name: value})}

    return remove


def _replace_mount(target: str, source: Path, instead: str) -> Callable[[Spec], Spec]:
    def remove(spec: Spec) -> Spec:
        kept: list[Mount] = [m for m in spec["mounts"] if m["Target"] != target]
        return spec | {"mounts": [*kept, specification.bind(str(source), instead, writable=True)]}

    return remove


def _engine_socket(spec: Spec) -> Spec:
    source = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")
    return mounted((source, "/var/run/docker.sock"))(spec)


CONTROLS = {
    control.name: control
    for control in (
        Control("no network", "5.10", _set(network_mode="bridge")),
        Control("network namespace", "5.10", _set(network_mode="host")),
        Control("read-only root", "5.13", _set(read_only=False)),
        Control("no capabilities", "5.4", _set(cap_drop=[], cap_add=["ALL"])),
        Control("no new privileges", "5.26", _options("no-new-privileges")),
        Control("seccomp profile", "5.22", _options("seccomp", more=("seccomp=unconfined",))),
        Control("user", "4.1", _set(user="0:0")),
        Control("not privileged", "5.5", _set(privileged=True)),
        Control("process limit", "5.29", _set(pids_limit=-1)),
        Control("memory limit", "5.11", _set(mem_limit=0, memswap_limit=0)),
        Control("swap limit", "5.11", _set(memswap_limit=-1)),
        Control("processor limit", "5.12", _set(nano_cpus=0)),
        Control("file size limit", "5.19", _unlimited("fsize")),
        Control("open file limit", "5.19", _unlimited("nofile")),
        Control("no core dumps", "5.19", _unlimited("core")),
        Control("/tmp not executable", "-", _tmpfs("noexec", "exec")),
        Control("/tmp without setuid", "-", _tmpfs("nosuid", "suid")),
        Control("/tmp without devices", "-", _tmpfs("nodev", "dev")),
        Control("/tmp size", "-", _tmpfs("size=", "size=1g")),
        Control("/cache size", "-", _tmpfs("size=", "size=1g", "/cache")),
        Control("shared memory size", "-", _set(shm_size=1 << 30)),
        Control("ipc namespace", "5.17", _set(ipc_mode="host")),
        Control("process namespace", "5.16", _set(pid_mode="host", init=False)),
        Control("host name namespace", "5.21", _set(uts_mode="host")),
        Control("cgroup namespace", "5.25", _set(cgroupns="host")),
        Control("masked paths", "-", _set(host_config={"MaskedPaths": [], "ReadonlyPaths": []})),
        Control("masked counters", "-", _set(host_config={"MaskedPaths": list(counters.DEFAULT)})),
        Control("init process", "-", _set(init=False)),
        Control("read-only mounts", "5.13", _writable),
        Control("no devices", "5.18", _set(devices=["/dev/kmsg:/dev/kmsg:rwm", "/dev/fuse:/dev/fuse:rwm"])),
        Control("own group only", "4.1", _set(group_add=["0"])),
        Control("no secrets in the environment", "-", _environment("ANTHROPIC_API_KEY", "sk-ant-probe")),
        Control("no GPU unless given", "-", _environment("NVIDIA_VISIBLE_DEVICES", None)),
        Control("no engine socket", "5.32", _engine_socket),
        Control("no log of output", "-", _set(log_config={"Type": "json-file", "Config": {}})),
        Control("gVisor", "-", _set(runtime="runc")),
        Control("no restart", "5.15", _set(restart_policy={"Name": "always", "MaximumRetryCount": 0})),
    )
}


def of_stage(folder: Path, sandbox: Sandbox) -> dict[str, Control]:
    """Controls whose removal needs what a stage has: its folders on the host, its policy's images (stage.py)."""
    validation = str(folder / "store" / "probe-1" / "val")
    train = str(folder / "store" / "probe-1" / "train")
    return {
        control.name: control
        for control in (
            Control("image of its own", "-", _set(image=sandbox.trainer.image)),
            Control("no validation data", "5.6", mounted((validation, "/artifacts/val"))),
            Control("no candidate's code", "5.6", mounted((str(folder / "work" / "train.py"), "/work/train.py"))),
            Control("no training data", "5.6", mounted((train, "/artifacts/train"))),
            Control("no other run's files", "5.6", mounted((str(folder / "runs"), "/runs"))),
            Control("no host files", "5.6", mounted(("/etc", "/host/etc"))),
            Control("no secrets mounted", "5.6", mounted((str(folder / "secrets"), "/run/secrets"))),
            Control("one file mounted", "5.6", _replace_mount("/work/train.py", folder / "open", "/work")),
            Control(
                "file owned by the runner", "-", _replace_mount("/work/train.py", folder / "owned.py", "/work/train.py")
            ),
        )
    }
