"""Reruns: the same train.py under another seed or other terms, recorded like experiments. TRUSTED.

`settle` decides an experiment and runs whatever decide.judge still wants for it, one container pair after the other. A
rerun is written to the ledger before it runs and completed once; none of its numbers but the mean gain of all pairs
reaches the agent.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from runner.core.airlock.snapshot import keep
from runner.core.base.errors import ContradictedError, GloveboxError
from runner.core.base.launching import Costs
from runner.core.base.values import Experiment, Rerun, Score, Scored, Snapshot, Status
from runner.core.decision import decide, standing
from runner.core.decision.decide import Runs, Verdict, Wanted
from runner.core.decision.odds import Candidate, Line
from runner.core.evidence.recorder import Recorder, memory_gb, now
from runner.rooms.desk.train_and_score import EVERY, Emit, Stages

_Recorded = TypeVar("_Recorded")


@dataclass(frozen=True)
class Trials:
    """Runs that answer a question about experiments of one tag."""

    stages: Stages
    recorder: Recorder
    emit: Emit
    limit: Callable[[float], float]  # seconds a training container with a budget of so many may take
    line: Line  # what rule `odds` remembers of the tag; all lanes share it, under the recorder's lock

    def settle(
        self,
        number: int,
        parent: int | None,
        scored: Scored,
        record: Callable[[Scored, Verdict], _Recorded],
        *,
        wanted: bool = False,
    ) -> _Recorded:
        """Run what experiment `number`, made from `parent`, still needs; `record` the verdict while nobody else does.

        Another lane may keep something in the meantime: then the verdict is on what there is to beat now. Nothing is
        kept that was not audited on every row. `wanted`: a person goes back to this file, so a score is enough.
        """
        while True:
            with self.recorder.lock:
                best = standing.best(self.recorder.ledger.experiments(self.recorder.tag))
                found = self._judge(number, parent, scored, best)
                if wanted and decide.failure(scored) is None and not _of_baseline(found):
                    found = decide.TAKEN_BACK
                if isinstance(found, Verdict) and not (found.status is Status.KEEP and self._unaudited(scored)):
                    return record(scored, found)
            if isinstance(found, Verdict):
                again = self.stages.audit(scored, self.yardstick())
                scored = again if _same(scored, again) else _unstable(again)
                continue
            if best is None:
                raise GloveboxError("the ledger lost its kept rows", where="ledger", fix="run: glovebox verify")
            if found.whose == "candidate":
                self.rerun(number, number, scored.trained.snapshot, found.seed, pair=best.id)
            else:
                rows = self.recorder.ledger.experiments(self.recorder.tag)
                whose = best if found.whose == "best" else standing.baseline(rows) or best
                self.rerun(whose.id, number, self.snapshot(whose), found.seed, pair=whose.id)

    def _judge(self, number: int, parent: int | None, scored: Scored, best: Experiment | None) -> Verdict | Wanted:
        """The verdict on an experiment that is still open, by what is known now."""
        failed, score = decide.failure(scored), scored.score
        if failed is not None or score is None:
            return failed or Verdict(Status.REJECTED, "evaluation_failed")
        policy, ledger, lane = self.stages.policies.decision, self.recorder.ledger, self.stages.lane.name
        reruns = ledger.reruns(self.recorder.tag)
        if policy.rule == "odds":
            self.line.catch_up(ledger.experiments(self.recorder.tag), reruns)
            own = {**standing.scores(number, standing.on(lane, reruns)), decide.FIRST_SEED: score.val_bpb}
            runs = Runs(own, scored.trained.snapshot.size, memory_gb(scored) * 1024)
            return self.line.judge(Candidate(number, parent, lane, runs), reruns)
        if best is not None:
            reruns = standing.fitting(policy, best.id, reruns, number, scored.trained.engine.neighbours)
        against = standing.standing(policy, ledger.experiments(self.recorder.tag), reruns, lane)
        if against is None or best is None:
            return Verdict(Status.KEEP)
        known = standing.scores(number, standing.on(lane, standing.paired(best.id, reruns)))
        known[decide.FIRST_SEED] = score.val_bpb
        return decide.judge(policy, against, Runs(known, scored.trained.snapshot.size, memory_gb(scored) * 1024))

    def _unaudited(self, scored: Scored) -> bool:
        """Whether policy wants an audit of every row that this score has not had."""
        audited = scored.score is not None and scored.score.evaluation is not None and scored.score.evaluation.whole
        return self.stages.policies.evaluator.audit_trials > 0 and not audited

    def to_beat(self) -> float:
        """A first run that scores lower is likely to be kept; a baseline always is."""
        best = standing.best(self.recorder.ledger.experiments(self.recorder.tag))
        if best is None or best.val_bpb is None:
            return EVERY
        return self.known()[1] or best.val_bpb

    def yardstick(self) -> Costs | None:
        """What the baseline's evaluation took, if it was taken on this artifact."""
        same = self.stages.artifact.predicate.version == self.recorder.artifact
        return standing.baseline_costs(self.recorder.ledger.experiments(self.recorder.tag)) if same else None

    def known(self) -> tuple[list[Experiment], float | None]:
        """Finished experiments, and the val_bpb a first run has to beat: the higher of the best's first and its mean.

        None where the best has not yet been run on this lane.
        """
        ledger, tag = self.recorder.ledger, self.recorder.tag
        if self.stages.policies.decision.rule == "odds":
            with self.recorder.lock:
                rows = ledger.experiments(tag)
                self.line.catch_up(rows, ledger.reruns(tag))
                return rows, self.line.to_beat(self.stages.lane.name)
        rows = ledger.experiments(tag)
        best = standing.best(rows)
        runs = standing.runs(best, ledger.reruns(tag), self.stages.lane.name).known() if best else []
        if best is None or best.val_bpb is None or not runs:
            return rows, None
        return rows, max(best.val_bpb, math.fsum(runs) / len(runs))

    def first_seed(self, number: int) -> int:
        """What experiment `number` is given in its own run."""
        return self.recorder.sealer.draw(f"{self.recorder.tag} experiment {number}")

    def rerun(
        self,
        number: int,
        during: int,
        taken: Snapshot,
        seed: int,
        *,
        pair: int = 0,
        budget: int | None = None,
        depth: int | None = None,
        holdout: bool = False,
    ) -> Rerun:
        """Run `taken`, the train.py of experiment `number`, once more and record it.

        Draw `seed` of the same `pair` is the same for both sides, and nothing tells a train.py which draw it is.
        """
        given = self.recorder.sealer.draw(f"{self.recorder.tag} pair {pair} draw {seed}")
        training = float(budget or self.stages.budget())
        begun = self.recorder.begin_rerun(
            Rerun(
                id=0,
                tag=self.recorder.tag,
                experiment=number,
                during=during,
                seed=seed,
                given=given,
                budget=training,
                depth=depth,
                holdout=holdout,
                artifact=self.stages.artifact.predicate.version,
                snapshot=taken.sha256,
                run=self.stages.next_run(),
                started=now(),
                status="scored",
                lane=self.stages.lane.name,
                pair=pair,
            )
        )
        told = begun.model_dump(mode="json", include={"experiment", "during", "seed", "budget", "depth", "holdout"})
        self.emit("rerun", told)
        scored = self.stages.run(
            taken,
            begun.run,
            seconds=self.limit(training),
            seed=given,
            budget=budget,
            audit_below=EVERY if number == during or not during else None,  # it speaks for a keep
            baseline=None if holdout else self.yardstick(),  # other rows, and maybe more of them
            holdout=holdout,
        )
        self.stages.forget(scored)
        engines = [engine for engine in (scored.trained.engine, scored.engine) if engine]
        done = begun.model_copy(update={**_outcome(scored), "seconds": round(sum(e.seconds for e in engines), 3)})
        self.recorder.end_rerun(done, engines)
        self.emit("rerun_ended", {**told, "val_bpb": done.val_bpb, "status": done.status})
        self.alarm(number, done)
        return done

    def alarm(self, number: int, ran: Experiment | Rerun) -> None:
        """If the audit contradicted the proof of a run of experiment `number`: say so, and by policy go no further."""
        if ran.reason != decide.CONTRADICTED:
            return
        folder = str(self.stages.home.run(ran.run))
        self.emit("contradicted", {"experiment": number, "kept": folder})
        if self.stages.policies.evaluator.on_contradiction == "stop":
            raise ContradictedError(
                f"a model of experiment {number} was proved causal, and the audit saw it look ahead",
                where=folder,
                fix="keep that folder and report it (SECURITY.md); trust no score until it is understood",
            )

    def snapshot(self, row: Experiment) -> Snapshot:
        """The stored train.py of a recorded experiment; one that is lost is taken from its commit."""
        home = self.stages.home
        path = home.source(row.snapshot)
        if not path.is_file():
            data = self.recorder.line.content(row.commit)
            if hashlib.sha256(data).hexdigest() != row.snapshot:
                raise GloveboxError("a snapshot is missing", where=str(path), fix="restore it from a backup")
            return keep(data, home.snapshots)
        return Snapshot(sha256=row.snapshot, size=row.snapshot_size, path=path)

    def under(self, stages: Stages, limit: Callable[[float], float]) -> Trials:
        """The same, with another artifact and other limits."""
        return replace(self, stages=stages, limit=limit)


def _outcome(scored: Scored) -> dict[str, object]:
    used: dict[str, object] = {"memory_gb": memory_gb(scored), "neighbours": scored.trained.engine.neighbours}
    used["speed"] = scored.trained.engine.speed
    failed = decide.failure(scored)
    if failed is not None:
        return {"status": failed.status, "reason": failed.reason, **used}
    score = scored.score
    told = {"val_bpb": score.val_bpb, "evaluation": score.evaluation} if score else {}
    return {**told, **used}


def _of_baseline(found: Verdict | Wanted) -> bool:
    """Whether the lane's scores cannot be read yet."""
    return isinstance(found, Wanted) and found.whose == "baseline"


def _same(first: Scored, again: Scored) -> bool:
    """Whether two evaluations of one hand-over agree, or the second was refused."""
    return again.score is None or again.score.status == "refused" or _bpb(first) == _bpb(again)


def _bpb(scored: Scored) -> float | None:
    return scored.score.val_bpb if scored.score else None


def _unstable(scored: Scored) -> Scored:
    """A hand-over that was scored twice, differently."""
    return scored.model_copy(update={"score": Score(status="refused", reason="nondeterministic")})
