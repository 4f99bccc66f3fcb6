"""Random crashes over long tags: `make crash`, or python -m tests.faults.campaign [--seconds S] [--experiments N].

Each bench grows to N experiments (tests/faults/driver.py: real ledger, git, audit chain, results.tsv; stand-ins for the
containers) in sessions that are killed at a random moment, or at a random place of runner/core/base/faults.py. After
every session that ended by itself, and after some that did not, a session is let run a little and all records must
agree. Sessions are forked, so that thousands fit in an hour.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

from runner.core.base import faults
from runner.core.base.home import Home
from tests import samples
from tests.faults import driver
from tests.faults.agreement import agree

RUNNERS = [point for point in faults.POINTS if not point.startswith(("launcher.", "broker."))]
_LONGEST = 1.5  # seconds of a session before it is killed
_LOOK_EVERY = 5  # sessions
_AT_A_PLACE = 0.5  # share of sessions that are killed at a place, and not at a moment


class Told(NamedTuple):
    """What a campaign saw."""

    sessions: int
    killed: int
    experiments: int
    looks: int
    failures: list[str]

    def plus(self, other: Told) -> Told:
        return Told(*(a + b for a, b in zip(self, other, strict=True)))  # type: ignore[operator]


NOTHING = Told(0, 0, 0, 0, [])


def session(home: Home, count: int, fault: str = "", seconds: float | None = None) -> int:
    """A runner in a process of its own, killed after so many seconds; its wait status."""
    child = os.fork()
    if not child:
        code = 1
        try:
            os.environ[faults.VARIABLE] = fault
            faults._reached.clear()
            driver.work(home, count)
            code = 0
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(code)
    deadline = None if seconds is None else time.monotonic() + seconds
    while True:
        done, status = os.waitpid(child, 0 if deadline is None else os.WNOHANG)
        if done:
            return status
        if deadline is not None and time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            deadline = None
        time.sleep(0.002)


def bench(template: str, seed: int, count: int, until: float) -> Told:
    """One bench, from its first experiment to its last or to the end of the time."""
    drawn, told = random.Random(seed), NOTHING
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder) / ".glovebox")
        shutil.copytree(template, home.root)
        last = 0
        while last < count and time.time() < until and not told.failures:
            at_a_place = drawn.random() < _AT_A_PLACE
            fault = f"{drawn.choice(RUNNERS)}:{drawn.randint(1, 12)}" if at_a_place else ""
            status = session(home, count, fault, drawn.uniform(0.0, _LONGEST))
            told = told.plus(Told(1, int(os.WIFSIGNALED(status)), 0, 0, []))
            if os.WIFEXITED(status) and os.WEXITSTATUS(status):
                told = told.plus(Told(0, 0, 0, 0, [f"seed {seed}: a session failed after {told.sessions}"]))
            elif told.sessions % _LOOK_EVERY == 0 or os.WIFEXITED(status):
                told = told.plus(_look(home, seed, min(count, driver.last_number(home) + 1)))
            last = driver.last_number(home)
        return told.plus(Told(0, 0, last, 0, []))


def _look(home: Home, seed: int, count: int) -> Told:
    """Let a session set right what the last one left, and see that all records agree."""
    if session(home, count):
        return Told(0, 0, 0, 1, [f"seed {seed}: the session after a crash failed"])
    try:
        agree(home)
    except AssertionError as error:
        return Told(0, 0, 0, 1, [f"seed {seed}, {count} experiments: {str(error)[:500]}"])
    return Told(0, 0, 0, 1, [])


def campaign(template: Path, seconds: float, count: int, seed: int, workers: int) -> Told:
    """Benches one after the other on every processor, each with a seed of its own."""
    until, told = time.time() + seconds, NOTHING
    with ProcessPoolExecutor(workers) as pool:
        waiting = {pool.submit(bench, str(template), seed + n, count, until) for n in range(workers)}
        started = len(waiting)
        while waiting:
            done = next(iter(waiting))
            waiting.remove(done)
            told = told.plus(done.result())
            if time.time() < until and not told.failures:
                waiting.add(pool.submit(bench, str(template), seed + started, count, until))
                started += 1
    return told


def main() -> int:
    """Run and print; the last line is one JSON object; exit 1 if records disagreed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--experiments", type=int, default=500)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        template = samples.prepared(Path(folder)).root
        told = campaign(template, asked.seconds, asked.experiments, asked.seed, os.cpu_count() or 1)
    for line in told.failures:
        print(line, file=sys.stderr)
    print(json.dumps({"seed": asked.seed, **told._asdict()}))
    return int(bool(told.failures))


if __name__ == "__main__":
    sys.exit(main())
