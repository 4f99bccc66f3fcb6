"""One experiment, stage by stage: snapshot, train, evaluate, filter, decide, record, answer. TRUSTED.

Each stage takes the previous stage's type (values.py).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple, NoReturn

from runner.core.airlock import leak_budget, snapshot
from runner.core.base import faults, files
from runner.core.base.errors import BaselineError, GloveboxError, SnapshotError
from runner.core.base.home import Home
from runner.core.base.mountable import HAND_OVER
from runner.core.base.run_folder import new_run_id
from runner.core.base.values import Experiment, Feedback, Proposal, Scored, Snapshot, Status, Telemetry, Trained
from runner.core.decision import clock, standing
from runner.core.decision.decide import BPB_DIGITS, Verdict
from runner.core.decision.early_stop import Lookout
from runner.core.evidence.git_line import GitLine
from runner.core.evidence.ledger import Ledger
from runner.core.evidence.recorder import Made, Recorder
from runner.core.policy.policy_files import Policies
from runner.rooms.desk.launch_client import LaunchClient
from runner.rooms.desk.memory import Memory, rounded
from runner.rooms.desk.reruns import Trials
from runner.rooms.desk.steering import Steering
from runner.rooms.desk.train_and_score import EVERY, Emit, Stages

MIN_FREE_BYTES = 1 << 30  # what the ledger keeps, however much a candidate writes
PASSED_OVER = "nothing was proposed: the model budget of this experiment was used up"
BASELINE = "baseline"  # description of the experiment every tag begins with
LAUNCHER_SECONDS = 60.0  # how long a launcher that is started again is waited for


def _nobody() -> None:
    """No agent is there yet: the launcher still lets none run beside a trainer."""


class _Ended(NamedTuple):
    """A recorded experiment, the best before it, and as much of the row as its agent is told."""

    row: Experiment
    best: Experiment | None
    told: Experiment | None  # None: nothing, there is no room
    scored: Scored


@dataclass
class Loop:
    """What an experiment needs; one per tag."""

    tag: str
    stages: Stages
    recorder: Recorder
    emit: Emit
    seed: bytes  # train.py a new tag begins with
    memory: Memory  # of the tag, for all its lanes
    steering: Steering  # likewise
    lanes: int = 1  # at work on the tag at a time
    seat: int = 0  # of the agents that propose for this lane; each has a loop of its own
    parent: int | None = None  # the experiment whose train.py the agent was last given; None: the seed
    on_best: bool = True  # whether it was given the best, and not an earlier experiment's that it asked for
    program: str | None = None  # digest of the directive that it was last given
    out: standing.TakenOut = field(default_factory=standing.TakenOut)  # of the line, by people

    def begin(self, description: str = BASELINE) -> Feedback | None:
        """Run the file the tag begins with, before any candidate: clock, memory, noise and headline are measured by it.

        None if that is done. Raises BaselineError if it gives no score.
        """
        if self.best() is not None:
            return None
        self.launches.ready(LAUNCHER_SECONDS)  # before the row: a launcher that is away must not cost experiments
        ended = self._experiment(self.written(self.seed), description, _nobody, Made(), first=True)
        feedback = self._answer(ended, None)
        if self.best() is None:
            row = self.ledger.experiments(self.tag)[-1]
            raise BaselineError(
                f"the baseline gave no score: {row.status}" + (f" ({row.reason})" if row.reason else ""),
                where=str(self.home.run(row.run) / "trainer.log"),
                fix="read that log; the file a tag begins with must train and score by itself",
            )
        return feedback

    def experiment(
        self, source: Path, description: str, left: int | None = None, proposal: Proposal | None = None
    ) -> Feedback:
        """Run the train.py at `source` as the next experiment; raises SnapshotError if it is unreadable.

        This lane's agent stands still from before anything of it runs until the best version is back in its place.
        """
        self.launches.ready(LAUNCHER_SECONDS)  # before the row, as above
        with self.launches.freezing(self.stages.lane.number, self.seat) as frozen:
            made, fits = self._up_to_date(source, frozen)
            ended = self._experiment(source, description, frozen, made._replace(proposal=proposal))
            if ended.row.status is Status.KEEP:
                self.parent, self.on_best = ended.row.id, True
            else:
                self.restore(source)
            faults.reach("train_py.restored")
        return self._answer(ended, left).model_copy(update={"rebased": fits})

    def _up_to_date(self, source: Path, frozen: Callable[[], None]) -> tuple[Made, bool | None]:
        """What the candidate at `source` is made from, and whether its change was put into a best that is new.

        While an agent of several thinks, another's experiment may be kept. Then this one's change is merged into the
        new best, so that it is measured on top of it. If they touch the same lines it runs as it is.
        """
        best, parent = self.best(), self.parent or self._first()
        if best is None or parent in (None, best.id) or not self.on_best:
            return Made(parent), None
        frozen()
        before = next((row for row in self.ledger.experiments(self.tag) if row.id == parent), None)
        most = self.policies.agent.train_py_bytes
        try:
            theirs = snapshot.read(source, most)
        except SnapshotError:
            return Made(parent), None  # it is refused in a moment
        ours = self.line.content(best.commit)
        merged = None if before is None else self.line.merged(self.line.content(before.commit), ours, theirs)
        if merged is None or len(merged) > most:
            if parent in {row.id for row in self.taken_out()}:
                self._refuse(SnapshotError("vetoed", "it is built on what a person took back", where=str(source)))
            return Made(parent), False
        self._put(source, merged)
        return Made(best.id, rebased=parent), True

    def pass_over(self, source: Path) -> None:
        """Record that an agent proposed nothing, without a run; the next experiment has a model budget of its own."""
        program = self.program or self.steering.program()[0]
        made = Made(self.parent or self._first(), program, self.recorder.texts.keep_notebook(self.tag))
        with self.recorder.lock:
            best = self.best_source()
            taken = snapshot.keep(best, self.home.snapshots)  # not what the agent's file holds a moment later
            row = self.recorder.pass_over(
                taken, PASSED_OVER, new_run_id(), self.stages.lane.name, made, self.memory.completed
            )
        self._put(source, best)
        self.emit("finished", {"experiment": row.id, "row": row.model_dump(mode="json")})

    def take_vetoed_back(self, source: Path | None, *, wait: bool) -> None:
        """Carry out what a person vetoed; it counts as nobody's experiment. If another lane does, `wait` for that."""
        self.steering.catch_up()
        if not self.steering.turn.acquire(blocking=wait):
            return
        try:
            for number in self.steering.vetoes():
                if not self.told_enough():
                    self.take_back(number, source)
        finally:
            self.steering.turn.release()

    def take_back(self, number: int, source: Path | None, who: str = "a person") -> None:
        """Run the best before keep `number` again and go on from it: a person wants that keep out of the line.

        What was built on it goes with it. `source`: the train.py of this lane's agent, to hold that file; None: a
        candidate is in it, which is brought up to date before it runs. The agent stands still meanwhile.
        """
        before = standing.taken_back(self.ledger.experiments(self.tag), number)
        if before is None:
            return
        self.launches.ready(LAUNCHER_SECONDS)
        work = self.written(self.line.content(before.commit))
        with self.launches.freezing(self.stages.lane.number, self.seat) as frozen:
            told = f"{who} took experiment {number} back: experiment {before.id} once more"
            ended = self._experiment(work, told, frozen, Made(before.id, veto=number))
            if source is not None:
                self.restore(source)
        self._answer(ended, None)

    def written(self, data: bytes) -> Path:
        """A file of ours to run."""
        path = self.home.run(new_run_id()) / "train.py"
        path.parent.mkdir(parents=True, mode=0o700)
        files.write(path, data)
        return path

    def _experiment(
        self, source: Path, description: str, frozen: Callable[[], None], made: Made, *, first: bool = False
    ) -> _Ended:
        """`frozen` waits for the agent to stand still, while its file is read (twice) and accepted."""
        began = time.monotonic()
        program = self.program or self.steering.program()[0]
        made = made._replace(program=program, notebook=self.recorder.texts.keep_notebook(self.tag))
        taken, run, number = self._accept(source, description, made, first=first)
        self.emit("started", {"experiment": number, "description": description, "seconds": self.stages.budget()})
        lookout = None if made.veto else self._lookout(number)
        frozen()
        scored = self.stages.run(
            taken,
            run,
            seconds=self.clock().limit,
            seed=self.trials().first_seed(number),
            audit_below=EVERY if made.veto else self.trials().to_beat(),
            baseline=self.trials().yardstick(),
            trained=lambda t: self._trained(number, t),
            judge=lookout.judge if lookout else _goes_on,
        )
        faults.reach("experiment.evaluated")
        record = partial(self._finish, number, made, began, lookout)
        return self.trials().settle(number, made.parent, scored, record, wanted=made.veto is not None)

    def _accept(self, source: Path, description: str, made: Made, *, first: bool) -> tuple[Snapshot, str, int]:
        """The snapshot, the run it goes into and the experiment's number, once nothing stands in its way."""
        self._enough_disk()
        if self.told_enough():
            raise GloveboxError(
                "the tag's leak budget is used", where="policies/metrics.yaml leak.night_bits", fix="use a new --tag"
            )
        taken = self._snapshot(source)
        if made.veto is None and taken.sha256 in {row.snapshot for row in self.taken_out()}:
            self._refuse(SnapshotError("vetoed", "a person took this file back", where=str(source)))
        faults.reach("snapshot.kept")
        if first is (self.best() is not None):
            raise BaselineError("a tag begins with its baseline, once; no candidate comes first", where=self.tag)
        run = self.stages.next_run()
        number = self.recorder.accept(taken, description, run)
        faults.reach("experiment.accepted")
        return taken, run, number

    def _answer(self, ended: _Ended, left: int | None) -> Feedback:
        """Tell everybody what came of an experiment; what its agent is told."""
        number = ended.row.id
        self.stages.forget(ended.scored)
        self.trials().alarm(number, ended.row)
        self.emit("finished", {"experiment": number, "row": ended.row.model_dump(mode="json")})
        if ended.told is None:
            raise GloveboxError(
                "the leak budget has no room for an answer", where="policies/metrics.yaml leak.night_bits"
            )
        return _feedback(ended.told, ended.scored.trained.telemetry.dropped_lines, ended.best, left)

    def trials(self) -> Trials:
        """For reruns under this tag's terms."""
        return Trials(self.stages, self.recorder, self.emit, self._limit, self.memory.line)

    def _limit(self, budget: float) -> float:
        return self.clock(budget).limit

    def _first(self) -> int | None:
        """The baseline's number."""
        first = standing.baseline(self.ledger.experiments(self.tag))
        return first.id if first else None

    def _finish(
        self, number: int, made: Made, began: float, lookout: Lookout | None, scored: Scored, verdict: Verdict
    ) -> _Ended:
        """Record the verdict; what was the best before, and what the agent has now been told."""
        best, found = self.best(), lookout.found if lookout else None
        spent = time.monotonic() - began
        lane, completed = self.stages.lane.name, self.memory.completed
        try:
            row = self.recorder.finish(number, scored, verdict, spent, found, lane, made, completed)
        except BaseException:
            self.memory.line.forget()  # other lanes go on, and it has taken in a row that may not be there
            raise
        told = self.memory.told().rows
        return _Ended(row, best, told[-1] if told and told[-1].id == number else None, scored)

    def _lookout(self, number: int) -> Lookout | None:
        """What may end the first run of an experiment early, if policy wants that."""
        policy = self.policies.decision.early_stop
        if not policy.enabled:
            return None
        drawn = self.recorder.sealer.draw(f"{self.tag} audit {number}") / 2**31
        return Lookout(policy, self.stages.lane.name, self.trials().known, drawn < policy.audit)

    def _trained(self, number: int, trained: Trained) -> None:
        faults.reach("experiment.trained")
        done = {"seconds": trained.engine.seconds, "handed_over": trained.handed_over}
        self.emit("trained", {"experiment": number, **done})

    def told_enough(self) -> bool:
        """Whether not even a bare outcome of every lane would fit in the tag's leak budget."""
        seen = self.memory.told()
        return seen.bits + self.lanes * seen.bare > seen.limit

    def usual_seconds(self) -> float:
        """How long an experiment of this tag takes, with its scoring: what its baseline took."""
        first = standing.baseline(self.ledger.experiments(self.tag))
        return first.seconds if first else 0.0

    @property
    def home(self) -> Home:
        """The bench."""
        return self.stages.home

    @property
    def policies(self) -> Policies:
        """The policies in force."""
        return self.stages.policies

    @property
    def launches(self) -> LaunchClient:
        """The way to the launcher."""
        return self.stages.launches

    @property
    def ledger(self) -> Ledger:
        """The ledger the recorder writes."""
        return self.recorder.ledger

    @property
    def line(self) -> GitLine:
        """The git line the recorder advances."""
        return self.recorder.line

    def clock(self, budget: float | None = None) -> clock.Clock:
        """What a training container of this tag gets, calibrated by the tag's baseline."""
        baseline = standing.baseline_seconds(self.ledger.experiments(self.tag))
        overhead = None if baseline is None else baseline - self.stages.budget()
        cold = self.stages.cache.cold_seconds if self.stages.cache else None
        return clock.clock(self.policies.decision, budget or self.stages.budget(), overhead, cold)

    def _enough_disk(self) -> None:
        """A candidate may fill its files; the ledger must still have room afterwards."""
        free = shutil.disk_usage(self.home.root).free
        needed = MIN_FREE_BYTES + self.lanes * len(HAND_OVER) * self.policies.sandbox.trainer.file_bytes
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
            self._refuse(error)

    def _refuse(self, error: SnapshotError) -> NoReturn:
        """A candidate that is not run: recorded, told, and raised."""
        self.recorder.refuse(error.reason)
        self.emit("refused", {"reason": error.reason, "error": str(error)})
        raise error

    def taken_out(self) -> list[Experiment]:
        """What people took out of the line."""
        return self.out.of(self.ledger.experiments(self.tag))

    def best(self) -> Experiment | None:
        """What the next candidate is measured against, None before the baseline."""
        return standing.best(self.ledger.experiments(self.tag))

    def go_on_from(self, row: Experiment, source: Path) -> None:
        """Put an earlier experiment's file into `source`: what comes next is made from it."""
        self._put(source, self.line.content(row.commit))
        best = self.best()
        self.parent, self.on_best = row.id, best is not None and best.id == row.id

    def best_source(self) -> bytes:
        """train.py as the agent goes on from: the last keep, or the seed the tag began with."""
        with self.recorder.lock:
            head, best = self.line.head(self.tag), self.best()
            self.parent, self.on_best = None if best is None else best.id, True
            return self.seed if head is None else self.line.content(head)

    def restore(self, source: Path) -> None:
        """Put the best version back."""
        self._put(source, self.best_source())

    def _put(self, source: Path, data: bytes) -> None:
        """Write into an agent's file; a failure here is the bench's, not a refusal of the candidate."""
        try:
            snapshot.restore(source, data)
        except SnapshotError as error:
            raise GloveboxError(error.what, where=error.where, fix=error.fix) from None


def _goes_on(_share: float, _loss: float) -> bool:
    """The pace is noted all the same: `early-stop study` reads it."""
    return False


def _feedback(row: Experiment, dropped: int, best: Experiment | None, left: int | None) -> Feedback:
    """`row`: as its agent is told of it; `dropped`: lines of its telemetry that were no values."""
    withheld = row.told == leak_budget.BARE
    shown = rounded(row)
    before = round(best.val_bpb, BPB_DIGITS) if best and best.val_bpb is not None else None
    delta = None if shown.val_bpb is None or before is None else round(shown.val_bpb - before, BPB_DIGITS)
    return Feedback(
        experiment=row.id,
        status=row.status,
        val_bpb=shown.val_bpb,
        best_bpb=before,
        delta=delta,
        confirmed=shown.confirmed,
        gain=shown.gain,
        probability=shown.probability,
        reason=row.reason,
        crash=row.crash,
        causality=row.causality,
        train_seconds=shown.train_seconds,
        eval_seconds=shown.eval_seconds,
        telemetry=Telemetry(curve=row.curve, summary=row.summary, dropped_lines=0 if withheld else dropped),
        withheld=withheld,
        experiments_left=left,
    )
