"""What NVIDIA's driver and container toolkit say of this host. TRUSTED, asks only.

A toolkit older than policies/sandbox.yaml's minimum_toolkit lets a container escape (CVE-2024-0132, fixed in 1.16.2;
CVE-2025-23266, fixed in 1.17.8). Not tested on a GPU: the tests put stand-ins for nvidia-smi and nvidia-ctk on the
PATH.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import NamedTuple

from runner.core.base.errors import EngineError

TOOLKIT_VARIABLE = "GLOVEBOX_TOOLKIT"  # where the launcher is a container: what `glovebox init` found on the host
_VERSION = re.compile(r"\b(\d{1,4})\.(\d{1,4})\.(\d{1,4})(?![-.\w])")  # a release candidate is not its release
Version = tuple[int, ...]


class Use(NamedTuple):
    """What runs on a GPU now."""

    memory_mib: int
    processes: int


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


def model(gpu: str) -> str:
    """What kind of GPU it is; raises EngineError if the driver does not say."""
    told = _output("nvidia-smi", f"--id={gpu}", "--query-gpu=name", "--format=csv,noheader")
    if told is None or not told.strip():
        raise EngineError("the driver does not answer", where=f"nvidia-smi --id={gpu}", fix="check nvidia-smi -L")
    return told.strip()[:100]


def gpus(fields: str = "name", seconds: float = 30.0) -> list[str]:
    """A line about each GPU of this host, with so many of nvidia-smi's fields; none without a driver."""
    told = _output("nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader", seconds=seconds)
    return [line[:120] for line in (told or "").splitlines() if line.strip()]


def use(gpu: str) -> Use:
    """Memory and compute processes on a GPU; raises EngineError if the driver does not say.

    A launcher in a container (compose) has no driver to ask: there nothing is seen, and docs/engines.md says so.
    """
    if os.environ.get(TOOLKIT_VARIABLE) and shutil.which("nvidia-smi") is None:
        return Use(0, 0)
    memory = _output("nvidia-smi", f"--id={gpu}", "--query-gpu=memory.used", "--format=csv,noheader,nounits")
    processes = _output("nvidia-smi", f"--id={gpu}", "--query-compute-apps=pid", "--format=csv,noheader")
    if memory is None or processes is None or not memory.strip().isdecimal():
        raise EngineError("the driver does not answer", where=f"nvidia-smi --id={gpu}", fix="check nvidia-smi -L")
    return Use(int(memory), len(processes.split()))


def _output(*command: str, seconds: float = 30.0) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
