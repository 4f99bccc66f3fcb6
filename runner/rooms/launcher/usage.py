"""Peak memory of a container, and who was at work beside it, watched from outside each second. TRUSTED, the launcher's.

train.py reports a peak of its own; this one it cannot choose. Of a lent GPU it is all memory in use there, since the
run has it alone; without one it is what the container holds and cannot be read from a disk again, as its control group
counts it: anonymous memory, and shared memory with memfd and tmpfs, where 1.5 GiB of weights once went uncounted.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import docker
from requests.exceptions import RequestException

from runner.core.base import nvidia
from runner.core.base.errors import EngineError
from runner.core.base.launching import Speed

_INTERVAL = 1.0  # seconds
_MIB = 1 << 20
_STAT = Path("/proc/stat")


class Use(NamedTuple):
    """What one look at a container saw."""

    mb: float = 0.0  # memory, MiB; 0: not seen
    others: float | None = None  # processor seconds of everybody else on its processors, from anywhere; None: not seen


@dataclass
class Peak:
    """The most that was seen, MiB (0: nothing was), and how many of its processors worked for others on average."""

    mb: float = 0.0
    neighbours: float = 0.0


@contextmanager
def watched(look: Callable[[], Use]) -> Iterator[Peak]:
    """Call `look` at once and then every second, from a thread, until the block ends."""
    peak, over = Peak(), threading.Event()

    def keep() -> None:
        first: tuple[float, float] | None = None
        while True:
            seen, now = look(), time.monotonic()
            peak.mb = max(peak.mb, seen.mb)
            if seen.others is not None:
                first = first or (now, seen.others)
                if now - first[0] > _INTERVAL / 2:
                    peak.neighbours = max(0.0, (seen.others - first[1]) / (now - first[0]))
            if over.wait(_INTERVAL):
                return

    thread = threading.Thread(target=keep, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join(10)


@dataclass
class Looks:
    """Looks at one container, and at the GPU it was lent; what neither engine nor driver says is 0."""

    client: docker.DockerClient
    gpu: str | None
    cores: set[int] | None = None
    paces: list[nvidia.Pace] = field(default_factory=list)

    def __call__(self, container: str) -> Use:
        """What it uses now, memory of the GPU if it was lent one."""
        mb, others = 0.0, None
        with suppress(EngineError, docker.errors.APIError, RequestException, OSError, KeyError, TypeError, ValueError):
            told = self.client.api.stats(container, stream=False, one_shot=True)
            held = _held(told["memory_stats"]["stats"])  # none of one that ended, whose seconds are told as 0
            others = _busy(self.cores) - float(told["cpu_stats"]["cpu_usage"]["total_usage"]) / 1e9
            mb = held / _MIB if self.gpu is None else 0.0
        with suppress(EngineError):
            if self.gpu is not None:
                mb = float(nvidia.use(self.gpu).memory_mib or 0)
                self.paces.append(nvidia.pace(self.gpu))
        return Use(mb, others)

    def speed(self) -> Speed | None:
        """What is recorded of the GPU; None without one, or if its driver never answered."""
        if self.gpu is None or not self.paces or (driver := nvidia.driver()) is None:
            return None
        clocks = [pace.sm_mhz for pace in self.paces if pace.sm_mhz is not None]
        reasons = Counter(reason for pace in self.paces for reason in pace.reasons)
        with suppress(EngineError):
            return Speed(
                name=nvidia.model(self.gpu),
                driver=driver.version,
                sm_mhz=round(statistics.mean(clocks), 1) if clocks else None,
                power_cap_w=self.paces[-1].power_cap_w,
                held_back={reason: round(count / len(self.paces), 3) for reason, count in sorted(reasons.items())},
            )
        return None


def _busy(cores: set[int] | None) -> float:
    """Seconds that these processors of the host (None: all) worked, or were taken by other machines, since it began."""
    names = {"cpu"} if cores is None else {f"cpu{core}" for core in cores}
    lines = [line.split() for line in _STAT.read_text().splitlines()]
    times = [[float(ticks) for ticks in line[1:9]] for line in lines if line and line[0] in names]
    return sum(sum(each) - each[3] - each[4] for each in times) / os.sysconf("SC_CLK_TCK")  # without idle, iowait


def _held(stats: dict[str, int]) -> float:
    """Bytes, anonymous and shared: both are on the same lists, or on the list of what is locked."""
    lists = ("active_anon", "inactive_anon", "unevictable")
    return float(sum(stats.get(f"total_{name}", stats.get(name, 0)) for name in lists))  # version 1, else 2
