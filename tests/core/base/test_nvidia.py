"""What the driver says of this host, and what it does not; a stand-in answers for it."""

from __future__ import annotations

import inspect
import threading

import pynvml
import pytest

from runner.core.base import gpus, nvidia
from runner.core.base.errors import EngineError
from tests import nvml
from tests.nvml import GPU, Card, Nvml


def test_a_host_without_a_driver_has_no_gpus_and_a_question_about_one_says_what_to_check() -> None:
    assert (nvidia.driver(), gpus.cards(), gpus.lines()) == (None, [], [])  # the real library: there is none here
    with pytest.raises(EngineError, match="nvidia-smi -L"):
        nvidia.use(GPU)


def test_driver_card_use_and_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card(used=70_000, compute=[7], reasons=0x4 | 0x40)
    nvml.install(monkeypatch, Nvml([card]))
    assert nvidia.driver() == ("580.159.04", (13, 0))
    assert gpus.card(GPU) == (GPU, card.name, (9, 0), 81559, frozenset({0, 1, 2, 3}), False)
    assert nvidia.use(GPU) == (70_000, {7})
    assert nvidia.pace(GPU) == (1980, 700.0, {"power_cap", "heat"})
    (line,) = gpus.lines()
    assert "97 %, 70000 of 81559 MiB, 61 C, 1980 MHz, held back by heat, held back by power cap" in line


def test_a_card_that_does_not_say_is_none_and_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """GB10, MIG and WSL2: nvidia-smi prints [N/A]."""
    silent = Card(total=None, used=None, sm_mhz=None, power_cap=None, reasons=None, affinity=None, mig=None)
    nvml.install(monkeypatch, Nvml([silent]))
    assert nvidia.use(GPU) == (None, frozenset())
    assert nvidia.pace(GPU) == (None, None, frozenset())
    assert gpus.card(GPU)[3:] == (None, frozenset(), False)
    assert gpus.lines() == [f"{silent.name}, 97 %, 61 C"]


def test_what_draws_a_desktop_does_not_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml.install(monkeypatch, Nvml([Card(compute=[1, 2], graphics=[2, 3])]))
    assert nvidia.use(GPU).processes == {1}


def test_a_gpu_that_the_driver_does_not_know_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml.install(monkeypatch, Nvml())
    with pytest.raises(EngineError, match="no such GPU"):
        nvidia.model(GPU.replace("0000", "9999"))
    assert nvidia.model(GPU) == "NVIDIA H100 80GB HBM3"


def test_a_mig_instance_is_asked_by_its_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    instance = GPU.replace("GPU", "MIG")
    nvml.install(monkeypatch, Nvml([Card(), Card(uuid=instance, used=11)]))
    assert nvidia.use(instance).memory_mib == 11


def test_a_stuck_driver_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = threading.Event()
    nvml.install(monkeypatch, Nvml(stuck=stuck))
    monkeypatch.setattr(nvidia, "_PATIENCE_SECONDS", 0.1)
    with pytest.raises(EngineError, match="does not answer in"):
        nvidia.use(GPU)
    assert gpus.cards() == []
    stuck.set()


def test_the_stand_in_has_what_the_library_has() -> None:
    """A function that the real module lacks, or calls otherwise, would pass every other test."""
    for name, member in inspect.getmembers(Nvml, inspect.isfunction):
        if name.startswith("nvml"):
            ours, theirs = inspect.signature(member), inspect.signature(getattr(pynvml, name))
            needed = [
                p for p in theirs.parameters.values() if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD
            ]
            assert len(ours.parameters) - 1 >= len(needed), name


def test_a_driver_that_stays_stuck_is_asked_by_one_thread_only(monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = threading.Event()
    nvml.install(monkeypatch, Nvml(stuck=stuck))
    monkeypatch.setattr(nvidia, "_PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(nvidia, "_unanswered", {})  # a test before may have left it a thread that still hangs
    before = set(threading.enumerate())
    for _ in range(20):
        with pytest.raises(EngineError, match="does not answer in"):
            nvidia.use(GPU)
    assert len(set(threading.enumerate()) - before) == 1
    stuck.set()
    for thread in nvidia._unanswered.values():
        thread.join(10)
    nvml.install(monkeypatch, Nvml())
    assert nvidia.use(GPU).memory_mib == 3  # it answers again, and is asked again


def test_a_mig_instance_that_calls_a_question_wrong_has_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    class Instance(Nvml):
        def nvmlDeviceGetClockInfo(self, card: Card, kind: int) -> int:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_INVALID_ARGUMENT)

    nvml.install(monkeypatch, Instance())
    assert nvidia.pace(GPU).sm_mhz is None


def test_a_gpu_that_hangs_keeps_no_lane_on_another_from_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    hangs, other = threading.Event(), GPU.replace("0000", "9999")

    class Half(Nvml):
        def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Card:
            if uuid == GPU:
                hangs.wait(60)
            return super().nvmlDeviceGetHandleByUUID(uuid)

    nvml.install(monkeypatch, Half([Card(), Card(uuid=other, used=11)]))
    monkeypatch.setattr(nvidia, "_PATIENCE_SECONDS", 0.2)
    with pytest.raises(EngineError, match="does not answer in"):
        nvidia.use(GPU)
    assert nvidia.use(other).memory_mib == 11
    hangs.set()
