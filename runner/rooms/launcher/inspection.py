"""Is the container the engine made the one we asked for? TRUSTED, pure; reads the engine's own inspect.

Every wall of the specification is compared with what the engine says it will enforce, and every other setting of
the host configuration must be empty: a field we have never heard of is a difference, not something to overlook.
A container with a difference is never started.
"""

from __future__ import annotations

from typing import Any

MASKED = frozenset(
    {"/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"}
)  # the engine hides at least these
READ_ONLY = frozenset({"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"})
_EMPTY: tuple[Any, ...] = (None, "", 0, -1, [], {}, False, [0, 0])
_NO_RESTART = {"Name": "no", "MaximumRetryCount": 0}


def differences(attrs: dict[str, Any], spec: dict[str, Any], image: dict[str, Any] | None = None) -> list[str]:
    """What `attrs` (inspect) says otherwise than `spec` (containers.specification); empty if they agree.

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
