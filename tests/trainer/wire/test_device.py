"""The device the bench promised: a room without it says so and goes no further; nobody else is asked for one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from runner.core.base.mountable import SOURCE
from trainer.wire import device, variables


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A GPU was promised, and torch is built for one and finds it."""
    monkeypatch.setenv(variables.DEVICE, variables.CUDA)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    return monkeypatch


@pytest.fixture
def dev(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of /dev."""
    monkeypatch.setattr(device, "Path", lambda path: tmp_path if path == "/dev" else pytest.fail(path))
    return tmp_path


# What it is called


@pytest.mark.parametrize("promised", [variables.CUDA, variables.CPU])
@pytest.mark.parametrize("found", [True, False])
def test_a_promise_is_the_device_whatever_torch_finds(
    monkeypatch: pytest.MonkeyPatch, promised: str, found: bool
) -> None:
    monkeypatch.setenv(variables.DEVICE, promised)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: found)
    assert device.name() == promised


@pytest.mark.parametrize("found", [True, False])
@pytest.mark.parametrize("empty", [True, False])
def test_without_a_promise_it_is_what_torch_finds(monkeypatch: pytest.MonkeyPatch, found: bool, empty: bool) -> None:
    monkeypatch.setenv(variables.DEVICE, "")
    if not empty:
        monkeypatch.delenv(variables.DEVICE)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: found)
    assert device.name() == ("cuda" if found else "cpu")


# Whether it is there


def test_a_promised_gpu_that_torch_finds_is_there_and_nothing_is_said(
    gpu: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert device.there()
    assert capsys.readouterr().err == ""


def test_torch_for_processors_is_no_gpu_and_the_fix_is_told(
    gpu: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu.setattr(torch.version, "cuda", None)
    assert not device.there()
    said = capsys.readouterr()
    assert "torch for CPUs only" in said.err
    assert "make images" in said.err
    assert said.out == ""


def test_torch_that_finds_no_gpu_is_told_with_its_version(
    gpu: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu.setattr(torch.cuda, "is_available", lambda: False)
    assert not device.there()
    said = capsys.readouterr().err
    assert torch.__version__ in said
    assert "glovebox doctor --gpu" in said


@pytest.mark.parametrize("promised", [variables.CPU, None])
def test_where_no_gpu_was_promised_none_is_missed(monkeypatch: pytest.MonkeyPatch, promised: str | None) -> None:
    monkeypatch.delenv(variables.DEVICE, raising=False)
    if promised:
        monkeypatch.setenv(variables.DEVICE, promised)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device.there()


@pytest.mark.parametrize(("promised", "imported"), [(variables.CPU, False), (variables.CUDA, True)])
def test_torch_is_imported_only_to_look_for_a_gpu(promised: str, imported: bool) -> None:
    script = (
        "import sys\nfrom trainer.wire import device\n"
        "device.there(), device.openable()\nprint('torch' in sys.modules)\n"
    )
    environment = os.environ | {variables.DEVICE: promised}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=SOURCE, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == f"{imported}\n"


# Whether it can still be opened


def test_device_files_that_open_are_enough(gpu: pytest.MonkeyPatch, dev: Path) -> None:
    for number in (0, 1):
        (dev / f"nvidia{number}").write_bytes(b"")
    assert device.openable()


@pytest.mark.parametrize(("gone", "why"), [(True, "No such file or directory"), (False, "Is a directory")])
def test_a_device_file_that_does_not_open_is_told_by_name(
    gpu: pytest.MonkeyPatch, dev: Path, capsys: pytest.CaptureFixture[str], gone: bool, why: str
) -> None:
    """A dangling link and a folder: what root cannot open for writing either."""
    (dev / "nvidia0").write_bytes(b"")
    if gone:
        (dev / "nvidia1").symlink_to(dev / "taken-away")
    else:
        (dev / "nvidia1").mkdir()
    assert not device.openable()
    said = capsys.readouterr()
    assert f"{dev / 'nvidia1'}: {why}" in said.err
    assert "nvidia-ctk cdi generate" in said.err
    assert said.out == ""


@pytest.mark.parametrize("name", ["nvidiactl", "nvidia-uvm", "nvidia-caps", "nvme0"])
def test_other_files_are_not_the_gpus(gpu: pytest.MonkeyPatch, dev: Path, name: str) -> None:
    (dev / name).symlink_to(dev / "taken-away")
    assert device.openable()


def test_no_descriptor_stays_open(gpu: pytest.MonkeyPatch, dev: Path) -> None:
    for number in range(3):
        (dev / f"nvidia{number}").write_bytes(b"")
    before = len(os.listdir("/proc/self/fd"))
    assert device.openable()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("promised", [variables.CPU, None])
def test_where_no_gpu_was_promised_no_file_is_opened(
    monkeypatch: pytest.MonkeyPatch, dev: Path, promised: str | None
) -> None:
    monkeypatch.delenv(variables.DEVICE, raising=False)
    if promised:
        monkeypatch.setenv(variables.DEVICE, promised)
    (dev / "nvidia0").symlink_to(dev / "taken-away")
    assert device.openable()
