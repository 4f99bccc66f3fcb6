"""Recording an experiment: ledger, git line, audit chain and results.tsv, in this order. TRUSTED.

The ledger is the state; the other three follow from it. A runner that dies between two of them leaves them
behind, and `reconcile` brings them up to the ledger again before the next experiment.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from runner import audit, decide, results
from runner.audit import AuditLog
from runner.gitline import GitLine
from runner.home import Home
from runner.ledger import Ledger
from runner.records import Crash, EngineResult, Experiment, Scored, Snapshot, Status

_AUDITED = frozenset(
    [
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
    ]
)


def now() -> str:
    """UTC time stamp."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass
class Recorder:
    """Writes the rows of one tag."""

    home: Home
    tag: str
    ledger: Ledger
    line: GitLine
    audit_log: AuditLog
    artifact: str  # version
    policy: str  # digest

    def accept(self, taken: Snapshot, description: str, run: str) -> int:
        """Open a row before anything runs; returns the experiment's number."""
        number = self.ledger.open_experiment(
            self.tag, started=now(), description=description, snapshot=taken.sha256, size=taken.size, run=run
        )
        self.audit_log.append("accepted", {"tag": self.tag, "experiment": number, "snapshot": taken.sha256, "run": run})
        return number

    def refuse(self, reason: str) -> None:
        """Note a train.py that was not even read."""
        self.audit_log.append("refused", {"tag": self.tag, "reason": reason})

    def finish(self, number: int, scored: Scored, verdict: decide.Verdict, seconds: float) -> Experiment:
        """Complete the open row of an experiment that ran."""
        trained, score = scored.trained, scored.score
        usable = score if score is not None and score.status == "scored" else None
        row = self._row(
            number,
            status=verdict.status,
            reason=verdict.reason,
            claimed=verdict.claimed,
            val_bpb=usable.val_bpb if usable else None,
            val_bpb_bytes=usable.val_bpb_bytes if usable else None,
            causality=usable.causality if usable else None,
            crash=(trained.crash or Crash(error="Exception", line=0)) if verdict.reason == "exception" else None,
            memory_gb=round(trained.telemetry.summary.get("peak_vram_mb", 0.0) / 1024, 2),
            seconds=round(seconds, 3),
            train_seconds=trained.engine.seconds,
            eval_seconds=scored.engine.seconds if scored.engine else 0.0,
            curve=trained.telemetry.curve,
            summary=trained.telemetry.summary,
        )
        self.commit(row, [e for e in (trained.engine, scored.engine) if e])
        return row

    def _row(self, number: int, *, status: Status, **fields: Any) -> Experiment:
        """The row from what was accepted, the outcome, and a commit of its snapshot."""
        opened = self.ledger.opened(self.tag, number)
        data = (self.home.snapshots / f"{opened.snapshot}.py").read_bytes()
        title = f"experiment {number}: {status}\n\n{opened.description}\n"
        return Experiment(
            **opened._asdict(),
            tag=self.tag,
            status=status,
            commit=self.line.commit(self.tag, number, data, title),
            artifact=self.artifact,
            policy=self.policy,
            **fields,
        )

    def commit(self, row: Experiment, engines: list[EngineResult]) -> None:
        """Ledger first, then what follows from it."""
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
        for number in self.ledger.open_numbers(self.tag):
            self.commit(self._row(number, status=Status.CRASH, reason="interrupted"), [])


def _evidence(row: Experiment, engines: list[EngineResult]) -> dict[str, Any]:
    return {"images": sorted({e.image for e in engines}), **row.model_dump(mode="json", include=set(_AUDITED))}
