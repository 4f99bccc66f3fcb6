"""What NVIDIA's driver and container toolkit say of this host. TRUSTED, asks only.

The driver is asked through NVML, its management library, which makes no context on a GPU (nvidia-ml-py loads
libnvidia-ml.so.1). A card that does not know an answer says NotSupported (GB10, MIG, WSL2: what nvidia-smi prints as
[N/A]), and that is an answer here too: None.

A toolkit older than policies/sandbox.yaml's minimum_toolkit lets a container escape (CVE-2024-0132, fixed in 1.16.2;
CVE-2025-23266, fixed in 1.17.8).
"""

from __future__ import annotations

import os
import queue
import re
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal, NamedTuple, TypeVar

import pynvml

from runner.core.base.errors import EngineError

TOOLKIT_VARIABLE = "GLOVEBOX_TOOLKIT"  # where the launcher is a container: what `glovebox init` found on the host
_VERSION = re.compile(r"\b(\d{1,4})\.(\d{1,4})\.(\d{1,4})(?![-.\w])")  # a release candidate is not its release
MIB = 1 << 20
MAX_NAME = 100
_PATIENCE_SECONDS = 10.0
# nvml.h, nvmlClocksEventReasons: what holds a clock down although there is work. The first is common at full load.
HeldBack = Literal["power_cap", "hardware", "heat", "power_brake"]
_REASONS: dict[int, HeldBack] = {0x04: "power_cap", 0x08: "hardware", 0x20: "heat", 0x40: "heat", 0x80: "power_brake"}
_unanswered: dict[str, threading.Thread] = {}  # by what was asked: a GPU that hangs says nothing of the others
# What a card answers that does not know; a MIG instance may say that the argument is wrong.
_UNKNOWN = (
    pynvml.NVMLError_NotSupported,
    pynvml.NVMLError_FunctionNotFound,
    pynvml.NVMLError_NoPermission,
    pynvml.NVMLError_InvalidArgument,
)
Version = tuple[int, ...]
T = TypeVar("T")


class Driver(NamedTuple):
    """The driver, and the newest CUDA it can serve."""

    version: str
    cuda: Version


class Use(NamedTuple):
    """What is on a GPU now; memory None: the card does not say."""

    memory_mib: int | None
    processes: frozenset[int]  # that compute; what draws a desktop may compute too, and is none of them


class Pace(NamedTuple):
    """How fast a GPU is at this moment, and what holds it back; None: the card does not say."""

    sm_mhz: int | None
    power_cap_w: float | None
    reasons: frozenset[HeldBack]


def toolkit() -> Version | None:
    """Version of the NVIDIA Container Toolkit on this host, None if there is none."""
    text = _output("nvidia-ctk", "--version") or os.environ.get(TOOLKIT_VARIABLE) or ""
    found = _VERSION.search(text)
    return tuple(int(part) for part in found.groups()) if found else None


def check_toolkit(minimum: str) -> Version:
    """The toolkit's version; raises EngineError if there is none or it is older than `minimum`."""
    found = toolkit()
    fix = f"install the NVIDIA Container Toolkit {minimum} or newer"
    if found is None:
        raise EngineError("no NVIDIA Container Toolkit was found", where="nvidia-ctk --version", fix=fix)
    if found < tuple(int(part) for part in minimum.split(".")):
        text = ".".join(map(str, found))
        raise EngineError(f"the NVIDIA Container Toolkit {text} lets a container escape", where="nvidia-ctk", fix=fix)
    return found


def driver() -> Driver | None:
    """The driver of this host, None without one that answers."""
    with suppress(EngineError):
        return ask("driver", _driver)
    return None


def model(gpu: str) -> str:
    """What kind of GPU it is; raises EngineError if the driver does not say."""
    return ask(gpu, lambda handle: str(pynvml.nvmlDeviceGetName(handle))[:MAX_NAME])


def use(gpu: str) -> Use:
    """Memory in use and processes on a GPU; raises EngineError if the driver does not answer.

    A launcher in a container (compose) is shown no process of another one: there memory alone tells.
    """
    return ask(gpu, use_of)


def pace(gpu: str) -> Pace:
    """Clock, power cap and what holds the clock down now; raises EngineError if the driver does not answer."""
    return ask(gpu, pace_of)


# ---------------------------------------------------------------------------
# Questions, asked of an open driver
# ---------------------------------------------------------------------------


def _driver(_: Any) -> Driver:
    cuda = pynvml.nvmlSystemGetCudaDriverVersion_v2()
    return Driver(str(pynvml.nvmlSystemGetDriverVersion()), (cuda // 1000, cuda % 1000 // 10))


def use_of(handle: Any) -> Use:
    """Of an open handle."""
    memory = answered(lambda: int(pynvml.nvmlDeviceGetMemoryInfo(handle, pynvml.nvmlMemory_v2).used))
    compute = _processes(pynvml.nvmlDeviceGetComputeRunningProcesses, handle)
    drawing = _processes(pynvml.nvmlDeviceGetGraphicsRunningProcesses, handle)
    return Use(None if memory is None else memory // MIB, compute - drawing)


def pace_of(handle: Any) -> Pace:
    """Of an open handle."""
    clock = answered(lambda: int(pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM)))
    cap = answered(lambda: pynvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000)
    bits = answered(lambda: int(pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle))) or 0
    return Pace(clock, cap, frozenset(word for bit, word in _REASONS.items() if bits & bit))


def _processes(ask: Callable[[Any], list[Any]], handle: Any) -> frozenset[int]:
    return frozenset(int(process.pid) for process in answered(lambda: ask(handle)) or [])


def answered(ask: Callable[[], T]) -> T | None:
    """An answer, None from a card that has none to this question."""
    try:
        return ask()
    except _UNKNOWN:
        return None


def ask(what: str, question: Callable[[Any], T]) -> T:
    """The answer to one question about a GPU, if `what` is one, else about the host; raises EngineError.

    Asked from a thread of its own: a driver that is stuck answers nobody, and must not stop who asks.
    """
    fix = "check: nvidia-smi; a GPU that hangs needs a reset"
    stuck = EngineError(f"the driver does not answer in {_PATIENCE_SECONDS:g} s", where=what, fix=fix)
    waiting = _unanswered.get(what)
    if waiting is not None and waiting.is_alive():
        raise stuck  # one thread that waits for ever is enough
    answers: queue.SimpleQueue[T | EngineError] = queue.SimpleQueue()
    asking = threading.Thread(target=lambda: answers.put(_answer(what, question)), daemon=True)
    asking.start()
    try:
        answer = answers.get(timeout=_PATIENCE_SECONDS)
    except queue.Empty:
        _unanswered[what] = asking
        raise stuck from None
    if isinstance(answer, EngineError):
        raise answer
    return answer


def _answer(what: str, question: Callable[[Any], T]) -> T | EngineError:
    try:
        pynvml.nvmlInit()
        try:
            return question(pynvml.nvmlDeviceGetHandleByUUID(what) if what.startswith(("GPU-", "MIG-")) else None)
        finally:
            pynvml.nvmlShutdown()
    except (pynvml.NVMLError_NotFound, pynvml.NVMLError_InvalidArgument):
        return EngineError("the driver knows no such GPU", where=what, fix="check: nvidia-smi -L")
    except (pynvml.NVMLError, OSError, ValueError) as error:
        return EngineError(f"the driver does not answer: {error}", where=what, fix="check: nvidia-smi -L")


def _output(*command: str, seconds: float = 30.0) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
