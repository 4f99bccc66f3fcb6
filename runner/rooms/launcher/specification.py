"""What a container is, and whether the engine made that one. TRUSTED, part of the launcher.

Fixed here, with no setting to loosen it: no network, read-only root, all capabilities dropped, no new privileges,
non-root user, private namespaces, no restart, no log driver, docker-init as PID 1 and no swap (CIS Docker Benchmark
5.x). Policy sets sizes only.

Every wall is compared with what the engine's inspect says it will enforce, and every other setting of the host
configuration must be empty: a field we have never heard of is a difference, not something to overlook. A container
with a difference is never started.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

from docker.types import DeviceRequest, LogConfig, Mount, Ulimit

from runner.core.base.errors import EngineError
from runner.core.base.launching import WHOLE_HOST, Lane, LaunchRequest, named_processors
from runner.core.policy import counters
from runner.core.policy.walls import Box, Sandbox
from runner.rooms.launcher.freezing import agent_labels
from trainer.wire import variables

ROLE_LABEL = "glovebox.role"
RUN_LABEL = "glovebox.run"
BENCH_LABEL = "glovebox.bench"
LANES_LABEL = "glovebox.lanes"
_LAST = 2  # of a control group's processor shares: whoever else wants to run goes first
_NO_GPU = {"NVIDIA_VISIBLE_DEVICES": "void"}  # where NVIDIA's runtime is the default, an image's wish is a grant

MASKED = frozenset(
    {"/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"}
)  # the engine hides at least these
READ_ONLY = frozenset({"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"})
_EMPTY: tuple[Any, ...] = (None, "", 0, -1, [], {}, False, [0, 0])
_NO_RESTART = {"Name": "no", "MaximumRetryCount": 0}


def build(
    sandbox: Sandbox,
    request: LaunchRequest,
    *,
    command: list[str],
    mounts: list[Mount],
    gid: int,
    environment: dict[str, str],
    bench: str,
    seccomp: str | None = None,
    gpus: list[DeviceRequest] | None = None,
) -> dict[str, Any]:
    """Keyword arguments of docker's containers.create for one role; `seccomp` is a profile's JSON text."""
    box: Box = getattr(sandbox, request.role)
    devices = [] if request.role == "agent" else gpus or []
    lane = request.lane if request.role != "agent" else WHOLE_HOST
    lane = lane.model_copy(update={"cores": cores_of(sandbox, request)})
    sizes = _sizes(box, lane)
    threads = str(max(1, int(sizes["nano_cpus"] / 1e9)))
    # Threads that wait for each other would take what others need, and count as work (evaluator/costs.py).
    given = {"OMP_NUM_THREADS": threads, "TORCHINDUCTOR_COMPILE_THREADS": threads, "OMP_WAIT_POLICY": "PASSIVE"}
    given |= {variables.DEVICE: variables.CUDA} if devices else {variables.DEVICE: variables.CPU, **_NO_GPU}
    return {
        **_walls(seccomp),
        "host_config": {"MaskedPaths": counters.masked(request.role)},
        **sizes,
        "image": box.image,
        "command": command,
        "runtime": sandbox.runtime_of(request.role),
        "user": f"{box.uid}:{gid}",
        "mounts": mounts,
        "device_requests": devices,
        "cpuset_cpus": lane.cores,
        "use_config_proxy": False,  # a user's docker client may hold a proxy's password
        "environment": given | environment,
        "cpu_shares": _LAST if request.role == "agent" else 0,
        "labels": {
            ROLE_LABEL: request.role,
            RUN_LABEL: request.run,
            BENCH_LABEL: bench,
            LANES_LABEL: str(lane.of),
        }
        | (agent_labels(bench, request.lane.number, request.seat) if request.role == "agent" else {}),
    }


def _walls(seccomp: str | None) -> dict[str, Any]:
    """What no policy can change."""
    profile = [f"seccomp={seccomp}"] if seccomp is not None else []  # absent: the engine's own, never none
    return {
        "network_mode": "none",
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true", *profile],
        "privileged": False,
        "init": True,
        "ipc_mode": "private",
        "cgroupns": "private",
        "log_config": LogConfig(type="none"),
        "working_dir": "/work",
        "stdin_open": False,
        "tty": False,
        "auto_remove": False,
        "restart_policy": {"Name": "no"},
    }


def _sizes(box: Box, lane: Lane) -> dict[str, Any]:
    """Policy's ceilings, cut to what there is; several lanes share it, so that none takes what another needs."""
    processors = len(named_processors(lane.cores)) if lane.cores else (os.cpu_count() or 1) / lane.of
    cpus = min(box.cpus, float(processors))
    memory = box.memory(lane.of)
    tmpfs = {"/tmp": f"rw,noexec,nosuid,nodev,size={box.tmp_bytes},mode=1777"}  # noqa: S108 - inside the container
    if box.exec_cache_bytes:
        tmpfs["/cache"] = f"rw,exec,nosuid,nodev,size={box.exec_cache_bytes},mode=1777"
    return {
        "pids_limit": box.pids,
        "mem_limit": memory,
        "memswap_limit": memory,
        "nano_cpus": int(cpus * 1e9),
        "shm_size": box.shm_bytes,
        "ulimits": [
            Ulimit(name="nofile", soft=box.open_files, hard=box.open_files),
            Ulimit(name="fsize", soft=box.file_bytes, hard=box.file_bytes),
            Ulimit(name="core", soft=0, hard=0),
        ],
        "tmpfs": tmpfs,
    }


