"""The best train.py of a tag without keeps that most probably did nothing, as small as it may be. TRUSTED.

Each attempt is an experiment of the tag like any other, made from the best by taking the changes of some keeps out
again (git merge-file, backwards): it is run, weighed and recorded as an agent's would be, and kept if it is smaller and
expected to lose no more than policy allows (`simplicity_bytes`, `simplicity_sigmas`). At the end the best is run beside
the one before, in pairs, on draws that nothing was chosen by.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Sequence

from runner.core.base.errors import PolicyError, SnapshotError
from runner.core.base.values import Experiment, Status
from runner.core.decision import standing
from runner.core.findings import edits, pruning, transfers
from runner.core.findings.pruning import Blocks, Pruned
from runner.core.findings.transfers import FIRST_ASKED, Transfer
from runner.rooms.desk.experiment import Loop
from runner.rooms.desk.settings import Prune


def carry_out(loop: Loop, order: Prune, enough: Callable[[], bool]) -> Pruned:
    """Try it and return what came of it; `enough` is asked before each run. Raises GloveboxError."""
    check(loop)
    rows = loop.ledger.experiments(loop.tag)
    best = standing.best(rows)
    if best is None:
        raise PolicyError("nothing was kept yet", where=f"tag {loop.tag}", fix="glovebox status")
    return _Pruning(loop, order, enough, rows, best).run()


def check(loop: Loop) -> None:
    """Raises PolicyError for a tag whose rule says of no keep how probably it is real."""
    rule = loop.policies.decision.rule
    if rule != "odds":
        what = f"rule {rule} says of no keep how probably it is real"
        raise PolicyError(what, where=f"tag {loop.tag}", fix="prune a tag begun under rule odds")


class _Pruning:
    def __init__(
        self, loop: Loop, order: Prune, enough: Callable[[], bool], rows: Sequence[Experiment], best: Experiment
    ) -> None:
        self._loop, self._order, self._enough, self._first = loop, order, enough, best
        self._began = self._runs()
        self._before = {new.id: (old, new) for old, new in itertools.pairwise(standing.line(rows))}
        self._blocks = Blocks((row.id, row.probability or 0.0) for row in pruning.doubtful(rows, order.below))
        self._taken, self._needed = list[int](), list[int]()
        self._built_on, self._small, self._absent = list[int](), list[int](), list[int]()

    def run(self) -> Pruned:
        while not self._over() and (block := self._blocks.next()):
            self._try(block)
        best, runs = self._best(), self._runs() - self._began
        return Pruned(
            before=self._first.id,
            after=best.id,
            bytes_before=self._first.snapshot_size,
            bytes_after=best.snapshot_size,
            taken_out=sorted(self._taken),
            needed=sorted(self._needed),
            built_on=sorted(self._built_on),
            small=sorted(self._small),
            untried=sorted(self._blocks.left),
            measured=None if best.id == self._first.id else self._measured(best),
            runs=runs,
        )

    def _try(self, block: tuple[int, ...]) -> None:
        loop, (source, out) = self._loop, self._without(block)
        if not out:
            return
        if self._best().snapshot_size - len(source) < loop.policies.decision.simplicity_bytes:
            self._small += out
            return
        tried = hashlib.sha256(source).hexdigest()
        rows = loop.ledger.experiments(loop.tag)
        if any(row.snapshot == tried and row.counts and row.status is not Status.KEEP for row in rows):
            self._not_without(out)  # it ran before, and was not kept
            return
        told = f"prune: without {', '.join(f'#{number}' for number in sorted(out))}"
        loop.best_source()  # it is made from that
        try:
            kept = loop.experiment(loop.written(source), told).status is Status.KEEP
        except SnapshotError:  # a person took this very file back
            kept = False
        if not kept:
            self._not_without(out)
            return
        self._taken += out
        self._blocks.again([*self._absent, *self._built_on])  # what was taken out stood in their way, or in their place
        self._absent, self._built_on = [], []

    def _not_without(self, block: list[int]) -> None:
        if len(block) == 1:
            self._needed += block
        else:
            self._blocks.halve(tuple(block))

    def _without(self, block: tuple[int, ...]) -> tuple[bytes, list[int]]:
        """The best without what these keeps changed, the newest first; and those of which that could be done.

        Of one that is out already there is nothing to say.
        """
        line, out = self._loop.line, list[int]()
        source = line.content(self._best().commit)
        for number in sorted(block, reverse=True):
            old, new = self._before[number]
            found = line.merged(line.content(new.commit), source, line.content(old.commit))
            if found is not None and len(found) < len(source) and edits.parsed(found):
                source = found
                out.append(number)
            elif found != source and _adds(line.content(old.commit), line.content(new.commit), source):
                self._built_on.append(number)
            else:
                self._absent.append(number)
        return source, [number for number in block if number in out]

    def _measured(self, best: Experiment) -> Transfer | None:
        """Both in turns, on draws of a person's."""
        loop, trials = self._loop, self._loop.trials()
        for number in range(self._order.seeds):
            for one in (self._first, best):
                if self._enough():
                    break
                trials.rerun(one.id, 0, trials.snapshot(one), FIRST_ASKED + number)
        budget, version = trials.stages.budget(), trials.stages.artifact.predicate.version
        terms = (float(budget), None, version, False)
        both = [one for one in loop.ledger.reruns(loop.tag) if one.experiment in (self._first.id, best.id)]
        asked = [one for one in both if not one.during and transfers.terms_of(one) == terms]
        if not asked:
            return None
        return transfers.side_by_side(asked, best.id, self._first.id, loop.policies.decision.alpha)

    def _best(self) -> Experiment:
        return self._loop.best() or self._first

    def _runs(self) -> int:
        loop = self._loop
        return len(loop.ledger.experiments(loop.tag)) + len(loop.ledger.reruns(loop.tag))

    def _over(self) -> bool:
        return self._enough() or self._runs() - self._began >= self._order.runs or self._loop.told_enough()


def _adds(old: bytes, new: bytes, source: bytes) -> bool:
    """Whether a line of those that came from `old` to `new` is in `source`."""
    return not {*new.splitlines()}.difference(old.splitlines()).isdisjoint(source.splitlines())
