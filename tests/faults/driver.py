"""A runner in a process of its own, to be killed: real ledger, git, audit chain and results.tsv, containers stood in for.

    python -m tests.faults.driver HOME COUNT

Works like a session: reconciles, puts the best version into the agent's file, then proposes candidates until the tag has
COUNT experiments. Every stand-in of a container leaves a line in HOME/ran.log before it answers.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

from bench import standin
from runner.core.airlock import snapshot
from runner.core.base import faults, locks, steering
from runner.core.base.home import Home
from runner.core.decision import standing
from runner.core.evidence.ledger import Ledger
from runner.rooms.desk.experiment import Loop

TAG = "faults"
SEED = b"x = 0\n"
NOW = "2026-01-01T00:00:00+00:00"


def score(text: bytes, before: int) -> float | None:
    """2, less a hundredth for every x in the file, plus noise of up to 0.005; broken files crash."""
    if b"crash" in text:
        return None
    noise = int.from_bytes(hashlib.sha256(text + before.to_bytes(4, "big")).digest()[:2], "big") / 65535
    return 2.0 - text.count(b"x") / 100 + (noise - 0.5) / 100


def candidate(best: bytes, number: int) -> bytes:
    """The number-th proposal, made from the best: better, much better, worse, or broken."""
    kind = number % 5
    extra = {0: b"crash\n", 1: b"y = 1\n", 2: b"xx = 2\n", 3: b"xxxx = 3\n", 4: b"z = 4\n"}[kind]
    return best + b"# %d\n" % number + extra


def last_number(home: Home) -> int:
    """Experiments that were accepted so far."""
    if not home.ledger.exists():
        return 0
    ledger = Ledger(home.ledger, read_only=True)
    try:
        return ledger.last_number(TAG)
    finally:
        ledger.close()


def _ask(bench: Loop, number: int) -> None:
    """What a person and an agent do besides: hints, a keep taken back now and then, notes; once each."""
    home, texts = bench.home, bench.recorder.texts
    known = [one.request for _, one in steering.waiting(home, TAG) if one] + [o.request for o in texts.steers(TAG)]
    texts.write_notebook(TAG, texts.notebook(TAG).written(f"after {number}\n"))
    line = standing.line(bench.ledger.experiments(TAG))
    if len(known) <= number // 2:
        verb: steering.Verb = "veto" if number % 5 == 4 and len(line) > 1 else "hint"
        steering.ask(home, TAG, verb, NOW, text=f"hint {number}" * (verb == "hint"), experiment=line[-1].id)


def work(home: Home, count: int) -> None:
    """One session."""
    with locks.hold(home.runner_lock, f"tag {TAG}"):
        bench = standin.loop(home, TAG, SEED, score)
        bench.recorder.reconcile()
        snapshot.provide(home.work, os.getegid(), bench.best_source())
        while (last := bench.ledger.last_number(TAG)) < count:
            if bench.begin() is not None:
                continue
            _ask(bench, last)
            bench.steering.catch_up()
            for number in bench.steering.vetoes():
                bench.take_back(number, home.work)
            if bench.ledger.last_number(TAG) > last:
                continue
            home.work.write_bytes(candidate(home.work.read_bytes(), last))
            bench.experiment(home.work, f"proposal {last}")
        bench.ledger.close()


if __name__ == "__main__":
    assert faults.POINTS
    work(Home(Path(sys.argv[1])), int(sys.argv[2]))
