"""One GPU for one run. There is none here: stand-ins for nvidia-smi and nvidia-ctk answer from files."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from runner.core.base import nvidia
from runner.core.base.errors import BusyError, EngineError
from runner.rooms.launcher import gpu

GPU = "GPU-00000000-1111-2222-3333-444444444444"


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose files memory, pids and version the stand-ins print."""
    (tmp_path / "memory").write_text("3\n")
    (tmp_path / "pids").write_text("")
    (tmp_path / "version").write_text("NVIDIA Container Toolkit CLI version 1.17.8\ncommit: f202b80\n")
    smi = f'case "$*" in *memory.used*) cat {tmp_path}/memory;; *compute-apps*) cat {tmp_path}/pids;; *) exit 1;; esac'
    for name, script in (("nvidia-smi", smi), ("nvidia-ctk", f"cat {tmp_path}/version")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv(nvidia.TOOLKIT_VARIABLE, raising=False)
    monkeypatch.setattr(gpu, "_SETTLE_SECONDS", 0.6)
    monkeypatch.setattr(gpu, "_lock", lambda name: tmp_path / f"{name}.lock")
    return tmp_path


def test_a_fixed_toolkit_passes_and_an_older_one_names_the_version_to_install(driver: Path) -> None:
    assert nvidia.check_toolkit("1.17.8") == (1, 17, 8)
    (driver / "version").write_text("NVIDIA Container Toolkit CLI version 1.16.1\n")
    with pytest.raises(EngineError, match=r"1\.16\.1.*1\.17\.8 or newer"):
        nvidia.check_toolkit("1.17.8")
    (driver / "version").write_text("NVIDIA Container Toolkit CLI version 1.100.0\n")
    assert nvidia.check_toolkit("1.17.8") == (1, 100, 0)


@pytest.mark.parametrize("text", ["", "garbage", "version 1.17", "version 1.17.8-rc.1"])
def test_a_toolkit_that_does_not_say_its_version_is_refused(driver: Path, text: str) -> None:
    (driver / "version").write_text(text)
    with pytest.raises(EngineError, match="no NVIDIA Container Toolkit"):
        nvidia.check_toolkit("1.17.8")


def test_without_a_toolkit_a_gpu_is_refused_and_compose_tells_its_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.delenv(nvidia.TOOLKIT_VARIABLE, raising=False)
    with pytest.raises(EngineError, match="no NVIDIA Container Toolkit"):
        nvidia.check_toolkit("1.17.8")
    monkeypatch.setenv(nvidia.TOOLKIT_VARIABLE, "1.18.0")
    assert nvidia.check_toolkit("1.17.8") == (1, 18, 0)


def test_cdi_is_used_where_the_engine_knows_the_device_and_the_toolkit_otherwise(tmp_path: Path) -> None:
    assert gpu.request({}, GPU)["DeviceIDs"] == [GPU]
    assert gpu.request({}, GPU)["Capabilities"] == [["gpu", "compute", "utility"]]
    listed = {"DiscoveredDevices": [{"Source": "cdi", "ID": f"nvidia.com/gpu={GPU}"}]}
    assert gpu.request(listed, GPU)["Driver"] == "cdi"
    document = {"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": [{"name": "0"}, {"name": GPU}]}
    (tmp_path / "nvidia.json").write_text(json.dumps(document))
    found = gpu.request({"CDISpecDirs": [str(tmp_path), "/nonexistent"]}, GPU)
    assert (found["Driver"], found["DeviceIDs"]) == ("cdi", [f"nvidia.com/gpu={GPU}"])
    (tmp_path / "nvidia.json").write_text("kind: [")
    assert gpu.request({"CDISpecDirs": [str(tmp_path)]}, GPU)["Driver"] == ""


def test_a_gpu_somebody_computes_on_is_refused(driver: Path) -> None:
    (driver / "pids").write_text("4242\n")
    with pytest.raises(BusyError, match="1 processes and 3 MiB"), gpu.lent(GPU):
        pass
    (driver / "pids").write_text("")
    with gpu.lent(GPU):
        pass


def test_a_run_that_leaves_a_process_or_memory_behind_is_an_error_and_so_is_the_next(driver: Path) -> None:
    with pytest.raises(EngineError, match="1 processes, 30000 MiB"), gpu.lent(GPU):
        (driver / "pids").write_text("4242\n")
        (driver / "memory").write_text("30000\n")
    (driver / "pids").write_text("")
    with pytest.raises(BusyError, match="30000 MiB"), gpu.lent(GPU):
        pass


def test_a_run_that_fails_is_looked_after_too(driver: Path) -> None:
    with pytest.raises(EngineError, match="left something"), gpu.lent(GPU):
        (driver / "pids").write_text("4242\n")
        raise ValueError


def test_what_a_run_leaves_may_take_a_moment_to_go(driver: Path) -> None:
    with gpu.lent(GPU):
        (driver / "memory").write_text("9000\n")
        threading.Timer(0.2, lambda: (driver / "memory").write_text("5\n")).start()


def test_one_run_at_a_time_on_a_gpu_and_another_gpu_is_free(driver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "_PATIENCE_SECONDS", 0.2)
    with gpu.lent(GPU):
        with pytest.raises(BusyError, match="another run"), gpu.lent(GPU):
            pass
        with gpu.lent(GPU.replace("0000", "9999")):
            pass
    with gpu.lent(GPU):
        pass


def test_a_lock_that_is_a_link_or_has_two_names_is_refused_and_nothing_is_written(driver: Path) -> None:
    """/run/lock is everybody's: another user may have put anything there."""
    target = driver / "target"
    target.write_text("precious")
    lock = driver / f"{GPU}.lock"
    lock.symlink_to(target)
    with pytest.raises(EngineError, match="no lock"), gpu.lent(GPU):
        pass
    lock.unlink()
    lock.hardlink_to(target)
    with pytest.raises(EngineError, match="not a lock of ours"), gpu.lent(GPU):
        pass
    lock.unlink()
    os.mkfifo(lock)
    with pytest.raises(EngineError, match="not a lock of ours"), gpu.lent(GPU):
        pass
    assert target.read_text() == "precious"


def test_a_second_user_may_take_the_lock_of_the_first(driver: Path) -> None:
    with gpu.lent(GPU):
        pass
    lock = driver / f"{GPU}.lock"
    lock.chmod(0o444)  # as it is for anybody but its owner
    with gpu.lent(GPU):
        pass
    assert lock.read_bytes() == b""


def test_a_driver_that_does_not_answer_is_an_error(driver: Path) -> None:
    (driver / "memory").write_text("N/A\n")
    with pytest.raises(EngineError, match="does not answer"):
        nvidia.use(GPU)