def bind(source: str, target: str, *, writable: bool = False) -> Mount:
    """A bind mount that fails if the source is missing (a `-v` volume would create a directory)."""
    return Mount(target=target, source=source, type="bind", read_only=not writable, propagation="rprivate")


def digest(spec: dict[str, Any]) -> str:
    """SHA-256 over a container's specification."""
    text = json.dumps(spec, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def cores_of_agents(sandbox: Sandbox) -> str | None:
    """Processors of the agents' own: with `agents: apart` the host's last one, and it alone."""
    return str(max(os.sched_getaffinity(0))) if sandbox.agents == "apart" else None


def cores_of(sandbox: Sandbox, request: LaunchRequest) -> str | None:
    """Processors of a container's own; raises EngineError if the agents leave nothing to train on."""
    theirs = cores_of_agents(sandbox)
    if request.role == "agent" or theirs is None:
        return theirs if request.role == "agent" else request.lane.cores
    there = os.sched_getaffinity(0)
    left = (named_processors(request.lane.cores) if request.lane.cores else there) - named_processors(theirs)
    if not left:
        fix = "give the lane other --cores, or set agents: frozen"
        raise EngineError("agents have the only processor", where="policies/sandbox.yaml agents", fix=fix)
    return ",".join(map(str, sorted(left)))


def differences(attrs: dict[str, Any], spec: dict[str, Any], image: dict[str, Any] | None = None) -> list[str]:
    """What `attrs` (inspect) says otherwise than `spec` (`build`); empty if they agree.

    With `image`, the image's own configuration, variables and an entry point that neither asked for are found too.
    """
    host, config = dict(attrs["HostConfig"]), attrs["Config"]
    asked = _expected(spec)
    told = {name: host.pop(name, None) for name in asked}
    found = [f"{name}: {told[name]!r}" for name, value in asked.items() if told[name] != value]
    found += _lists(host, spec)
    found += [f"{name}: {value!r}, not asked for" for name, value in sorted(host.items()) if value not in _EMPTY]
    for name, value in (("User", spec["user"]), ("Image", spec["image"]), ("Cmd", spec["command"])):
        if config.get(name) != value:
            found.append(f"{name}: {config.get(name)!r}")
    for name in ("Tty", "OpenStdin", "Volumes", "ExposedPorts", "Healthcheck"):
        if config.get(name):
            found.append(f"{name}: {config[name]!r}, not asked for")
    environment = set(config.get("Env") or [])
    found += [f"Env without {k}" for k, v in spec["environment"].items() if f"{k}={v}" not in environment]
    if image is not None:
        known = {*(image.get("Env") or []), *(f"{k}={v}" for k, v in spec["environment"].items())}
        found += [f"Env {pair.split('=')[0]}, not asked for" for pair in sorted(environment - known)]
        if config.get("Entrypoint") != image.get("Entrypoint"):
            found.append(f"Entrypoint: {config.get('Entrypoint')!r}")
    networks = set((attrs.get("NetworkSettings") or {}).get("Networks") or {})
    return found + [f"network {name}" for name in sorted(networks - {"none"})]


def _expected(spec: dict[str, Any]) -> dict[str, Any]:
    """Fields of the host configuration with exactly one right value."""
    return {
        "NetworkMode": spec["network_mode"],
        "ReadonlyRootfs": spec["read_only"],
        "Privileged": spec["privileged"],
        "CapDrop": spec["cap_drop"],
        "SecurityOpt": spec["security_opt"],
        "Init": spec["init"],
        "IpcMode": spec["ipc_mode"],
        "CgroupnsMode": spec["cgroupns"],
        "AutoRemove": spec["auto_remove"],
        "RestartPolicy": _NO_RESTART,
        "LogConfig": {"Type": "none", "Config": {}},
        "Runtime": spec["runtime"],
        "PidsLimit": spec["pids_limit"],
        "Memory": spec["mem_limit"],
        "MemorySwap": spec["memswap_limit"],
        "NanoCpus": spec["nano_cpus"],
        "CpusetCpus": spec["cpuset_cpus"] or "",
        "CpuShares": spec["cpu_shares"],
        "ShmSize": spec["shm_size"],
        "Tmpfs": spec["tmpfs"],
    }


def _device(request: dict[str, Any]) -> tuple[Any, ...]:
    return (request.get("Driver") or "", request.get("DeviceIDs"), request.get("Capabilities") or [])


def _lists(host: dict[str, Any], spec: dict[str, Any]) -> list[str]:
    """Mounts, limits and devices, whatever their order; takes what it compared out of `host`."""
    found = []
    mounts = {(m["Target"], m["Source"], bool(m.get("ReadOnly"))) for m in host.pop("Mounts", None) or []}
    wanted = {(m["Target"], m["Source"], bool(m["ReadOnly"])) for m in spec["mounts"]}
    found += [f"mount {target}: {source}, read-only {ro}" for target, source, ro in sorted(mounts ^ wanted)]
    limits = {(u["Name"], u["Soft"], u["Hard"]) for u in host.pop("Ulimits", None) or []}
    if limits != {(u["Name"], u["Soft"], u["Hard"]) for u in spec["ulimits"]}:
        found.append(f"Ulimits: {sorted(limits)}")
    devices = [_device(request) for request in host.pop("DeviceRequests", None) or []]
    if devices != [_device(request) for request in spec["device_requests"]]:
        found.append(f"DeviceRequests: {devices}")
    masked = MASKED | set(spec.get("host_config", {}).get("MaskedPaths", ()))
    for name, least in (("MaskedPaths", masked), ("ReadonlyPaths", READ_ONLY)):
        if missing := least - set(host.pop(name, None) or []):
            found.append(f"{name} without {', '.join(sorted(missing))}")
    return found
