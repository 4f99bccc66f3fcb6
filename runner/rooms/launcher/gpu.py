"""One GPU for one run: how it is asked for, whose it is now, and that it is clean before and after. TRUSTED.

Part of the launcher. A GPU, or a MIG instance of one, is named by its UUID, through CDI where the engine knows it, else
through the NVIDIA Container Toolkit.
"""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml
from docker.types import DeviceRequest

from runner.core.base import locks, nvidia
from runner.core.base.errors import BusyError, EngineError

USUAL = Path("/run/lock")  # of locks
SETTLE_SECONDS = 20.0
_LEFT_MIB = 256  # more than before a run: what drivers and desktops move by themselves
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
def lent(gpu: str, idle_mib: int) -> Iterator[None]:
    """The GPU for one run: ours alone, idle before, and back to idle after. Raises BusyError, EngineError.

    Idle is a GPU on which nothing computes and at most `idle_mib` are in use (a card that does not say: the first
    alone). A run that leaves something behind has still run; it is the next one that is refused.
    """
    with _locked(gpu):
        before = check_idle(gpu, idle_mib)
        try:
            yield
        finally:
            _settle(gpu, before)


def check_idle(gpu: str, idle_mib: int) -> nvidia.Use:
    """What is on a GPU that nobody uses; raises BusyError if somebody does."""
    now = nvidia.use(gpu)
    if now.processes or (now.memory_mib or 0) > idle_mib:
        fix = "wait until it is free (nvidia-smi), name another GPU, or raise gpu_idle_mib where a desktop is on it"
        raise BusyError(f"{told(now)} on it", where=f"{gpu}, policies/sandbox.yaml", fix=fix)
    return now


def _settle(gpu: str, before: nvidia.Use) -> None:
    """Wait until a run has left nothing on the GPU; says so if it does not, or if nobody can tell.

    The run is over and what it gave is good; it is the next one that is refused.
    """
    deadline = time.monotonic() + SETTLE_SECONDS
    most = (before.memory_mib or 0) + _LEFT_MIB
    try:
        while (now := nvidia.use(gpu)).processes or (now.memory_mib or 0) > most:
            if time.monotonic() > deadline:
                raise EngineError(f"a run left something: {told(now)} there", where=gpu, fix="see nvidia-smi")
            time.sleep(0.2)
    except EngineError as error:
        print(f"launcher: {error}", file=sys.stderr, flush=True)


def told(use: nvidia.Use) -> str:
    """As people read it."""
    memory = "an unknown amount of memory" if use.memory_mib is None else f"{use.memory_mib} MiB"
    return f"{len(use.processes)} processes and {memory} are"


@contextmanager
def _locked(gpu: str) -> Iterator[None]:
    """One run at a time on a GPU, for every user of the host; raises BusyError.

    The file lies where all may write, so it is never written: opened as it is, no link followed, one name only.
    """
    path = lock_path(gpu)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        descriptor = _opened(path)
        try:
            while not locks.take(descriptor):
                if time.monotonic() > deadline:
                    raise BusyError("another run is using it", where=gpu, fix="wait, or name another GPU")
                time.sleep(0.5)
            if _is(descriptor, path):
                with suppress(OSError):
                    os.utime(path)  # who tidies up /tmp sees that it is in use
                yield
                return
        finally:
            os.close(descriptor)


def _opened(path: Path) -> int:
    """The lock's file; raises EngineError unless it is a plain one with one name."""
    try:
        with suppress(FileExistsError):
            made = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            os.fchmod(made, 0o644)  # whatever the umask: others must open it
            os.close(made)
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        fix = f"ask its owner or root to remove it: ls -l {path}"
        raise EngineError(f"no lock: {error.strerror}", where=str(path), fix=fix) from None
    state = os.fstat(descriptor)
    if not stat.S_ISREG(state.st_mode) or state.st_nlink > 1:
        os.close(descriptor)
        raise EngineError("not a lock of ours", where=str(path), fix=f"remove {path}")
    return descriptor


def _is(descriptor: int, path: Path) -> bool:
    """Whether the file that was locked is still the one of that name: somebody may have removed it meanwhile."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def lock_path(gpu: str) -> Path:
    """The same file for everybody on this host: where all may write. compose mounts that folder on /run/lock.

    /run/lock is not everybody's on Fedora, RHEL and Arch (0755).
    """
    everybodys = USUAL.is_dir() and USUAL.stat().st_mode & stat.S_IWOTH
    return (USUAL if everybodys else Path("/tmp")) / f"glovebox-{gpu}.lock"  # noqa: S108 - see _locked
