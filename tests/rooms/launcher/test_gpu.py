"""One GPU for one run. There is none here: stand-ins answer for its driver and for nvidia-ctk."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from runner.core.base import nvidia
from runner.core.base.errors import BusyError, EngineError
from runner.rooms.launcher import gpu
from tests import nvml
from tests.nvml import GPU, Card, Nvml

IDLE = 1024  # MiB


@pytest.fixture
def card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Card:
    """The one GPU of this host."""
    made = Card(uuid=GPU)
    other = Card(uuid=GPU.replace("0000", "9999"))
    nvml.install(monkeypatch, Nvml([made, other]))
    monkeypatch.setattr(gpu, "SETTLE_SECONDS", 0.6)
    monkeypatch.setattr(gpu, "lock_path", lambda name: tmp_path / f"{name}.lock")
    return made


@pytest.fixture
def ctk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that a stand-in for nvidia-ctk prints."""
    said = tmp_path / "version"
    said.write_text("NVIDIA Container Toolkit CLI version 1.17.8\ncommit: f202b80\n")
    (tmp_path / "nvidia-ctk").write_text(f"#!/bin/sh\ncat {said}\n")
    (tmp_path / "nvidia-ctk").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv(nvidia.TOOLKIT_VARIABLE, raising=False)
    return said


def test_a_fixed_toolkit_passes_and_an_older_one_names_the_version_to_install(ctk: Path) -> None:
    assert nvidia.check_toolkit("1.17.8") == (1, 17, 8)
    ctk.write_text("NVIDIA Container Toolkit CLI version 1.16.1\n")
    with pytest.raises(EngineError, match=r"1\.16\.1.*1\.17\.8 or newer"):
        nvidia.check_toolkit("1.17.8")
    ctk.write_text("NVIDIA Container Toolkit CLI version 1.100.0\n")
    assert nvidia.check_toolkit("1.17.8") == (1, 100, 0)


@pytest.mark.parametrize("text", ["", "garbage", "version 1.17", "version 1.17.8-rc.1"])
def test_a_toolkit_that_does_not_say_its_version_is_refused(ctk: Path, text: str) -> None:
    ctk.write_text(text)
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


def test_a_gpu_somebody_computes_on_is_refused_and_the_error_names_the_setting(card: Card) -> None:
    card.compute = [4242]
    with pytest.raises(BusyError, match="1 processes and 3 MiB") as refused, gpu.lent(GPU, IDLE):
        pass
    assert "gpu_idle_mib" in str(refused.value)
    card.compute = []
    with gpu.lent(GPU, IDLE):
        pass


def test_memory_that_nobody_here_holds_is_somebody_elses(card: Card) -> None:
    """A launcher in a container is shown no process of another one."""
    card.used = 30_000
    with pytest.raises(BusyError, match="30000 MiB"), gpu.lent(GPU, IDLE):
        pass


def test_a_desktop_may_stay_where_policy_gives_it_room(card: Card) -> None:
    card.used, card.compute, card.graphics = 1800, [7], [7]
    with pytest.raises(BusyError, match="0 processes and 1800 MiB"), gpu.lent(GPU, IDLE):
        pass
    with gpu.lent(GPU, 4096):
        card.used = 9000
        threading.Timer(0.1, lambda: setattr(card, "used", 1850)).start()
    assert gpu.check_idle(GPU, 4096).memory_mib == 1850


def test_a_card_that_does_not_tell_its_memory_is_judged_by_its_processes(card: Card) -> None:
    card.used, card.compute = None, [4242]
    with pytest.raises(BusyError, match="unknown amount of memory"), gpu.lent(GPU, IDLE):
        pass
    card.compute = []
    with gpu.lent(GPU, IDLE):
        pass


def test_a_run_that_leaves_something_behind_has_still_run_and_the_next_is_refused(
    card: Card, capsys: pytest.CaptureFixture[str]
) -> None:
    with gpu.lent(GPU, IDLE):
        card.compute, card.used = [4242], 30_000
    assert "a run left something: 1 processes and 30000 MiB" in capsys.readouterr().err
    card.compute = []
    with pytest.raises(BusyError, match="30000 MiB"), gpu.lent(GPU, IDLE):
        pass


def test_a_run_that_fails_is_looked_after_too(card: Card, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="its own"), gpu.lent(GPU, IDLE):
        card.compute = [4242]
        raise ValueError("its own")
    assert "left something" in capsys.readouterr().err


