"""A runner in a process of its own, to be killed: real ledger, git, audit chain and results.tsv, containers stood in for.

    python -m tests.faults.driver HOME COUNT

Works like a session: reconciles, puts the best version into the agent's file, then proposes candidates until the tag has
COUNT experiments. Every stand-in of a container leaves a line in HOME/ran.log before it answers.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runner.core.airlock import snapshot
from runner.core.artifacts import store
from runner.core.base import faults, locks
from runner.core.base.home import SOURCE, Home
from runner.core.base.launching import EndReason, EngineResult
from runner.core.base.values import Scored, Snapshot, Telemetry, Trained
from runner.core.decision.odds import Line
from runner.core.evidence.audit_chain import AuditLog
from runner.core.evidence.checkpoints import Sealer
from runner.core.evidence.git_line import GitLine
from runner.core.evidence.ledger import Ledger
from runner.core.evidence.recorder import Recorder
from runner.core.policy import policy_files
from runner.rooms.desk.experiment import Loop
from runner.rooms.desk.launch_client import LaunchClient
from runner.rooms.desk.train_and_score import Stages
from tests.samples import scored

TAG = "faults"
SEED = b"x = 0\n"


class Launches(LaunchClient):
    """No launcher is needed."""

    def ready(self, seconds: float) -> None:
        """Always."""

    @contextmanager
    def freezing(self, lane: int) -> Iterator[Callable[[], None]]:
        """There is no agent."""
        yield lambda: None


class Scripted(Stages):
    """Scores from the text of train.py and how often it ran: a bench's seeds come from its secret key, and with them
    every bench would have a night of its own."""

    def run(self, taken: Snapshot, run: str, *, seed: int = 42, trained: Any = lambda _: None, **_: Any) -> Scored:
        text = taken.path.read_bytes()
        with (self.home.root / "ran.log").open("a+") as log:
            log.seek(0)
            before = log.read().count(taken.sha256)
            log.write(f"{run} {taken.sha256} {seed}\n")
        failed = b"crash" in text
        engine = EngineResult(
            exit_code=int(failed), reason=EndReason.EXIT, oom=False, seconds=1.0, output_bytes=0,
            image="sha256:x", container="c", specification="0" * 64,
        )  # fmt: skip
        found = Trained(snapshot=taken, run=run, engine=engine, telemetry=Telemetry(), handed_over=not failed)
        trained(found)
        if failed:
            return Scored(trained=found, engine=None, score=None)
        return Scored(trained=found, engine=engine, score=scored(score(text, before)))


def score(text: bytes, before: int) -> float:
    """2, less a hundredth for every x in the file, plus noise of up to 0.005."""
    noise = int.from_bytes(hashlib.sha256(text + before.to_bytes(4, "big")).digest()[:2], "big") / 65535
    return 2.0 - text.count(b"x") / 100 + (noise - 0.5) / 100


def candidate(best: bytes, number: int) -> bytes:
    """The number-th proposal, made from the best: better, much better, worse, or broken."""
    kind = number % 5
    extra = {0: b"crash\n", 1: b"y = 1\n", 2: b"xx = 2\n", 3: b"xxxx = 3\n", 4: b"z = 4\n"}[kind]
    return best + b"# %d\n" % number + extra


def loop(home: Home) -> Loop:
    """The real loop around the stand-in."""
    policies = policy_files.load(SOURCE / "policies")
    ledger = Ledger(home.ledger)
    ledger.begin_run(TAG, "2026-01-01T00:00:00+00:00", "demo-1", policies.digest)
    recorder = Recorder(
        home, TAG, ledger, GitLine(home.line), AuditLog(home.audit), "demo-1", policies.digest, Sealer(home, "")
    )
    stages = Scripted(home, policies, Launches(Path("none")), store.admit(home, "demo-1"))
    return Loop(TAG, stages, recorder, lambda *_: None, SEED, Line(stages.policies.decision))


def work(home: Home, count: int) -> None:
    """One session."""
    with locks.hold(home.runner_lock, f"tag {TAG}"):
        bench = loop(home)
        bench.recorder.reconcile()
        snapshot.provide(home.work, os.getegid(), bench.best_source())
        while (last := bench.ledger.last_number(TAG)) < count:
            if bench.begin() is not None:
                continue
            home.work.write_bytes(candidate(home.work.read_bytes(), last))
            bench.experiment(home.work, f"proposal {last}")
        bench.ledger.close()


if __name__ == "__main__":
    assert faults.POINTS
    work(Home(Path(sys.argv[1])), int(sys.argv[2]))
