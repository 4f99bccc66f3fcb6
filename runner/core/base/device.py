"""What compiled code runs on: the kind of a GPU, or of the host's processor. TRUSTED, asks only."""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path

_CPU = Path("/proc/cpuinfo")
_MAX_CPU = 1 << 20


def kind(gpu: str | None) -> str:
    """What compiled code depends on: the kind of GPU that was lent, or of the processor and its instructions."""
    if gpu is not None:
        return gpu
    try:
        with _CPU.open(encoding="utf-8", errors="replace") as file:
            lines = file.read(_MAX_CPU).split("\n\n")[0].splitlines()
    except OSError:
        lines = []
    told = dict(line.split(":", 1) for line in lines if ":" in line)
    named = {name.strip(): value.strip() for name, value in told.items()}
    flags = " ".join(sorted((named.get("flags") or named.get("Features") or "").split()))
    model = named.get("model name") or platform.machine()
    return f"{model}, instructions {hashlib.sha256(flags.encode()).hexdigest()[:12]}"