def test_what_a_run_leaves_may_take_a_moment_to_go(card: Card, capsys: pytest.CaptureFixture[str]) -> None:
    with gpu.lent(GPU, IDLE):
        card.used = 9000
        threading.Timer(0.2, lambda: setattr(card, "used", 5)).start()
    assert capsys.readouterr().err == ""


def test_one_run_at_a_time_on_a_gpu_and_another_gpu_is_free(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "_PATIENCE_SECONDS", 0.2)
    with gpu.lent(GPU, IDLE):
        with pytest.raises(BusyError, match="another run"), gpu.lent(GPU, IDLE):
            pass
        with gpu.lent(GPU.replace("0000", "9999"), IDLE):
            pass
    with gpu.lent(GPU, IDLE):
        pass


def test_a_lock_that_is_a_link_or_has_two_names_is_refused_and_nothing_is_written(card: Card, tmp_path: Path) -> None:
    """/run/lock is everybody's: another user may have put anything there."""
    target = tmp_path / "target"
    target.write_text("precious")
    lock = tmp_path / f"{GPU}.lock"
    lock.symlink_to(target)
    with pytest.raises(EngineError, match="no lock"), gpu.lent(GPU, IDLE):
        pass
    lock.unlink()
    lock.hardlink_to(target)
    with pytest.raises(EngineError, match="not a lock of ours"), gpu.lent(GPU, IDLE):
        pass
    lock.unlink()
    os.mkfifo(lock)
    with pytest.raises(EngineError, match="not a lock of ours"), gpu.lent(GPU, IDLE):
        pass
    assert target.read_text() == "precious"


def test_a_second_user_may_take_the_lock_of_the_first(card: Card, tmp_path: Path) -> None:
    with gpu.lent(GPU, IDLE):
        pass
    lock = tmp_path / f"{GPU}.lock"
    lock.chmod(0o444)  # as it is for anybody but its owner
    with gpu.lent(GPU, IDLE):
        pass
    assert lock.read_bytes() == b""


def test_a_driver_that_does_not_answer_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    nvml.install(monkeypatch, Nvml(loaded=False))
    monkeypatch.setattr(gpu, "lock_path", lambda name: tmp_path / f"{name}.lock")
    with pytest.raises(EngineError, match="does not answer"), gpu.lent(GPU, IDLE):
        pass


def test_the_lock_lies_where_everybody_may_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """/run/lock is 0755 on Fedora, RHEL and Arch: root would take one file and everybody else another."""
    for mode, folder in ((0o1777, tmp_path), (0o755, Path("/tmp"))):
        tmp_path.chmod(mode)
        monkeypatch.setattr(gpu, "USUAL", tmp_path)
        assert gpu.lock_path(GPU) == folder / f"glovebox-{GPU}.lock"
    monkeypatch.setattr(gpu, "USUAL", tmp_path / "absent")
    assert gpu.lock_path(GPU).parent == Path("/tmp")


def test_a_driver_that_falls_silent_at_the_end_costs_no_finished_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    driver = nvml.install(monkeypatch, Nvml())
    monkeypatch.setattr(gpu, "lock_path", lambda name: tmp_path / f"{name}.lock")
    with gpu.lent(GPU, IDLE):
        driver.loaded = False
    assert "does not answer" in capsys.readouterr().err
    with pytest.raises(EngineError, match="does not answer"), gpu.lent(GPU, IDLE):
        pass


def test_a_lock_whose_file_was_removed_meanwhile_is_taken_anew(card: Card, tmp_path: Path) -> None:
    """Who tidies up /tmp would let a second run onto a GPU that is lent: the first one's lock has no name any more."""
    path = tmp_path / f"{GPU}.lock"
    held, later, entered = gpu._locked(GPU), gpu._locked(GPU), threading.Event()
    held.__enter__()
    threading.Thread(target=lambda: (later.__enter__(), entered.set()), daemon=True).start()
    assert not entered.wait(0.3)
    path.unlink()  # the second waits for a file that nobody will find
    held.__exit__(None, None, None)
    assert entered.wait(10)
    assert path.exists()  # it made another one, and holds that
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu, "_PATIENCE_SECONDS", 0.1)
        with pytest.raises(BusyError, match="another run"), gpu._locked(GPU):
            pass
    later.__exit__(None, None, None)
    with gpu._locked(GPU):
        pass


def test_others_may_open_the_lock_whatever_the_umask(card: Card, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        with gpu.lent(GPU, IDLE):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / f"{GPU}.lock").stat().st_mode & 0o777 == 0o644
