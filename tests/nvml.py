"""A stand-in for NVIDIA's management library: the driver's answers for machines that have none.

`Nvml(cards=[...])` has the functions of the module pynvml that runner/core/base/nvidia.py asks, and raises that
module's own errors: an answer that a card does not know is NotSupported, as it is on GB10, MIG instances and WSL2.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import pynvml
import pytest

from runner.core.base import gpus, nvidia

MIB = 1 << 20
GPU = "GPU-00000000-1111-2222-3333-444444444444"


@dataclass
class Card:
    """What one card says; None: it does not know."""

    uuid: str = GPU
    name: str = "NVIDIA H100 80GB HBM3"
    capability: tuple[int, int] | None = (9, 0)
    total: int | None = 81559  # MiB
    used: int | None = 3
    compute: list[int] | None = field(default_factory=list)
    graphics: list[int] | None = field(default_factory=list)
    sm_mhz: int | None = 1980
    power_cap: int | None = 700_000  # mW
    reasons: int | None = 0
    affinity: list[int] | None = field(default_factory=lambda: [0b1111])
    mig: bool | None = False


@dataclass
class _Memory:
    total: int
    used: int


@dataclass
class _Process:
    pid: int


@dataclass
class _Rates:
    gpu: int


@dataclass
class Nvml:
    """The module."""

    cards: list[Card] = field(default_factory=lambda: [Card()])
    version: str = "580.159.04"
    cuda: int = 13000
    loaded: bool = True
    stuck: threading.Event | None = None  # set it to let a stuck driver go

    def __getattr__(self, name: str) -> Any:
        if name.startswith(("NVMLError", "NVML_", "nvmlMemory")):
            return getattr(pynvml, name)
        raise AttributeError(name)

    def nvmlInit(self) -> None:
        if self.stuck is not None:
            self.stuck.wait(60)
        if not self.loaded:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    def nvmlShutdown(self) -> None:
        pass

    def nvmlSystemGetDriverVersion(self) -> str:
        return self.version

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:
        return self.cuda

    def nvmlDeviceGetCount(self) -> int:
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, at: int) -> Card:
        return self.cards[at]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Card:
        for card in self.cards:
            if card.uuid == uuid:
                return card
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)

    def nvmlDeviceGetUUID(self, card: Card) -> str:
        return card.uuid

    def nvmlDeviceGetName(self, card: Card) -> str:
        return card.name

    def nvmlDeviceGetMemoryInfo(self, card: Card, version: object = None) -> _Memory:
        return _Memory(_known(card.total) * MIB, _known(card.used) * MIB)

    def nvmlDeviceGetCudaComputeCapability(self, card: Card) -> tuple[int, int]:
        return _known(card.capability)

    def nvmlDeviceGetCpuAffinity(self, card: Card, words: int) -> list[int]:
        return (_known(card.affinity) + [0] * words)[:words]

    def nvmlDeviceGetMigMode(self, card: Card) -> tuple[int, int]:
        return (int(_known(card.mig)), 0)

    def nvmlDeviceGetComputeRunningProcesses(self, card: Card) -> list[_Process]:
        return [_Process(pid) for pid in _known(card.compute)]

    def nvmlDeviceGetGraphicsRunningProcesses(self, card: Card) -> list[_Process]:
        return [_Process(pid) for pid in _known(card.graphics)]

    def nvmlDeviceGetClockInfo(self, card: Card, kind: int) -> int:
        return _known(card.sm_mhz)

    def nvmlDeviceGetEnforcedPowerLimit(self, card: Card) -> int:
        return _known(card.power_cap)

    def nvmlDeviceGetCurrentClocksEventReasons(self, card: Card) -> int:
        return _known(card.reasons)

    def nvmlDeviceGetUtilizationRates(self, card: Card) -> _Rates:
        return _Rates(97)

    def nvmlDeviceGetTemperature(self, card: Card, kind: int) -> int:
        return 61


def _known(value: Any) -> Any:
    if value is None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
    return value


def install(monkeypatch: pytest.MonkeyPatch, nvml: Nvml) -> Nvml:
    """Let the product ask this one."""
    for module in (nvidia, gpus):
        monkeypatch.setattr(module, "pynvml", nvml)
    return nvml
