"""One experiment, stage by stage: snapshot, train, evaluate, filter, decide, record, answer. TRUSTED.

Each stage takes the previous stage's type (records.py). Nothing here reads what a container printed: the
engine's state comes from the launcher, numbers come through filter.py and scores.py.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runner import audit, clock, decide, filter, results, scores, snapshot
from runner.artifacts.manifest import Statement
from runner.audit import AuditLog
from runner.errors import GloveboxError, SnapshotError
from runner.gitline import GitLine
from runner.home import Home
from runner.launching import LaunchClient
from runner.ledger import Ledger
from runner.policy import Policies
from runner.records import (
    Crash,
    EndReason,
    EngineResult,
    Experiment,
    Feedback,
    LaunchRequest,
    Scored,
    Snapshot,
    Status,
    Telemetry,
    Trained,
)

MIN_FREE_BYTES = 1 << 30  # below this no experiment begins: the ledger must always have room
Emit = Callable[[str, dict[str, Any]], None]


def new_run_id() -> str:
    """Unguessable name of one container's files."""
    return secrets.token_hex(8)


def now() -> str:
    """UTC time stamp."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass
class Loop:
    """What an experiment needs; one per tag."""

    home: Home
    tag: str
    policies: Policies
    ledger: Ledger
    line: GitLine
    audit_log: AuditLog
    launches: LaunchClient
    artifact: Statement
    emit: Emit
    after: Callable[[], None] = lambda: None  # called once an experiment is recorded
    gpu: str | None = None

    def experiment(self, source: Path, description: str, left: int | None = None) -> Feedback:
        """Run the train.py at `source` as the next experiment; raises SnapshotError if it is unreadable."""
        began = time.monotonic()
        self._enough_disk()
        taken = self._snapshot(source)
        run = new_run_id()
        number = self.ledger.open_experiment(
            self.tag, started=now(), description=description, snapshot=taken.sha256, size=taken.size, run=run
        )
        self.audit_log.append("accepted", {"tag": self.tag, "experiment": number, "snapshot": taken.sha256, "run": run})
        self.emit("started", {"experiment": number, "description": description, "seconds": self.budget()})
        trained = self._train(taken, run)
        done = {"seconds": trained.engine.seconds, "handed_over": trained.handed_over}
        self.emit("trained", {"experiment": number, **done})
        scored = self._evaluate(trained)
        self._tidy(trained.run)
        best = self.ledger.best(self.tag)
        verdict = decide.decide(self.policies.decision, scored, best)
        row = self._record(number, description, scored, verdict, time.monotonic() - began)
        if verdict.status is not Status.KEEP:
            self._restore(source)
        self.emit("finished", {"experiment": number, "row": row.model_dump(mode="json")})
        self.after()
        return _feedback(row, scored, best, left)

    def budget(self) -> float:
        """Seconds of the training profile."""
        return float(self.artifact.predicate.profile["time_budget_s"])

    def clock(self) -> clock.Clock:
        """What a training container of this tag gets, calibrated by the tag's baseline."""
        return clock.clock(self.policies.decision, self.budget(), self.ledger.baseline_seconds(self.tag))

    def _tidy(self, run: str) -> None:
        """What a candidate left is large and of no more use: telemetry keeps what was read, the model goes."""
        folder = self.home.run(run)
        for name in ("graph.json", "weights.safetensors"):
            (folder / name).unlink(missing_ok=True)
        telemetry = folder / "telemetry.jsonl"
        if telemetry.stat().st_size > self.policies.metrics.telemetry_bytes:
            os.truncate(telemetry, self.policies.metrics.telemetry_bytes)

    def _enough_disk(self) -> None:
        free = shutil.disk_usage(self.home.root).free
        if free < MIN_FREE_BYTES:
            raise GloveboxError(
                f"only {free >> 20} MiB free, {MIN_FREE_BYTES >> 20} are needed to begin an experiment",
                where=str(self.home.root),
                fix="free disk space",
            )

    def _snapshot(self, source: Path) -> Snapshot:
        try:
            return snapshot.take(source, self.home.snapshots, self.policies.agent.train_py_bytes)
        except SnapshotError as error:
            self.audit_log.append("refused", {"tag": self.tag, "reason": error.reason})
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

    def _record(
        self, number: int, description: str, scored: Scored, verdict: decide.Verdict, seconds: float
    ) -> Experiment:
        trained, score = scored.trained, scored.score
        usable = score if score is not None and score.status == "scored" else None
        title = f"experiment {number}: {verdict.status}\n\n{description}\n"
        commit = self.line.commit(self.tag, number, trained.snapshot.path.read_bytes(), title)
        crash = trained.crash or Crash(error="Exception", line=0) if verdict.reason == "exception" else None
        row = Experiment(
            id=number,
            tag=self.tag,
            status=verdict.status,
            val_bpb=usable.val_bpb if usable else None,
            val_bpb_bytes=usable.val_bpb_bytes if usable else None,
            claimed=verdict.claimed,
            confirmed=None,
            causality=usable.causality if usable else None,
            description=description,
            snapshot=trained.snapshot.sha256,
            snapshot_size=trained.snapshot.size,
            commit=commit,
            memory_gb=round(trained.telemetry.summary.get("peak_vram_mb", 0.0) / 1024, 2),
            seconds=round(seconds, 3),
            train_seconds=trained.engine.seconds,
            eval_seconds=scored.engine.seconds if scored.engine else 0.0,
            reason=verdict.reason,
            crash=crash,
            curve=trained.telemetry.curve,
            summary=trained.telemetry.summary,
            run=trained.run,
            started=now(),
            artifact=self.artifact.predicate.version,
            policy=self.policies.digest,
        )
        self.commit_row(row, [e for e in (trained.engine, scored.engine) if e])
        return row

    def commit_row(self, row: Experiment, engines: list[EngineResult]) -> None:
        """Ledger first, then the git line, audit chain and results.tsv that follow from it."""
        self.ledger.close_experiment(row)
        if row.status is Status.KEEP:
            self.line.advance(self.tag, row.commit)
        self.audit_log.append("finished", _evidence(row, engines))
        results.write(self.home.tag(self.tag) / "results.tsv", self.ledger.experiments(self.tag))

    def reconcile(self) -> None:
        """Make chain, branch and results.tsv follow the ledger again after a runner died between two of them."""
        self.close_interrupted()
        rows = self.ledger.experiments(self.tag)
        told = {(e["data"]["tag"], e["data"]["id"]) for e in audit.verify(self.home.audit) if e["kind"] == "finished"}
        for row in rows:
            if (row.tag, row.id) not in told:
                self.audit_log.append("finished", _evidence(row, []))
        keeps = [row for row in rows if row.status is Status.KEEP]
        if keeps and self.line.head(self.tag) != keeps[-1].commit:
            self.line.advance(self.tag, keeps[-1].commit)
        if rows:
            results.write(self.home.tag(self.tag) / "results.tsv", rows)

    def close_interrupted(self) -> None:
        """Complete what a dead runner left open: the run is lost, the row is not."""
        for number, started, description, sha256, size, run in self.ledger.interrupted(self.tag):
            data = (self.home.snapshots / f"{sha256}.py").read_bytes()
            commit = self.line.commit(self.tag, number, data, f"experiment {number}: crash\n\n{description}\n")
            row = Experiment(
                id=number,
                tag=self.tag,
                status=Status.CRASH,
                val_bpb=None,
                val_bpb_bytes=None,
                claimed=None,
                confirmed=None,
                causality=None,
                description=description,
                snapshot=sha256,
                snapshot_size=size,
                commit=commit,
                memory_gb=0.0,
                seconds=0.0,
                train_seconds=0.0,
                eval_seconds=0.0,
                reason="interrupted",
                crash=None,
                curve=[],
                summary={},
                run=run,
                started=started,
                artifact=self.artifact.predicate.version,
                policy=self.policies.digest,
            )
            self.commit_row(row, [])

    def _restore(self, source: Path) -> None:
        head = self.line.head(self.tag)
        if head is not None:
            snapshot.restore(source, self.line.content(head))


