"""One experiment, stage by stage: snapshot, train, evaluate, filter, decide, record, answer. TRUSTED.

Each stage takes the previous stage's type (records.py). Nothing here reads what a container printed: the
engine's state comes from the launcher, numbers come through filter.py and scores.py.
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner import clock, decide, filter, leak, scores, snapshot
from runner.artifacts.manifest import Statement
from runner.decide import BPB_DIGITS
from runner.errors import GloveboxError, SnapshotError
from runner.gitline import GitLine
from runner.home import Home
from runner.launching import LaunchClient
from runner.ledger import Ledger
from runner.policy import Policies
from runner.recording import HAND_OVER, Recorder, tidy
from runner.records import (
    EndReason,
    Experiment,
    Feedback,
    LaunchRequest,
    Scored,
    Snapshot,
    Status,
    Telemetry,
    Trained,
)

MIN_FREE_BYTES = 1 << 30  # what the ledger keeps, however much a candidate writes
LAUNCHER_SECONDS = 60.0  # how long a launcher that is started again is waited for
Emit = Callable[[str, dict[str, Any]], None]


def new_run_id() -> str:
    """Unguessable name of one container's files."""
    return secrets.token_hex(8)


@dataclass
class Loop:
    """What an experiment needs; one per tag."""

    home: Home
    tag: str
    policies: Policies
    recorder: Recorder
    launches: LaunchClient
    artifact: Statement
    emit: Emit
    seed: bytes  # train.py a new tag begins with
    after: Callable[[], object] = lambda: None  # called once an experiment is recorded
    gpu: str | None = None
    kernels: str | None = None  # version of the kernel packages, if any were provisioned

    def experiment(self, source: Path, description: str, left: int | None = None) -> Feedback:
        """Run the train.py at `source` as the next experiment; raises SnapshotError if it is unreadable."""
        began = time.monotonic()
        self._enough_disk()
        if self.told().exhausted:
            raise GloveboxError(
                "the tag's leak budget is used", where="policies/metrics.yaml leak.night_bits", fix="use a new --tag"
            )
        taken = self._snapshot(source)
        self.launches.ready(LAUNCHER_SECONDS)  # before the row: a launcher that is away must not cost experiments
        run = new_run_id()
        number = self.recorder.accept(taken, description, run)
        self.emit("started", {"experiment": number, "description": description, "seconds": self.budget()})
        trained = self._train(taken, run)
        done = {"seconds": trained.engine.seconds, "handed_over": trained.handed_over}
        self.emit("trained", {"experiment": number, **done})
        scored = self._evaluate(trained)
        tidy(self.home.run(run), self.policies.metrics.telemetry_bytes)
        best = self.ledger.best(self.tag)
        verdict = decide.decide(self.policies.decision, scored, best)
        row = self.recorder.finish(number, scored, verdict, time.monotonic() - began)
        if verdict.status is not Status.KEEP:
            self.restore(source)
        self.emit("finished", {"experiment": number, "row": row.model_dump(mode="json")})
        self.after()
        seen = self.told()
        telemetry = scored.trained.telemetry if seen.whole else Telemetry()
        return _feedback(seen.rows[-1], telemetry, best, left, withheld=not seen.whole)

    def told(self) -> leak.Told:
        """The tag's rows as far as the agent may see them."""
        return leak.told(self.policies, self.ledger.experiments(self.tag))

    @property
    def ledger(self) -> Ledger:
        """The ledger the recorder writes."""
        return self.recorder.ledger

    @property
    def line(self) -> GitLine:
        """The git line the recorder advances."""
        return self.recorder.line

    def budget(self) -> float:
        """Seconds of the training profile."""
        return float(self.artifact.predicate.profile["time_budget_s"])

    def clock(self) -> clock.Clock:
        """What a training container of this tag gets, calibrated by the tag's baseline."""
        return clock.clock(self.policies.decision, self.budget(), self.ledger.baseline_seconds(self.tag))

    def _enough_disk(self) -> None:
        """A candidate may fill its files; the ledger must still have room afterwards."""
        free = shutil.disk_usage(self.home.root).free
        needed = MIN_FREE_BYTES + len(HAND_OVER) * self.policies.sandbox.trainer.file_bytes
        if free < needed:
            raise GloveboxError(
                f"only {free >> 20} MiB free, {needed >> 20} are needed to begin an experiment",
                where=str(self.home.root),
                fix="free disk space, or lower trainer.file_bytes in policies/sandbox.yaml",
            )

    def _snapshot(self, source: Path) -> Snapshot:
        try:
            return snapshot.take(source, self.home.snapshots, self.policies.agent.train_py_bytes)
        except SnapshotError as error:
            self.recorder.refuse(error.reason)
            self.emit("refused", {"reason": error.reason, "error": str(error)})
            raise

    def _train(self, taken: Snapshot, run: str) -> Trained:
        engine = self.launches.run(
            LaunchRequest(
                role="trainer",
                run=run,
                policy=self.policies.digest,
                snapshot=taken.sha256,
                artifact=self.artifact.predicate.version,
                kernels=self.kernels,
                seconds=self.clock().limit,
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

    def best_source(self) -> bytes:
        """train.py as the agent goes on from: the last keep, or the seed the tag began with."""
        head = self.line.head(self.tag)
        return self.seed if head is None else self.line.content(head)

    def restore(self, source: Path) -> None:
        """Put the best version back; a failure here is the bench's, not a refusal of the candidate."""
        try:
            snapshot.restore(source, self.best_source())
        except SnapshotError as error:
            raise GloveboxError(error.what, where=error.where, fix=error.fix) from None


def rounded(row: Experiment) -> Experiment:
    """The row as the agent may see it: its numbers are for reasoning, the ledger's for the record."""
    return row.model_copy(
        update={
            "val_bpb": None if row.val_bpb is None else round(row.val_bpb, BPB_DIGITS),
            "claimed": None if row.claimed is None else round(row.claimed, BPB_DIGITS),
            "train_seconds": round(row.train_seconds, 1),
            "eval_seconds": round(row.eval_seconds, 1),
        }
    )


def _feedback(
    row: Experiment, telemetry: Telemetry, best: decide.Best | None, left: int | None, *, withheld: bool
) -> Feedback:
    shown = rounded(row)
    before = round(best.val_bpb, BPB_DIGITS) if best else None
    delta = None if shown.val_bpb is None or before is None else round(shown.val_bpb - before, BPB_DIGITS)
    return Feedback(
        experiment=row.id,
        status=row.status,
        val_bpb=shown.val_bpb,
        best_bpb=before,
        delta=delta,
        reason=row.reason,
        crash=row.crash,
        causality=row.causality,
        train_seconds=shown.train_seconds,
        eval_seconds=shown.eval_seconds,
        telemetry=telemetry,
        withheld=withheld,
        experiments_left=left,
    )
