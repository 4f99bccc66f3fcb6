"""Peak memory as seen from outside, of a real container."""

from __future__ import annotations

import time

import docker
import pytest

from runner import peak
from runner.policy import Policies


@pytest.mark.engine
def test_a_container_that_allocates_is_seen_to(engine: docker.DockerClient, policies: Policies) -> None:
    code = "x = bytearray(300 << 20); print('full', flush=True); import time; time.sleep(60)"
    command = ["python", "-c", code]
    container = engine.containers.run(policies.sandbox.trainer.image, command, detach=True, network_mode="none")
    try:
        for _ in container.logs(stream=True):
            break
        with peak.watched(lambda: peak.memory(engine, str(container.id), None)) as most:
            time.sleep(0.5)
        assert 300 < most.mb < 500
    finally:
        container.remove(force=True)


@pytest.mark.engine
def test_a_container_that_is_gone_costs_no_error(engine: docker.DockerClient) -> None:
    assert peak.memory(engine, "0" * 64, None) == 0.0


def test_the_most_of_several_looks_is_kept() -> None:
    looks = iter([1.0, 7.0])
    with peak.watched(lambda: next(looks, 2.0)) as most:
        for _ in range(200):
            if most.mb == 7.0:
                break
            time.sleep(0.05)
    assert most.mb == 7.0


def test_a_gpu_whose_driver_is_silent_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.delenv("GLOVEBOX_TOOLKIT", raising=False)
    assert peak.memory(docker.DockerClient(base_url="unix:///nonexistent", version="1.44"), "c", "GPU-x") == 0.0
