"""Processes that run chunks of seeds and may die of one: a crash of a real kernel is a finding with a seed."""

from __future__ import annotations

import gc
import multiprocessing
import resource
import signal
from collections.abc import Generator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from torch._subclasses.fake_tensor import FakeTensorMode

from tests.fuzz_ops.campaign import Campaign, Tally, settled

CHUNK = 1000  # seeds
_HEADROOM = 6 << 30  # bytes a worker may map beyond what it starts with
_REMEMBERED = 100_000  # results in the cache that dry runs of one process share
_STUCK = 300  # seconds for a chunk, then the worker is ended
_spawn = multiprocessing.get_context("spawn")


@dataclass
class Death:
    """A worker ended by a signal, and the seed it was at."""

    seed: int
    signal: int


class Worker:
    """One process, one chunk at a time."""

    def __init__(self, names: list[str]) -> None:
        self._names = names
        self.at = _spawn.Value("q", -1)
        self._seeds: list[int] = []
        self._start()

    def _start(self) -> None:
        self.pipe, theirs = _spawn.Pipe()
        self.process = _spawn.Process(target=_serve, args=(theirs, self.at, self._names), daemon=True)
        self.process.start()
        theirs.close()

    def give(self, seeds: list[int]) -> None:
        """Hand over a chunk."""
        self._seeds = seeds
        self.pipe.send(seeds)

    def take(self) -> Tally | Death:
        """The chunk's result; after a death a new process takes the chunk up, without the seed that was fatal."""
        try:
            result = self.pipe.recv()
        except EOFError:
            self.process.join()
            death = Death(int(self.at.value), -(self.process.exitcode or 0))
            if death.signal <= 0:
                raise RuntimeError("a worker ended by itself: its error is above") from None
            self._start()
            self.give([seed for seed in self._seeds if seed != death.seed])
            return death
        assert isinstance(result, Tally)
        return result

    def end(self) -> None:
        """End the process, whatever it is at."""
        self.process.terminate()
        self.process.join()


def _serve(pipe: Connection, at: Any, names: list[str]) -> None:
    with open("/proc/self/statm") as pages:
        mapped = int(pages.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + _HEADROOM, mapped + _HEADROOM))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.disable()  # a tenth of the time; collected between chunks
    campaign = Campaign(names)
    with settled():
        while True:
            seeds = pipe.recv()
            campaign.tally = Tally()
            signal.alarm(_STUCK)
            for seed in seeds:
                at.value = seed
                campaign.seed(seed)
            signal.alarm(0)
            gc.collect()
            if len(FakeTensorMode.cache) > _REMEMBERED:
                FakeTensorMode.cache_clear()
            pipe.send(campaign.tally)


def results(names: list[str], start: int, jobs: int) -> Generator[Tally | Death]:
    """Results of chunk after chunk from `start` on, without end; closing the iterator ends the processes."""
    workers = [Worker(names) for _ in range(jobs)]
    ahead = start
    try:
        for worker in workers:
            worker.give(list(range(ahead, ahead + CHUNK)))
            ahead += CHUNK
        while True:
            ready = wait([worker.pipe for worker in workers])
            for worker in [x for x in workers if x.pipe in ready]:
                result = worker.take()
                if isinstance(result, Tally):
                    worker.give(list(range(ahead, ahead + CHUNK)))
                    ahead += CHUNK
                yield result
    finally:
        for worker in workers:
            worker.end()
