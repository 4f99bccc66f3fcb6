"""Peak memory as seen from outside, of a real container."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import docker
import pytest
from docker.models.containers import Container

from runner.core.base.launching import Speed
from runner.core.policy.policy_files import Policies
from runner.rooms.launcher import usage
from tests import nvml
from tests.nvml import GPU, Card, Nvml

_FULL = "print('full', flush=True); import time; time.sleep(600)"
_SHARED = "import mmap; m = mmap.mmap(f, 300 << 20); [m.__setitem__(i, 1) for i in range(0, 300 << 20, 4096)]\n" + _FULL
WAYS = {  # mem_shared: 1.5 GiB in a memfd was counted as 0.24
    "anonymous": f"x = bytearray(300 << 20); {_FULL}",
    "memfd": f"import os; f = os.memfd_create('w'); os.ftruncate(f, 300 << 20); {_SHARED}",
    "shared": f"f = -1; {_SHARED}",
    "tmpfs": f"open('/tmp/x', 'wb').write(bytes(300 << 20)); {_FULL}",
    "shm": f"open('/dev/shm/x', 'wb').write(bytes(300 << 20)); {_FULL}",
}


def full(container: Container) -> None:
    """Wait until it has allocated; one that could not says why."""
    for line in container.logs(stream=True):
        assert line.strip() == b"full", container.logs()
        return
    pytest.fail(f"it ended: {container.logs()!r}")


def seen(what: Callable[[], bool], container: Container) -> None:
    """Wait for it: the kernel adds up what a control group uses every two seconds, or after many pages."""
    deadline = time.monotonic() + 60
    while not what():
        container.reload()
        assert time.monotonic() < deadline, (container.status, container.stats(stream=False)["memory_stats"])
        time.sleep(0.1)


@pytest.mark.engine
@pytest.mark.parametrize("way", WAYS)
def test_a_container_that_allocates_is_seen_to(engine: docker.DockerClient, policies: Policies, way: str) -> None:
    container = engine.containers.run(
        policies.sandbox.trainer.image,
        ["python", "-c", WAYS[way]],
        detach=True,
        network_mode="none",
        tmpfs={"/tmp": "size=400m"},
        shm_size="400m",
    )
    try:
        full(container)
        with usage.watched(lambda: usage.Looks(engine, None)(str(container.id))) as most:
            seen(lambda: most.mb >= 300, container)
        assert 300 <= most.mb < 500
    finally:
        container.remove(force=True)


@pytest.mark.engine
def test_what_can_be_read_from_a_disk_again_does_not_count(
    engine: docker.DockerClient, policies: Policies, tmp_path: Path
) -> None:
    (tmp_path / "x").write_bytes(bytes(300 << 20))
    tmp_path.chmod(0o755)  # the container's user is not root
    container = engine.containers.run(
        policies.sandbox.trainer.image,
        ["python", "-c", f"f = open('/x/x', 'rb'); all(f.read(1 << 20) for _ in range(300)); {WAYS['anonymous']}"],
        detach=True,
        network_mode="none",
        volumes={str(tmp_path): {"bind": "/x", "mode": "ro"}},
    )
    try:
        full(container)
        seen(lambda: usage.Looks(engine, None)(str(container.id)).mb >= 300, container)  # what it allocated, no more
        assert usage.Looks(engine, None)(str(container.id)).mb < 400
    finally:
        container.remove(force=True)


@pytest.mark.engine
def test_a_container_that_is_gone_costs_no_error(engine: docker.DockerClient) -> None:
    assert usage.Looks(engine, None)("0" * 64) == usage.Use()


@pytest.mark.engine
def test_a_container_that_has_ended_is_nobody_elses_work(engine: docker.DockerClient, policies: Policies) -> None:
    """The engine tells its processor time as 0 then: all that it had used was counted as its neighbours'."""
    container = engine.containers.run(
        policies.sandbox.trainer.image, ["python", "-c", "sum(range(10**7))"], detach=True, network_mode="none"
    )
    try:
        container.wait(timeout=60)
        assert usage.Looks(engine, None)(str(container.id)) == usage.Use()
    finally:
        container.remove(force=True)


def test_the_most_of_several_looks_is_kept() -> None:
    looks = iter([usage.Use(1.0), usage.Use(7.0)])
    with usage.watched(lambda: next(looks, usage.Use(2.0))) as most:
        for _ in range(200):
            if most.mb == 7.0:
                break
            time.sleep(0.05)
    assert most.mb == 7.0


def looks(gpu: str | None = GPU) -> usage.Looks:
    """Looks at a container that no engine knows."""
    return usage.Looks(docker.DockerClient(base_url="unix:///nonexistent", version="1.44"), gpu)


def test_a_gpu_whose_driver_is_silent_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml.install(monkeypatch, Nvml(loaded=False))
    silent = looks()
    assert silent("c") == usage.Use()
    assert silent.speed() is None


def test_memory_of_a_lent_gpu_is_all_that_is_in_use_there(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml.install(monkeypatch, Nvml([Card(used=48_000)]))
    assert looks()("c").mb == 48_000
    assert looks(None)("c").mb == 0  # not lent one: the engine is asked, and there is none


def test_what_slowed_a_gpu_is_recorded_by_its_share_of_the_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card()
    nvml.install(monkeypatch, Nvml([card]))
    made = looks()
    for clock, reasons in ((1980, 0), (1900, 0x4), (1400, 0x4 | 0x40), (1400, 0x20)):
        card.sm_mhz, card.reasons = clock, reasons
        made("c")
    found = made.speed()
    assert found is not None
    assert (found.name, found.driver) == ("NVIDIA H100 80GB HBM3", "580.159.04")
    assert (found.sm_mhz, found.power_cap_w) == (1670.0, 700.0)
    assert found.held_back == {"power_cap": 0.5, "heat": 0.5}
    assert found.throttled


def test_a_power_cap_alone_is_no_throttling_and_neither_is_a_moment_of_heat(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card(reasons=0x4)
    nvml.install(monkeypatch, Nvml([card]))
    made = looks()
    for at in range(100):
        card.reasons = 0x4 | (0x40 if at < 4 else 0)
        made("c")
    found = made.speed()
    assert found is not None
    assert not found.throttled


def test_a_card_that_tells_no_clock_still_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml.install(monkeypatch, Nvml([Card(name="NVIDIA GB10", used=None, sm_mhz=None, power_cap=None, reasons=None)]))
    made = looks()
    made("c")
    assert made.speed() == Speed(name="NVIDIA GB10", driver="580.159.04")


@pytest.mark.engine
def test_a_busy_neighbour_shows_and_the_container_itself_does_not(
    engine: docker.DockerClient, policies: Policies
) -> None:
    image, busy = policies.sandbox.trainer.image, ["python", "-c", "while True: pass"]
    held = {"detach": True, "network_mode": "none", "cpuset_cpus": "0"}
    one = engine.containers.run(image, busy, **held)
    try:
        beside = []
        for neighbour in (False, True):
            other = engine.containers.run(image, busy, **held) if neighbour else None
            time.sleep(1)
            with usage.watched(lambda: usage.Looks(engine, None, {0})(str(one.id))) as seen:
                time.sleep(4)
            beside.append(seen.neighbours)
            if other is not None:
                other.remove(force=True)
        assert beside[0] + 0.25 < beside[1] < 0.8  # half of the one processor
    finally:
        one.remove(force=True)
