"""Training and evaluation of one snapshot, each in a fresh container. TRUSTED.

Nothing here reads what a container printed: the engine's state comes from the launcher, numbers come through
telemetry_file.py and score_file.py. Both containers may be started ahead of their work (launch_client.Ahead): the next
trainer while the agent thinks, the evaluator when a trainer says that it hands over (a hint it may lie about: nothing
but that start follows).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from runner.core.airlock import score_file, telemetry_file
from runner.core.artifacts.manifest import Statement
from runner.core.base.home import Home
from runner.core.base.launching import WHOLE_HOST, Cache, Costs, EndReason, Lane, LaunchRequest, Release, Role
from runner.core.base.mountable import SCORE
from runner.core.base.run_folder import new_run_id, tidy
from runner.core.base.values import Scored, Snapshot, Trained
from runner.core.decision.decide import CONTRADICTED, FIRST_SEED
from runner.core.policy.policy_files import Policies
from runner.rooms.desk import pace
from runner.rooms.desk.launch_client import Ahead, Launch, LaunchClient
from trainer.wire import device

Emit = Callable[[str, dict[str, Any]], None]
EVERY = 64.0  # val_bpb: no score is higher (score_file.py)
_AT_ONCE = 2.0  # seconds
_REST = 5.0  # times what such a look took
_INTERVAL = 0.1  # seconds between two looks whether a hand-over began
Judge = Callable[[float, float], bool]  # (share of the budget, training loss): whether to give the run up


def _never(*_: float) -> bool:
    return False


@dataclass(frozen=True)
class Stages:
    """What both containers need besides the snapshot."""

    home: Home
    policies: Policies
    launches: LaunchClient
    artifact: Statement
    lane: Lane = WHOLE_HOST
    kernels: str | None = None  # version of the kernel packages, if any were provisioned
    cache: Cache | None = None  # compiled code that trainers begin with, if it was made
    seats: int = 1  # agents that propose for the lane

    def next_run(self) -> str:
        """The name the next run must have: that of the trainer that stands by, if one does."""
        waiting = self._ahead.waiting
        return waiting.run if waiting else new_run_id()

    def prepare(self) -> None:
        """Have the next trainer start and wait; whoever is sure to run another may call this."""
        if self.policies.sandbox.standby:
            self._ahead.prepare(self._request("trainer", new_run_id()))

    def check(self) -> None:
        """Raise before there is a row what would keep every trainer from starting: compiled code of another image."""
        if self.cache is not None:
            self._ahead.prepare(self._request("trainer", new_run_id()))
            self._ahead.check()

    def run(
        self,
        taken: Snapshot,
        run: str,
        *,
        seconds: float,
        seed: int = FIRST_SEED,
        budget: int | None = None,
        audit_below: float | None = None,
        baseline: Costs | None = None,
        trained: Callable[[Trained], object] = lambda _: None,
        judge: Judge | None = None,
        holdout: bool = False,
    ) -> Scored:
        """Train for at most `seconds` in all and evaluate what was handed over; `trained` is called in between.

        A score lower than `audit_below` is audited on every row; `baseline` is what an evaluation is measured against.
        With `judge` the pace of the training is watched, and it is ended when `judge` says so. What was handed over
        stays until `forget`. `holdout`: scored on the rows that are held back.
        """
        work = Release(seconds=seconds, snapshot=taken.sha256, seed=seed, budget=budget)
        evaluator, scoring = Ahead(self.launches), self._request("evaluator", run, holdout=holdout)
        try:
            found = self._followed(taken, scoring, work, judge, evaluator)
            if self._lost(found):
                evaluator.drop()  # it would have the first container's files before it, whatever the second hands over
                found = self._followed(taken, scoring, work, judge, evaluator)
            trained(found)
            return self._evaluate(found, scoring, evaluator, audit_below, baseline)
        finally:
            evaluator.drop()

    def audit(self, scored: Scored, baseline: Costs | None) -> Scored:
        """Score what was handed over once more, and audit it on every row."""
        scoring = self._request("evaluator", scored.trained.run)
        return self._evaluate(scored.trained, scoring, Ahead(self.launches), EVERY, baseline)

    def forget(self, scored: Scored) -> None:
        """Remove what was handed over, unless it is evidence: people will want to see how it passed the proof."""
        if scored.score is None or scored.score.reason != CONTRADICTED:
            tidy(self.home.run(scored.trained.run), self.policies.metrics.telemetry_bytes)

    def has_holdout(self) -> bool:
        """Whether the artifact has rows that are held back."""
        return "holdout/rows.npy" in self.artifact.predicate.sizes

    def budget(self) -> float:
        """Seconds of the training profile."""
        return float(self.artifact.predicate.profile["time_budget_s"])

    def _followed(
        self, taken: Snapshot, scoring: LaunchRequest, work: Release, judge: Judge | None, evaluator: Ahead
    ) -> Trained:
        """One training, and an evaluator that starts while it hands over."""
        with self._handing_over(scoring, evaluator):
            return self._train(taken, scoring.run, work, judge)

    def _lost(self, found: Trained) -> bool:
        """Whether a container that stood by had lost its GPU when it was released: it says so before train.py runs.

        A train.py may end in the same way. That buys it one more run only if it does so at once: one that trained first
        and did not like what came of it would draw twice.
        """
        engine = found.engine
        return engine.exit_code == device.NO_DEVICE and bool(self.lane.gpu) and engine.seconds < _AT_ONCE

    @contextmanager
    def _handing_over(self, scoring: LaunchRequest, evaluator: Ahead) -> Iterator[None]:
        """Have an evaluator start while the trainer hands over, so that it takes nothing from the training."""
        telemetry, over = self.home.run(scoring.run) / "telemetry.jsonl", threading.Event()
        metrics = self.policies.metrics

        def follow() -> None:
            rest = 0.0
            while not over.wait(_INTERVAL + rest):
                looked = time.monotonic()
                if telemetry_file.handing_over(telemetry, metrics):
                    evaluator.prepare(scoring)
                    return
                rest = _REST * (time.monotonic() - looked)

        following = threading.Thread(target=follow, daemon=True)
        if self.policies.sandbox.standby:
            following.start()
        try:
            yield
        finally:
            over.set()  # a second evaluator of this run would take the first one's files away
            if following.ident is not None:
                following.join()

    def _train(self, taken: Snapshot, run: str, work: Release, judge: Judge | None) -> Trained:
        folder = self.home.run(run)
        telemetry, graph = folder / "telemetry.jsonl", folder / "graph.json"
        metrics, errors, policy = self.policies.metrics, self.policies.errors, self.policies.decision.early_stop
        with self._working(self._ahead, self._request("trainer", run), work) as launch:
            losses = partial(telemetry_file.losses, telemetry, metrics, errors)
            looks = policy.looks if judge else []
            lost = partial(telemetry_file.diverging, telemetry, metrics, errors)
            with (
                pace.ended_if(lost, launch.stop) as given_up,
                pace.watched(losses, work.budget or self.budget(), looks, judge or _never, launch.stop) as seen,
            ):
                engine = launch.ended()
        passed = telemetry_file.read(telemetry, metrics, errors)
        return Trained(
            snapshot=taken,
            run=run,
            engine=engine,
            telemetry=passed.telemetry,
            crash=passed.crash,
            not_exportable=passed.not_exportable,
            diverged=passed.diverged,
            attention=list(passed.attention),
            # Complete: the graph is written last. What a script does after that, and how it ends, is its own affair.
            handed_over=engine.reason is EndReason.EXIT
            and engine.exit_code != device.NO_DEVICE
            and graph.stat().st_size > 0,
            pace=seen.looks,
            ended_early=seen.ended or given_up.ended,
        )

    def _evaluate(
        self, trained: Trained, scoring: LaunchRequest, ahead: Ahead, audit_below: float | None, baseline: Costs | None
    ) -> Scored:
        if not trained.handed_over:
            return Scored(trained=trained, engine=None, score=None)
        work = Release(seconds=self.policies.decision.evaluation_seconds, audit_below=audit_below, baseline=baseline)
        with self._working(ahead, scoring, work) as launch:
            engine = launch.ended()
        if engine.exit_code == device.NO_DEVICE and self.lane.gpu:  # its container lost the GPU; no candidate's doing
            with self._working(Ahead(self.launches), scoring, work) as launch:
                engine = launch.ended()
        ok = engine.reason is EndReason.EXIT and engine.exit_code == 0
        score = score_file.read(self.home.run(trained.run) / SCORE) if ok else None
        return Scored(trained=trained, engine=engine, score=score)

    @contextmanager
    def _working(self, ahead: Ahead, request: LaunchRequest, work: Release) -> Iterator[Launch]:
        """A container at work; it ends with the block."""
        launch = ahead.release(request, work)
        try:
            yield launch
        finally:
            self.launches.end(launch)

    def _request(self, role: Role, run: str, *, holdout: bool = False) -> LaunchRequest:
        return LaunchRequest(
            role=role,
            run=run,
            policy=self.policies.digest,
            artifact=self.artifact.predicate.version,
            holdout=holdout,
            kernels=self.kernels if role == "trainer" else None,
            cache=self.cache if role == "trainer" else None,
            lane=self.lane,
            seats=self.seats,
        )

    @cached_property
    def _ahead(self) -> Ahead:
        """The trainer that stands by."""
        return Ahead(self.launches)
