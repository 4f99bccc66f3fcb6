"""Training and evaluation of one snapshot, each in a fresh container. TRUSTED.

Nothing here reads what a container printed: the engine's state comes from the launcher, numbers come through filter.py
and scores.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from runner import filter, scores
from runner.artifacts.manifest import Statement
from runner.decide import FIRST_SEED
from runner.home import Home
from runner.launching import LaunchClient
from runner.policy import Policies
from runner.recording import tidy
from runner.records import EndReason, LaunchRequest, Scored, Snapshot, Trained

Emit = Callable[[str, dict[str, Any]], None]


@dataclass(frozen=True)
class Stages:
    """What both containers need besides the snapshot."""

    home: Home
    policies: Policies
    launches: LaunchClient
    artifact: Statement
    gpu: str | None = None
    kernels: str | None = None  # version of the kernel packages, if any were provisioned

    def run(
        self,
        taken: Snapshot,
        run: str,
        *,
        seconds: float,
        seed: int = FIRST_SEED,
        budget: int | None = None,
        trained: Callable[[Trained], object] = lambda _: None,
    ) -> Scored:
        """Train for at most `seconds` in all and evaluate what was handed over; `trained` is called in between."""
        found = self._train(taken, run, seconds, seed, budget)
        trained(found)
        scored = self._evaluate(found)
        tidy(self.home.run(run), self.policies.metrics.telemetry_bytes)
        return scored

    def budget(self) -> float:
        """Seconds of the training profile."""
        return float(self.artifact.predicate.profile["time_budget_s"])

    def _train(self, taken: Snapshot, run: str, seconds: float, seed: int, budget: int | None) -> Trained:
        engine = self.launches.run(
            LaunchRequest(
                role="trainer",
                run=run,
                policy=self.policies.digest,
                snapshot=taken.sha256,
                artifact=self.artifact.predicate.version,
                kernels=self.kernels,
                seconds=seconds,
                seed=seed,
                budget=budget,
                gpu=self.gpu,
            )
        )
        folder = self.home.run(run)
        passed = filter.read(folder / "telemetry.jsonl", self.policies.metrics, self.policies.errors)
        graph = folder / "graph.json"
        return Trained(
            snapshot=taken,
            run=run,
            engine=engine,
            telemetry=passed.telemetry,
            crash=passed.crash,
            not_exportable=passed.not_exportable,
            handed_over=engine.reason is EndReason.EXIT and engine.exit_code == 0 and graph.stat().st_size > 0,
        )

    def _evaluate(self, trained: Trained) -> Scored:
        if not trained.handed_over:
            return Scored(trained=trained, engine=None, score=None)
        engine = self.launches.run(
            LaunchRequest(
                role="evaluator",
                run=trained.run,
                policy=self.policies.digest,
                artifact=self.artifact.predicate.version,
                seconds=self.policies.decision.evaluation_seconds,
                gpu=self.gpu,
            )
        )
        ok = engine.reason is EndReason.EXIT and engine.exit_code == 0
        score = scores.read(self.home.run(trained.run) / "score.json") if ok else None
        return Scored(trained=trained, engine=engine, score=score)
