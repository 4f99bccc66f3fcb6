"""Fuzz the causality proof for a while; see the package's description.

Progress goes to stderr, findings and one closing JSON line to stdout. Exit code 1 if a claim did not hold or the
prover raised; each finding's line ends with how to see it again.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import sys
import time
import warnings
from collections.abc import Iterator

import torch

from tests.fuzz_causality import generate
from tests.fuzz_causality.check import COUNTED, Outcome, examine
from trainer.evaluator import kernels

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


def _share(job: int, asked: argparse.Namespace) -> Outcome:
    stop = sys.maxsize if asked.graphs is None else asked.start + asked.graphs
    return fuzz(iter(range(asked.start + job, stop, asked.jobs)), asked.seconds, quiet=job > 0)


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz_causality")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--start", type=int, default=1, help="first seed")
    parser.add_argument("--graphs", type=int, help="stop after so many")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", action="store_true", help="with how often each operation was checked")
    asked = parser.parse_args()
    start, out = time.monotonic(), Outcome()
    if asked.jobs == 1:
        out = _share(0, asked)
    else:
        with multiprocessing.get_context("spawn").Pool(asked.jobs) as pool:
            for share in pool.starmap(_share, [(job, asked) for job in range(asked.jobs)]):
                out.add(share)
    result: dict[str, object] = {**closing(out, time.monotonic() - start)}
    if asked.json:
        result["operations"] = {name: out.operations[name] for name in sorted(generate.names())}
        result["refusals"] = dict(out.refusals.most_common(20))
    print(json.dumps(result))
    return 1 if out.counts["unsound"] or out.counts["errors"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
