"""The best train.py of a tag without keeps that most probably did nothing, as small as it may be. TRUSTED.

Each attempt is an experiment of the tag like any other, made from the best by taking the changes of some keeps out
again (git merge-file, backwards): it is run, weighed and recorded as an agent's would be, and kept if it is smaller and
expected to lose no more than policy allows (`simplicity_bytes`, `simplicity_sigmas`). At the end the best is run beside
the one before, in turns, on draws by which no keep was chosen; if it is worse there, the one before is the best again.

A pruning that was interrupted is gone on with, with what is left of its runs: its begin and its end are in the record.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import time
from collections.abc import Callable, Sequence
from functools import cache

from runner.core.base.errors import PolicyError, SnapshotError
from runner.core.base.steering import Steer, Verb, request
from runner.core.base.values import Experiment, Rerun, Status
from runner.core.decision import standing
from runner.core.evidence.recorder import now
from runner.core.findings import edits, pruning, transfers
from runner.core.findings.pruning import Blocks, Ended, Pruned
from runner.core.findings.transfers import FIRST_PRUNED, PRUNED_APART, Transfer
from runner.rooms.desk.experiment import Loop
from runner.rooms.desk.settings import Prune

_TOLD = "prune: without "  # description of an attempt, with the keeps it is without
_FIND = re.compile(r"#(\d+)")


def carry_out(loop: Loop, order: Prune, enough: Callable[[], bool], *, again: bool = True) -> Pruned | None:
    """Try it and return what came of it; `enough` is asked before each run. Raises GloveboxError.

    `again`: also if the tag was pruned since its last experiment; else None then.
    """
    check(loop)
    steers = loop.recorder.texts.steers(loop.tag)
    last = next((one for one in reversed(steers) if one.verb in ("prune", "pruned")), None)
    rows = loop.ledger.experiments(loop.tag)
    if not again and last is not None and last.verb == "pruned" and last.after == len(rows):
        return None
    loop.take_vetoed_back(None, wait=True)
    if last is None or last.verb == "pruned" or _gone_on(loop.ledger.experiments(loop.tag)[last.after :]):
        best = loop.best()
        if best is None:
            raise PolicyError("nothing was kept yet", where=f"tag {loop.tag}", fix="glovebox status")
        last = _note(loop, "prune", best.id)
    return _Pruning(loop, order, enough, last).run()


def check(loop: Loop) -> None:
    """Raises PolicyError for a tag whose rule says of no keep how probably it is real."""
    rule = loop.policies.decision.rule
    if rule != "odds":
        what = f"rule {rule} says of no keep how probably it is real"
        raise PolicyError(what, where=f"tag {loop.tag}", fix="prune a tag begun under rule odds")


def _gone_on(rows: Sequence[Experiment]) -> bool:
    """Whether the tag went on after a pruning that was interrupted: then another begins."""
    return any(row.veto is None and not row.description.startswith(_TOLD) for row in rows)


def _note(loop: Loop, verb: Verb, experiment: int, text: str = "") -> Steer:
    return loop.recorder.steer(request(verb, now(), text=text, experiment=experiment))


class _Pruning:
    def __init__(self, loop: Loop, order: Prune, enough: Callable[[], bool], begun: Steer) -> None:
        self._loop, self._order, self._enough, self._begun = loop, order, enough, begun
        rows = loop.ledger.experiments(loop.tag)
        self._first = next(row for row in rows if row.id == begun.experiment)
        self._content = cache(loop.line.content)
        self._plan(rows)

    def _plan(self, rows: Sequence[Experiment]) -> None:
        """What is to be tried, of the line as it is now."""
        self._before = {new.id: (old, new) for old, new in itertools.pairwise(standing.line(rows))}
        doubtful = pruning.doubtful(rows, self._order.below)
        self._doubtful = [row.id for row in doubtful]
        self._blocks = Blocks((row.id, row.probability or 0.0) for row in doubtful)
        line = {row.id for row in standing.line(rows)}
        self._taken = [number for row in self._attempts(rows) if row.id in line for number in _numbers(row)]
        self._needed, self._failed, self._refused = list[int](), list[int](), list[int]()
        self._built_on, self._small = list[int](), list[int]()
        self._joined = set[tuple[int, ...]]()

    def run(self) -> Pruned:
        while self._goes_on() and (block := self._next()):
            self._try(block)
        runs, small = self._runs(), self._best()
        measured, undone = None, list[int]()
        if small.id != self._first.id:
            measured = self._measured(small)
            if measured is not None and _worse(measured):
                undone = self._undo()
        ended = self._ended()
        if ended != "stopped":
            _note(self._loop, "pruned", self._best().id)
        return Pruned(
            before=self._first.id,
            after=self._best().id,
            bytes_before=self._first.snapshot_size,
            bytes_after=self._best().snapshot_size,
            taken_out=[] if undone else sorted(self._taken),
            needed=sorted(self._needed),
            failed=sorted(self._failed),
            refused=sorted(self._refused),
            built_on=sorted(self._built_on),
            small=sorted(self._small),
            untried=sorted(self._blocks.left),
            undone=undone,
            measured=measured,
            runs=runs,
            ended=ended,
        )

    def _next(self) -> tuple[int, ...]:
        """The next block; when there is none, one that stands in another's way is tried together with that."""
        if block := self._blocks.next():
            return block
        for number in sorted(self._built_on):
            for other in sorted({*self._built_on, *self._small}):
                if other > number and (number, other) not in self._joined:
                    self._joined.add((number, other))
                    if self._without((number, other))[1] == [number, other]:
                        self._forget(number, other)
                        return (number, other)
        return ()

    def _forget(self, *numbers: int) -> None:
        self._built_on = [number for number in self._built_on if number not in numbers]
        self._small = [number for number in self._small if number not in numbers]

    def _try(self, block: tuple[int, ...]) -> None:
        loop, (source, out) = self._loop, self._without(block)
        self._built_on += [number for number in block if number not in out and self._changes(number)]
        if not out:
            return
        if self._best().snapshot_size - len(source) < loop.policies.decision.simplicity_bytes:
            self._small += out
            return
        if self._ran_before(source):
            self._not_without(out, self._needed)
            return
        told = _TOLD + ", ".join(f"#{number}" for number in sorted(out))
        for last in (False, True):
            loop.best_source()  # it is made from that
            try:
                status = loop.experiment(loop.written(source), told).status
            except SnapshotError:
                self._not_without(out, self._refused)
                return
            if status in (Status.KEEP, Status.DISCARD) or len(out) > 1 or last or not self._goes_on():
                break  # one that gives no score may have met a bad moment
        if status is not Status.KEEP:
            self._not_without(out, self._needed if status is Status.DISCARD else self._failed)
            return
        self._taken += out
        waiting, self._built_on = self._built_on, []
        self._blocks.again(waiting)  # what was taken out may have stood in their way

    def _ran_before(self, source: bytes) -> bool:
        """Whether this very file was weighed as what it would be now, and not kept."""
        tried, rows = hashlib.sha256(source).hexdigest(), self._loop.ledger.experiments(self._loop.tag)
        line = {row.id for row in standing.line(rows) if row.id >= self._first.id} | {self._best().id}
        return any(row.snapshot == tried and row.status is Status.DISCARD and row.parent in line for row in rows)

    def _not_without(self, block: list[int], found: list[int]) -> None:
        if len(block) == 1:
            found += block
        elif set(block) <= {number for pair in self._joined for number in pair} and len(block) == 2:
            found += block  # neither can be taken out without the other
        else:
            self._blocks.halve(tuple(block))

    def _without(self, block: tuple[int, ...]) -> tuple[bytes, list[int]]:
        """The best without what these keeps changed, the newest first; and those of which that could be done."""
        source, out = self._content(self._best().commit), list[int]()
        for number in sorted(block, reverse=True):
            found = self._merged(number, source)
            if found is not None and len(found) < len(source) and edits.parsed(found):
                source = found
                out.append(number)
        return source, [number for number in block if number in out]

    def _merged(self, number: int, source: bytes) -> bytes | None:
        """`source` without what a keep changed, None if that cannot be told apart from what came later."""
        old, new = self._before[number]
        return self._loop.line.merged(self._content(new.commit), source, self._content(old.commit))

    def _changes(self, number: int) -> bool:
        """Whether anything of a keep is in the best: of one that is out already there is nothing to say."""
        source = self._content(self._best().commit)
        return self._merged(number, source) != source

    def _measured(self, best: Experiment) -> Transfer | None:
        """Both in turns, on draws of this pruning's own."""
        loop, trials = self._loop, self._loop.trials()
        steers = loop.recorder.texts.steers(loop.tag)
        place = sum(one.verb == "prune" and one.id < self._begun.id for one in steers)
        first = FIRST_PRUNED + place * PRUNED_APART
        for number in range(self._order.seeds):
            for one in (self._first, best):
                if self._enough():
                    return None
                if not any((r.experiment, r.seed, r.during) == (one.id, first + number, 0) for r in self._reruns()):
                    trials.rerun(one.id, 0, trials.snapshot(one), first + number)
        rows, alpha = loop.ledger.experiments(loop.tag), loop.policies.decision.alpha
        return transfers.prunings(rows, self._reruns(), alpha)[place]

    def _undo(self) -> list[int]:
        """The best before is the best again; the keeps that are back in it, none if that run failed too."""
        loop, rows = self._loop, self._loop.ledger.experiments(self._loop.tag)
        kept = next(row for row in standing.line(rows) if row.id > self._first.id)
        _note(loop, "veto", kept.id, f"prune: worse than experiment {self._first.id} beside it")
        if not loop.told_enough():
            loop.take_back(kept.id, None, "a pruning that was worse")
        return sorted(self._taken) if self._best().snapshot == self._first.snapshot else []

    def _best(self) -> Experiment:
        return self._loop.best() or self._first

    def _attempts(self, rows: Sequence[Experiment]) -> list[Experiment]:
        return [row for row in rows[self._begun.after :] if row.description.startswith(_TOLD)]

    def _reruns(self) -> Sequence[Rerun]:
        return self._loop.ledger.reruns(self._loop.tag)

    def _runs(self) -> int:
        """Those of training that this pruning has used, but for those at its end."""
        attempts = {row.id for row in self._attempts(self._loop.ledger.experiments(self._loop.tag))}
        return len(attempts) + sum(one.during in attempts for one in self._reruns())

    def _goes_on(self) -> bool:
        """Whether another attempt may begin, after what people asked for meanwhile: a pause, a keep taken back."""
        loop = self._loop
        loop.steering.wait(self._waited)
        vetoes = loop.steering.vetoes()
        if vetoes and not self._enough():
            loop.take_vetoed_back(None, wait=True)
            rows = loop.ledger.experiments(loop.tag)
            if self._first.id not in {row.id for row in standing.line(rows)}:
                self._first = self._best()  # what it began with is not there any more: it begins again
                self._begun = _note(loop, "prune", self._first.id)
            self._plan(rows)
        return not self._enough() and self._runs() < self._order.runs and not loop.told_enough()

    def _waited(self, seconds: float) -> bool:
        if not self._enough():
            time.sleep(seconds)
        return self._enough()

    def _ended(self) -> Ended:
        if self._enough():
            return "stopped"
        if not self._blocks.left:
            return "done"
        return "leak" if self._loop.told_enough() else "runs"


def _numbers(row: Experiment) -> list[int]:
    """The keeps that an attempt is without."""
    return [int(number) for number in _FIND.findall(row.description)]


def _worse(found: Transfer) -> bool:
    """Whether what a pruning left did worse than what it began with: surely, or by giving no score at all."""
    if not found.scores:
        return bool(found.others)
    return found.interval is not None and found.interval[1] < 0