_AUDITED = (
    "tag",
    "id",
    "status",
    "val_bpb",
    "val_bpb_bytes",
    "causality",
    "reason",
    "snapshot",
    "commit",
    "run",
    "artifact",
    "policy",
)


def _evidence(row: Experiment, engines: list[EngineResult]) -> dict[str, Any]:
    return {"images": sorted({e.image for e in engines}), **row.model_dump(mode="json", include=set(_AUDITED))}


def _feedback(row: Experiment, scored: Scored, best: decide.Best | None, left: int | None) -> Feedback:
    """Everything rounded once more: the agent's numbers are for reasoning, the ledger's for the record."""
    rounded = None if row.val_bpb is None else round(row.val_bpb, 6)
    telemetry: Telemetry = scored.trained.telemetry
    return Feedback(
        experiment=row.id,
        status=row.status,
        val_bpb=rounded,
        best_bpb=round(best.val_bpb, 6) if best else None,
        delta=None if rounded is None or best is None else round(rounded - best.val_bpb, 6),
        reason=row.reason,
        crash=row.crash,
        causality=row.causality,  # type: ignore[arg-type] # a Score's literal, stored as text
        train_seconds=round(row.train_seconds, 1),
        eval_seconds=round(row.eval_seconds, 1),
        telemetry=telemetry,
        experiments_left=left,
    )
