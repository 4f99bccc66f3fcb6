"""`doctor --gpu`, for the cards people have; a stand-in answers for their drivers, the engine is a real one."""

from __future__ import annotations

from pathlib import Path

import docker
import pytest

from runner.core.base.errors import EngineError
from runner.core.policy.policy_files import Policies
from runner.people.host import gpu_check
from runner.people.host.checks import Check
from runner.rooms.launcher import gpu as lending
from tests import nvml
from tests.core.base.test_cuda import CARDS
from tests.nvml import GPU, Card, Nvml


@pytest.fixture
def toolkit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container toolkit, and a lock of our own."""
    (tmp_path / "nvidia-ctk").write_text("#!/bin/sh\necho NVIDIA Container Toolkit CLI version 1.18.0\n")
    (tmp_path / "nvidia-ctk").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(lending, "lock_path", lambda name: tmp_path / f"{name}.lock")


def by_name(engine: docker.DockerClient, policies: Policies) -> dict[str, Check]:
    return {check.name: check for check in gpu_check.on(GPU, engine, policies, None)}


@pytest.mark.engine
@pytest.mark.usefixtures("toolkit")
@pytest.mark.parametrize("cuda", [13000, 12040])
def test_every_card_is_told_which_image_to_build(
    engine: docker.DockerClient, policies: Policies, monkeypatch: pytest.MonkeyPatch, cuda: int
) -> None:
    monkeypatch.setattr(gpu_check, "_image", lambda made: "")  # torch for CPUs, as in the tests' image
    for name, (capability, new, old) in CARDS.items():
        nvml.install(monkeypatch, Nvml([Card(name=name, capability=capability)], cuda=cuda))
        found, wanted = by_name(engine, policies), new if cuda == 13000 else old
        card, image = found[f"GPU {GPU}"], found["image"]
        assert card.ok is (wanted is not None), name
        assert not image.ok
        assert "built for CPUs" in image.detail
        assert (f"GLOVEBOX_TORCH={wanted} make images" in image.fix) is (wanted is not None)
        assert wanted is not None or "install driver 580" in card.fix == image.fix
        assert "rooms on the GPU" not in found
        assert "trainer on the GPU" not in found


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.usefixtures("toolkit")
def test_the_image_is_asked_what_its_torch_was_built_with(
    engine: docker.DockerClient, policies: Policies, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml.install(monkeypatch, Nvml())
    image = by_name(engine, policies)["image"]
    assert not image.ok
    assert "built for CPUs" in image.detail


@pytest.mark.engine
@pytest.mark.usefixtures("toolkit")
def test_a_room_that_finds_no_gpu_is_a_failed_line_that_says_what_it_said(
    engine: docker.DockerClient, policies: Policies, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here there is none, and the engine knows no such device: asked for none, the trainer itself refuses."""
    nvml.install(monkeypatch, Nvml())
    monkeypatch.setattr(gpu_check, "_image", lambda made: "13.0")
    refused = by_name(engine, policies)
    assert refused["image"].ok
    assert not refused["trainer on the GPU"].ok

    def promised(*arguments: object, **named: object) -> dict[str, object]:
        spec = real(*arguments, **named)
        return spec | {"device_requests": []}

    real = gpu_check.Stage.specification
    monkeypatch.setattr(gpu_check.Stage, "specification", promised)
    found = by_name(engine, policies)
    for room in ("trainer on the GPU", "evaluator on the GPU"):
        assert not found[room].ok
        assert "ended with 75" in found[room].detail
        assert "built for" not in found[room].fix


@pytest.mark.engine
@pytest.mark.usefixtures("toolkit")
def test_a_busy_gpu_shut_files_and_near_processors_are_told(
    engine: docker.DockerClient, policies: Policies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_check, "_image", lambda made: "")
    nvml.install(monkeypatch, Nvml([Card(used=20_000, affinity=[0b1111_0000_1011])]))
    found = by_name(engine, policies)
    assert not found["GPU idle"].ok
    assert "gpu_idle_mib" in found["GPU idle"].fix
    assert found["processors"].detail == "near the GPU: --cores 0-1,3,8-11"
    assert found["GPU request"].ok
    assert "cdi generate" in found["GPU request"].detail
    nvml.install(monkeypatch, Nvml([Card(affinity=None)]))
    found = by_name(engine, policies)
    assert found["GPU idle"].ok
    assert "does not say" in found["processors"].detail


def test_files_that_containers_users_cannot_open_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DeviceFileMode=0660, as some distributions and clusters set it."""
    (tmp_path / "nvidia0").write_bytes(b"")
    monkeypatch.setattr(gpu_check, "DEVICES", tmp_path)
    for mode, fine in ((0o660, False), (0o664, False), (0o666, True)):
        (tmp_path / "nvidia0").chmod(mode)
        assert gpu_check._files().ok is fine
    assert "NVreg_DeviceFileMode" in gpu_check._files().fix


def test_a_gpu_that_is_not_here_is_an_error(policies: Policies, monkeypatch: pytest.MonkeyPatch) -> None:
    nvml.install(monkeypatch, Nvml([]))
    with pytest.raises(EngineError, match="no such GPU"):
        next(gpu_check.on(GPU, docker.DockerClient(base_url="unix:///nonexistent", version="1.44"), policies, None))


@pytest.mark.engine
def test_every_doctor_names_the_gpus_of_the_host(
    engine: docker.DockerClient, policies: Policies, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (none,) = gpu_check.of_host(engine, policies)
    assert none.ok
    assert none.detail == "none: CPU only"
    nvml.install(monkeypatch, Nvml([Card(), Card(uuid=GPU.replace("0000", "9999"), capability=(3, 7))]))
    (tmp_path / "nvidia-ctk").write_text("#!/bin/sh\necho NVIDIA Container Toolkit CLI version 1.16.1\n")
    (tmp_path / "nvidia-ctk").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    toolkit, good, bad = gpu_check.of_host(engine, policies)
    assert not toolkit.ok
    assert "1.17.8 or newer" in toolkit.fix
    assert good.ok
    assert "torch cu130" in good.detail
    assert not bad.ok
