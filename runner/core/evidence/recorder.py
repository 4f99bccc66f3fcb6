"""Recording an experiment: ledger, git line, audit chain and results.tsv, in this order. TRUSTED.

The ledger is the state; the other three follow from it. A runner that dies between two of them leaves them
behind, and `reconcile` brings them up to the ledger again before the next experiment.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from runner.core.airlock import snapshot
from runner.core.base import faults
from runner.core.base.errors import GloveboxError, UsageError, VerifyError
from runner.core.base.home import Home
from runner.core.base.launching import EngineResult
from runner.core.base.run_folder import tidy
from runner.core.base.steering import Request, Steer
from runner.core.base.values import (
    INTERRUPTED,
    NOTHING_PROPOSED,
    Experiment,
    Hopeless,
    Proposal,
    Rerun,
    Score,
    Scored,
    Snapshot,
    Status,
)
from runner.core.decision import deaths, decide
from runner.core.evidence import audit_chain, disk_reserve, receipts, results_tsv
from runner.core.evidence.audit_chain import AuditLog, ended
from runner.core.evidence.checkpoints import MOST_UNSIGNED, Sealer
from runner.core.evidence.git_line import GitLine, message
from runner.core.evidence.ledger import Ledger, Opened, Origin, interrupted, start, text_digest
from runner.core.evidence.texts import Texts


def now() -> str:
    """UTC time stamp."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class Made(NamedTuple):
    """What a candidate was made from: the experiment whose train.py it was, directive and notebook by digest."""

    parent: int | None = None
    program: str | None = None
    notebook: str | None = None
    proposal: Proposal | None = None
    veto: int | None = None  # the keep that a person takes back by it
    rebased: int | None = None  # the experiment it was first made from, if its change was put into another's file


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
    sealer: Sealer
    lock: threading.RLock = field(default_factory=threading.RLock)  # lanes record one after the other

    def __post_init__(self) -> None:
        self.texts = Texts(self.ledger)
        self._behind = False  # whether the ledger has what the chain could not take
        self._unheard: dict[str, Any] | None = None  # a start that it could not take
        self._results = results_tsv.Results(self.home.tag(self.tag) / "results.tsv")

    def begin(self, started: str, terms: str, origin: Origin | None = None) -> None:
        """Record what the tag begins with, unless it has begun; `terms`: policy.Policies.terms."""
        with self.lock:
            if self.ledger.begun(self.tag):
                return
            self.ledger.begin_run(self.tag, started, self.artifact, terms, origin)
            self._enter(audit_chain.BEGUN, start(self.ledger, self.tag))
            self.sealer.seal(self.audit_log)

    def accept(self, taken: Snapshot, description: str, run: str) -> int:
        """Open a row before anything runs; returns the experiment's number."""
        with self.lock, self._in_step():
            number = self.ledger.open_experiment(
                self.tag, started=now(), description=description, snapshot=taken.sha256, size=taken.size, run=run
            )
            faults.reach("ledger.opened")
            told = {"tag": self.tag, "experiment": number, "snapshot": taken.sha256, "run": run}
            opened = text_digest(self.ledger.opened(self.tag, number).model_dump_json())
            self._unheard = told | {"opened": opened}
            self._enter_start()
        return number

    def refuse(self, reason: str) -> None:
        """Note a train.py that was not even read."""
        with self.lock:
            self._enter("refused", {"tag": self.tag, "reason": reason})

    def steer(self, request: Request) -> Steer:
        """Record and sign what a person asked for, before anybody acts on it; once, however often it is tried.

        Raises UsageError for what another tag was asked.
        """
        with self.lock:
            steers = self.texts.steers(self.tag)
            known = next((one for one in steers if one.request == request.request), None)
            if known is None:
                if self.texts.taken(request.request):
                    raise UsageError("a request of another tag", where=request.request)
                after = len(self.ledger.experiments(self.tag))
                known = Steer(**dict(request), id=len(steers) + 1, tag=self.tag, taken=now(), after=after)
                with self._in_step():
                    self.texts.add(known)
                    faults.reach("steer.recorded")
                    self._steered(known)
                self.sealer.seal(self.audit_log)
        return known

    def _steered(self, steer: Steer) -> None:
        self._enter(audit_chain.STEERED, steer.model_dump(mode="json"))

    def finish(
        self,
        number: int,
        scored: Scored,
        verdict: decide.Verdict,
        seconds: float,
        hopeless: Hopeless | None = None,
        lane: str = "",
        made: Made = Made(),  # noqa: B008 - frozen
        completed: Callable[[Experiment], Experiment] = lambda row: row,
    ) -> Experiment:
        """Complete the open row of an experiment that ran; `completed` adds what follows from the row and the tag."""
        trained, score = scored.trained, scored.score
        usable = score if score is not None and score.status == "scored" else None
        found = self._row(
            number,
            status=verdict.status,
            reason=verdict.reason,
            claimed=verdict.claimed,
            confirmed=verdict.confirmed,
            interval=verdict.interval,
            pairs=verdict.pairs,
            gain=verdict.gain,
            probability=verdict.probability,
            sigma=verdict.sigma,
            parent=made.parent,
            program=made.program,
            notebook=made.notebook,
            proposal=made.proposal,
            veto=made.veto,
            rebased=made.rebased,
            val_bpb=usable.val_bpb if usable else None,
            val_bpb_bytes=usable.val_bpb_bytes if usable else None,
            causality=_causality(score),
            crash=deaths.crash(trained.engine.exit_code) if verdict.reason in decide.DEATHS else trained.crash,
            memory_gb=memory_gb(scored),
            neighbours=trained.engine.neighbours,
            speed=trained.engine.speed,
            attention=trained.attention,
            seconds=round(seconds, 3),
            train_seconds=trained.engine.seconds,
            eval_seconds=scored.engine.seconds if scored.engine else 0.0,
            curve=trained.telemetry.curve,
            summary=trained.telemetry.summary,
            pace=trained.pace,
            hopeless=hopeless,
            lane=lane,
            evaluation=usable.evaluation if usable else None,
        )
        row = completed(found)
        self.commit(row, [e for e in (trained.engine, scored.engine) if e])
        return row

    def pass_over(
        self,
        taken: Snapshot,
        description: str,
        run: str,
        lane: str,
        made: Made,
        completed: Callable[[Experiment], Experiment],
    ) -> Experiment:
        """A row without a run: its agent's model budget was used up before it changed a thing."""
        with self.lock:
            number = self.accept(taken, description, run)
            told = {"program": made.program, "notebook": made.notebook, "parent": made.parent, "lane": lane}
            row = completed(self._row(number, status=Status.REJECTED, reason=NOTHING_PROPOSED, **told))
            self.commit(row, [])
        return row

    def begin_rerun(self, begun: Rerun) -> Rerun:
        """Open a rerun before it runs; returns it numbered."""
        opened = self.ledger.open_rerun(begun)
        faults.reach("rerun.opened")
        return opened

    def end_rerun(self, rerun: Rerun, engines: list[EngineResult], *, recovered: bool = False) -> None:
        """Complete a rerun and vouch for it."""
        faults.reach("rerun.evaluated")
        with self.lock:
            self._end_rerun(rerun, receipts.of_rerun(rerun, engines, recovered=recovered))

    def _end_rerun(self, rerun: Rerun, receipt: dict[str, Any]) -> None:
        try:
            with self._in_step():
                self.ledger.close_rerun(rerun)
                faults.reach("rerun.recorded")
                self._enter("rerun", receipt)
            self.sealer.seal(self.audit_log)
        except (OSError, sqlite3.Error, GloveboxError):
            if not disk_reserve.give_up(self.home):
                raise
            self._catch_up()
            if rerun.id in {one.id for one in self.ledger.open_reruns(self.tag)}:
                self.ledger.close_rerun(rerun)
            raise disk_reserve.full(self.home, f"; rerun {rerun.id} is recorded") from None

    def _row(self, number: int, *, status: Status, **fields: Any) -> Experiment:
        """The row from what was accepted, the outcome, and a commit of its snapshot."""
        opened = self.ledger.opened(self.tag, number)
        data = snapshot.kept(self.home, opened.snapshot)
        if data is None:
            path = self.home.source(opened.snapshot)
            raise GloveboxError("a snapshot is missing", where=str(path), fix="restore it from a backup")
        return self._closed(opened, data, status, **fields)

    def _closed(self, opened: Opened, data: bytes, status: Status, **fields: Any) -> Experiment:
        """The row of an experiment whose train.py is `data`, and its commit."""
        told = message(f"experiment {opened.id}: {status}", opened.description)
        return Experiment(
            **opened.model_dump(),
            tag=self.tag,
            status=status,
            commit=self._committed(opened.id, data, told),
            artifact=self.artifact,
            policy=self.policy,
            **fields,
        )

    def _committed(self, number: int, data: bytes, told: str) -> str:
        try:
            return self.line.commit(self.tag, number, data, told)
        except GloveboxError:
            if not disk_reserve.give_up(self.home):
                raise
            return self.line.commit(self.tag, number, data, told)

    def commit(self, row: Experiment, engines: list[EngineResult]) -> None:
        """Ledger first, then what follows from it; on a full disk in the reserve, and then it is an error."""
        try:
            self._commit(row, engines)
        except (OSError, sqlite3.Error, GloveboxError):
            if not disk_reserve.give_up(self.home):
                raise
            self._catch_up()
            if row.id in self.ledger.open_numbers(self.tag):
                self.ledger.close_experiment(row)
            self._follow()
            raise disk_reserve.full(self.home, f"; experiment {row.id} is recorded") from None

    def _commit(self, row: Experiment, engines: list[EngineResult]) -> None:
        faults.reach("row.committed")
        with self._in_step():
            self.ledger.close_experiment(row)
            faults.reach("row.recorded")
            if row.status is Status.KEEP:
                self.line.advance(self.tag, row.commit)
                faults.reach("branch.advanced")
            self._vouch(row, engines)
        faults.reach("row.vouched")
        self.sealer.seal(self.audit_log)
        faults.reach("chain.sealed")
        self._results.add(self.ledger.experiments(self.tag))
        faults.reach("results.written")

    def _vouch(self, row: Experiment, engines: list[EngineResult], *, recovered: bool = False) -> None:
        found = receipts.probes(self.home, row.policy)
        apart = receipts.kernels(self.home, engines)
        # What this process wrote, not what is there by now; after a crash only that is known.
        digest = self.ledger.digest(row.tag, row.id) if recovered else text_digest(row.model_dump_json())
        self._enter("finished", receipts.receipt(row, digest, engines, found, apart, recovered=recovered))

    @contextmanager
    def _in_step(self) -> Iterator[None]:
        """Within, the ledger is ahead of the chain by one: not before the chain has, signed, what it could not take.

        Lanes go on to their ends when one fails. Two rows in the ledger alone are what no crash leaves.
        """
        self._catch_up()
        self._behind = True
        yield
        self._behind = False

    def _catch_up(self) -> None:
        if self._behind:
            self._enter_start()
            self._follow()
            self._behind = False
        elif self.audit_log.unsigned:
            self.sealer.seal(self.audit_log)

    def _enter_start(self) -> None:
        if self._unheard is not None:
            self._enter("accepted", self._unheard)
            self._unheard = None

    def _enter(self, kind: str, data: dict[str, Any]) -> None:
        """Into the audit chain, once a run that could not be signed, and what was found so, has its signature."""
        if self.audit_log.unsigned or self.audit_log.inherited:
            self.sealer.seal(self.audit_log)
        self.audit_log.append(kind, data)

    def reconcile(self) -> list[int]:
        """Make chain, branch and results.tsv follow the ledger again after a runner died between two of them.

        Returns the experiments whose train.py is lost; they are closed with an empty one, which `verify` tells.
        """
        with self.lock:
            self.line.unlock()
            self._follow()  # what ended first comes first
            return self.close_interrupted()

    def _follow(self) -> None:
        """What follows from the ledger; what other lanes have under way is theirs to end."""
        rows = self.ledger.experiments(self.tag)
        entries = audit_chain.verify(self.home.audit)
        told, seen, asked = (audit_chain.by_name(entries, kind) for kind in ("finished", "rerun", audit_chain.STEERED))
        unasked = [steer for steer in self.texts.steers(self.tag) if (steer.tag, steer.id) not in asked]
        unheard = [row for row in rows if (row.tag, row.id) not in told]
        untold = [rerun for rerun in self.ledger.reruns(self.tag) if (rerun.tag, rerun.id) not in seen]
        begun = audit_chain.by_name(entries, "accepted")
        unseen = [number for number in self.ledger.open_numbers(self.tag) if (self.tag, number) not in begun]
        unsigned = self._left_unsigned(entries) if self.audit_log.inherited else 0
        self._only_one({"runs": len(unheard) + len(untold) + unsigned, "requests": len(unasked), "starts": len(unseen)})
        if unasked:
            self.audit_log.append(audit_chain.FOUND, {})  # what is signed here nobody saw: it is said for ever
        for steer in unasked:
            self._steered(steer)
        for row in unheard:
            self._vouch(row, [], recovered=True)
        for rerun in untold:
            self._enter("rerun", receipts.of_rerun(rerun, [], recovered=True))
        self.sealer.seal(self.audit_log)
        keeps = [row for row in rows if row.status is Status.KEEP]
        if keeps and self.line.head(self.tag) != keeps[-1].commit:
            self.line.advance(self.tag, keeps[-1].commit)
        if rows:
            self._results.rewrite(rows)

    def _left_unsigned(self, entries: Sequence[dict[str, Any]]) -> int:
        """Ends of this tag's runs behind the last checkpoint; a crash in another tag is that one's."""
        seals = [at for at, entry in enumerate(entries) if entry["kind"] == audit_chain.CHECKPOINT]
        found = (audit_chain.named(entry) for entry in entries[seals[-1] + 1 if seals else 0 :] if ended(entry))
        return sum(one is not None and one[0][0] == self.tag for one in found)

    def _only_one(self, unknown: dict[str, int]) -> None:
        """Raises VerifyError for more than a crash can have left: between ledger and chain there is one at a time."""
        for what, count in unknown.items():
            if count > MOST_UNSIGNED:
                told = f"the audit chain does not know {count} {what} of tag {self.tag}: no crash leaves that"
                raise VerifyError(told, where=str(self.home.ledger), fix="glovebox verify; restore a backup")

    def close_interrupted(self) -> list[int]:
        """Complete what a dead runner left open: the run is lost, the row is not. Returns those without a train.py."""
        lost = []
        with self.lock:
            for number in self.ledger.open_numbers(self.tag):
                opened = self.ledger.opened(self.tag, number)
                tidy(self.home.run(opened.run))
                data = snapshot.kept(self.home, opened.snapshot)
                if data is None:
                    lost.append(number)
                self.commit(self._closed(opened, data or b"", Status.CRASH, reason=INTERRUPTED), [])
            for begun in self.ledger.open_reruns(self.tag):
                tidy(self.home.run(begun.run))
                self.end_rerun(interrupted(begun), [], recovered=True)
        return lost


def _causality(score: Score | None) -> Literal["proved", "audited", "non_causal"] | None:
    if score is None:
        return None
    return "non_causal" if score.reason in decide.LOOKS_AHEAD else score.causality


def memory_gb(scored: Scored) -> float:
    """Peak memory of a training: as measured from outside, else as train.py says; GiB."""
    trained = scored.trained
    return round((trained.engine.peak_mb or trained.telemetry.summary.get("peak_vram_mb", 0.0)) / 1024, 2)
