"""One GPU for one run: how it is asked for, whose it is now, and that it is clean before and after. TRUSTED.

Part of the launcher. A GPU is named by its UUID, through CDI where the engine knows it, else through the NVIDIA
Container Toolkit. Not tested on a GPU: the tests put stand-ins for nvidia-smi on the PATH.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml
from docker.types import DeviceRequest

from runner.core.base import locks, nvidia
from runner.core.base.errors import BusyError, EngineError

_SETTLE_SECONDS = 20.0
_SLACK_MIB = 1024  # of memory the driver itself may hold on an idle GPU
_PATIENCE_SECONDS = 600.0  # another bench's run may be between its training and its evaluation
_MAX_SPEC = 4 << 20


def request(info: dict[str, Any], gpu: str) -> DeviceRequest:
    """How the engine is asked for one GPU; `info` is what the engine says of itself."""
    name = f"nvidia.com/gpu={gpu}"
    if name in _cdi_devices(info):
        return DeviceRequest(driver="cdi", device_ids=[name])
    return DeviceRequest(device_ids=[gpu], capabilities=[["gpu", "compute", "utility"]])


def _cdi_devices(info: dict[str, Any]) -> set[str]:
    """Names the engine can resolve: those it lists (API 1.50), else those in the folders it reads."""
    listed = {str(d.get("ID")) for d in info.get("DiscoveredDevices") or [] if d.get("Source") == "cdi"}
    for folder in info.get("CDISpecDirs") or []:
        for path in sorted(Path(folder).glob("*.y*ml")) + sorted(Path(folder).glob("*.json")):
            listed |= _names(path)
    return listed


def _names(path: Path) -> set[str]:
    try:
        with path.open("rb") as file:
            document = yaml.safe_load(file.read(_MAX_SPEC))
        return {f"{document['kind']}={device['name']}" for device in document["devices"]}
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return set()


@contextmanager
def lent(gpu: str) -> Iterator[None]:
    """The GPU for one run: ours alone, idle before, and back to idle after. Raises BusyError, EngineError."""
    with _locked(gpu):
        before = nvidia.use(gpu)
        if before.processes or before.memory_mib > _SLACK_MIB:
            told = f"{before.processes} processes and {before.memory_mib} MiB are on it"
            raise BusyError(told, where=gpu, fix="wait until it is free (nvidia-smi), or name another GPU")
        try:
            yield
        finally:
            _settle(gpu)


def _settle(gpu: str) -> None:
    """Wait until a run has left nothing on the GPU."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while (now := nvidia.use(gpu)).processes or now.memory_mib > _SLACK_MIB:
        if time.monotonic() > deadline:
            left = f"{now.processes} processes, {now.memory_mib} MiB"
            raise EngineError(
                f"a run left something on the GPU: {left}", where=gpu, fix="see nvidia-smi; then run again"
            )
        time.sleep(0.5)


@contextmanager
def _locked(gpu: str) -> Iterator[None]:
    """One run at a time on a GPU, for every user of the host; raises BusyError.

    The file lies where all may write, so it is never written: opened as it is, no link followed, one name only.
    """
    path = _lock(gpu)
    try:
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        fix = f"ask its owner or root to remove it: ls -l {path}"
        raise EngineError(f"no lock: {error.strerror}", where=str(path), fix=fix) from None
    try:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode) or state.st_nlink != 1:
            raise EngineError("not a lock of ours", where=str(path), fix=f"remove {path}")
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not locks.take(descriptor):
            if time.monotonic() > deadline:
                raise BusyError("another run is using it", where=gpu, fix="wait, or name another GPU")
            time.sleep(0.5)
        yield
    finally:
        os.close(descriptor)


def _lock(gpu: str) -> Path:
    """The same file for everybody on this host; compose's launcher gets /run/lock too."""
    folder = Path("/run/lock")
    return (folder if folder.is_dir() else Path("/tmp")) / f"glovebox-{gpu}.lock"  # noqa: S108 - see _locked
