"""The GPUs of this host, as people choose and watch them. TRUSTED, asks only; of no use to the rooms.

The driver is asked as in nvidia.py, where what a launcher needs of a GPU that it lends stands.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any, NamedTuple

import pynvml

from runner.core.base import nvidia
from runner.core.base.errors import EngineError
from runner.core.base.nvidia import MAX_NAME, MIB, Version, answered, ask

_WORD = 64  # bits of a mask of processors


class Card(NamedTuple):
    """One GPU of this host."""

    uuid: str
    name: str
    capability: Version | None
    memory_mib: int | None
    processors: frozenset[int]  # of its NUMA node; empty: not known
    mig: bool


def cards() -> list[Card]:
    """Every GPU of this host, none without a driver that answers."""
    with suppress(EngineError):
        return ask("GPUs", lambda _: [_card(pynvml.nvmlDeviceGetHandleByIndex(at)) for at in range(_count())])
    return []


def card(gpu: str) -> Card:
    """One GPU by its UUID; raises EngineError if the driver knows none of that name."""
    return ask(gpu, _card)


def lines() -> list[str]:
    """A line about each GPU of this host, for people; none without a driver that answers."""
    with suppress(EngineError):
        return ask("GPUs", lambda _: [_line(pynvml.nvmlDeviceGetHandleByIndex(at)) for at in range(_count())])
    return []


def _count() -> int:
    return int(pynvml.nvmlDeviceGetCount())


def _line(handle: Any) -> str:
    card, now, memory = _card(handle), nvidia.pace_of(handle), nvidia.use_of(handle).memory_mib
    busy = answered(lambda: int(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu))
    heat = answered(lambda: int(pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)))
    told = [
        card.name,
        "" if busy is None else f"{busy} %",
        "" if memory is None else f"{memory} of {card.memory_mib} MiB",
        "" if heat is None else f"{heat} C",
        "" if now.sm_mhz is None else f"{now.sm_mhz} MHz",
        *sorted(f"held back by {reason.replace('_', ' ')}" for reason in now.reasons),
    ]
    return ", ".join(part for part in told if part)


def _card(handle: Any) -> Card:
    memory = answered(lambda: int(pynvml.nvmlDeviceGetMemoryInfo(handle).total))
    capability = answered(lambda: tuple(pynvml.nvmlDeviceGetCudaComputeCapability(handle)))
    words = (max(os.cpu_count() or 1, 1) + _WORD - 1) // _WORD
    masks = answered(lambda: [int(word) for word in pynvml.nvmlDeviceGetCpuAffinity(handle, words)]) or []
    mig = answered(lambda: bool(pynvml.nvmlDeviceGetMigMode(handle)[0]))
    near = (_WORD * at + bit for at, mask in enumerate(masks) for bit in range(_WORD) if mask >> bit & 1)
    return Card(
        uuid=str(pynvml.nvmlDeviceGetUUID(handle)),
        name=str(pynvml.nvmlDeviceGetName(handle))[:MAX_NAME],
        capability=capability,
        memory_mib=None if memory is None else memory // MIB,
        processors=frozenset(near),
        mig=bool(mig),
    )
