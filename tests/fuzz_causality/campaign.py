"""Many graphs one after another, on one or more processes."""

from __future__ import annotations

import logging
import multiprocessing
import sys
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import torch

from tests.fuzz_causality.check import COUNTED, Outcome, examine
from trainer.evaluator.model import kernels

EVERY = 60.0  # seconds between two lines of progress
SHOWN = 50  # findings printed; all are counted


def fuzz(seeds: Iterator[int], seconds: float, quiet: bool = True) -> Outcome:
    """Examine graphs until the seeds or the time run out."""
    torch.set_num_threads(1)
    kernels.settle()
    logging.getLogger("torch._subclasses.fake_tensor").setLevel(logging.CRITICAL)  # refusals are expected here
    warnings.simplefilter("ignore")
    out, start = Outcome(), time.monotonic()
    shown = start
    for seed in seeds:
        found = examine(seed)
        out.add(found)
        now = time.monotonic()
        if not quiet and now - shown > EVERY:
            shown = now
            print(f"{now - start:.0f} s {closing(out, now - start)}", file=sys.stderr, flush=True)
        for line in found.lines if len(out.lines) <= SHOWN else ():
            print(line, flush=True)
        if now - start > seconds:
            break
    return out


def closing(out: Outcome, seconds: float) -> dict[str, float]:
    """The counts that matter, zeros included."""
    return {name: out.counts[name] for name in COUNTED} | {"seconds": round(seconds, 1)}


def share(seeds: range, seconds: float, jobs: int) -> Outcome:
    """The same on several processes, each with every so many-th seed."""
    if jobs == 1:
        return fuzz(iter(seeds), seconds, quiet=False)
    out = Outcome()
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        parts = [pool.submit(fuzz, iter(seeds[job::jobs]), seconds, job > 0) for job in range(jobs)]
        for part in parts:
            out.add(part.result())
    return out
