"""Peak memory as seen from outside, of a real container."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import docker
import pytest
from docker.models.containers import Container

from runner.core.policy.policy_files import Policies
from runner.rooms.launcher import usage

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
        with usage.watched(lambda: usage.use(engine, str(container.id), None)) as most:
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
        seen(lambda: usage.use(engine, str(container.id), None).mb >= 300, container)  # what it allocated, no more
        assert usage.use(engine, str(container.id), None).mb < 400
    finally:
        container.remove(force=True)


@pytest.mark.engine
def test_a_container_that_is_gone_costs_no_error(engine: docker.DockerClient) -> None:
    assert usage.use(engine, "0" * 64, None) == usage.Use()


@pytest.mark.engine
def test_a_container_that_has_ended_is_nobody_elses_work(engine: docker.DockerClient, policies: Policies) -> None:
    """The engine tells its processor time as 0 then: all that it had used was counted as its neighbours'."""
    container = engine.containers.run(
        policies.sandbox.trainer.image, ["python", "-c", "sum(range(10**7))"], detach=True, network_mode="none"
    )
    try:
        container.wait(timeout=60)
        assert usage.use(engine, str(container.id), None) == usage.Use()
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


def test_a_gpu_whose_driver_is_silent_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.delenv("GLOVEBOX_TOOLKIT", raising=False)
    client = docker.DockerClient(base_url="unix:///nonexistent", version="1.44")
    assert usage.use(client, "c", "GPU-x") == usage.Use()


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
            with usage.watched(lambda: usage.use(engine, str(one.id), None, {0})) as seen:
                time.sleep(4)
            beside.append(seen.neighbours)
            if other is not None:
                other.remove(force=True)
        assert beside[0] + 0.25 < beside[1] < 0.8  # half of the one processor
    finally:
        one.remove(force=True)
