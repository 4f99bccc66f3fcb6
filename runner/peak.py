"""Peak memory of a container, watched from outside once a second. TRUSTED, part of the launcher.

train.py reports a peak of its own; this one it cannot choose. Of a lent GPU it is all memory in use there, since the
run has it alone; without one it is what the container holds and cannot be read from a disk again, as its control group
counts it: anonymous memory, and shared memory with memfd and tmpfs, where 1.5 GiB of weights once went uncounted.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import docker
from requests.exceptions import RequestException

from runner import gpu
from runner.errors import EngineError

_INTERVAL = 1.0  # seconds
_MIB = 1 << 20


@dataclass
class Peak:
    """The most that was seen, MiB; 0: nothing was."""

    mb: float = 0.0


@contextmanager
def watched(look: Callable[[], float]) -> Iterator[Peak]:
    """Call `look` (MiB in use now) at once and then every second, from a thread, until the block ends."""
    peak, over = Peak(), threading.Event()

    def keep() -> None:
        while True:
            peak.mb = max(peak.mb, look())
            if over.wait(_INTERVAL):
                return

    thread = threading.Thread(target=keep, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join(10)


def memory(client: docker.DockerClient, container: str, lent: str | None) -> float:
    """MiB in use now by one container, or on the GPU it was lent; 0 if neither engine nor driver says."""
    try:
        if lent is not None:
            return float(gpu.use(lent).memory_mib)
        told = client.api.stats(container, stream=False, one_shot=True)
        stats = told["memory_stats"]["stats"]
        return _held(stats) / _MIB
    except (EngineError, docker.errors.APIError, RequestException, KeyError, TypeError, ValueError):
        return 0.0


def _held(stats: dict[str, int]) -> float:
    """Bytes, anonymous and shared: both are on the same lists, or on the list of what is locked."""
    lists = ("active_anon", "inactive_anon", "unevictable")
    return float(sum(stats.get(f"total_{name}", stats.get(name, 0)) for name in lists))  # version 1, else 2
