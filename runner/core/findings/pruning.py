"""Which keeps most probably did nothing, and in which order to try the best without them. TRUSTED, pure.

About half of what rule `odds` keeps has no effect, and its code stays. Doubtful keeps are tried in blocks, each so
large that it is as likely as not that none of it is needed: then a run tells most. A block without which the file is
not as good is halved, the less probable half first (group testing: Dorfman, The Detection of Defective Members of Large
Populations, 1943).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Literal

from runner.core.base.launching import Frozen
from runner.core.base.values import Experiment
from runner.core.decision import standing
from runner.core.findings.transfers import Transfer

Ended = Literal["done", "runs", "leak", "stopped"]  # all was tried; runs or leak budget are used; `stop --after`
_EVEN = 0.5  # chance that none of a block is needed


class Pruned(Frozen):
    """What came of it. Keeps by number; each that was doubtful, and not out already, is in one of the lists."""

    before: int  # the best that it began with
    after: int  # the best now
    bytes_before: int
    bytes_after: int
    taken_out: list[int]
    needed: list[int]  # without one of them alone the file was not as good
    failed: list[int]  # without one of them alone the file gave no score, twice
    refused: list[int]  # without it the file is one that a person took back
    built_on: list[int]  # what came later changed the same lines
    small: list[int]  # fewer bytes than policy calls smaller
    untried: list[int]  # there were no runs left
    undone: list[int]  # taken out, but the file was worse beside the one before, which is the best again
    runs: int
    measured: Transfer | None  # the smaller file beside the one before, on draws by which no keep was chosen
    ended: Ended


def doubtful(rows: Sequence[Experiment], below: float) -> list[Experiment]:
    """Keeps of the line that are real with a probability below this, the least probable first.

    Those that made the file smaller are none of them: to take them out would add code. Nor are those that were made
    from an earlier file than the best: they took out what came between, which would come back.
    """
    found = [
        new
        for old, new in itertools.pairwise(standing.line(rows))
        if new.veto is None and new.parent in (None, old.id) and new.snapshot_size > old.snapshot_size
    ]
    unsure = [(row.probability, row.id, row) for row in found if row.probability is not None]
    return [row for probability, _, row in sorted(unsure, key=lambda one: one[:2]) if probability < below]


class Blocks:
    """What to try next, told what came of the last."""

    def __init__(self, doubtful: Iterable[tuple[int, float]]) -> None:
        """Keeps and the probability that each is real, the least probable first."""
        found, none = list[list[int]](), 0.0
        for number, probability in doubtful:
            none *= 1 - probability
            if none < _EVEN:  # that none of the block is needed
                found, none = [*found, []], 1 - probability
            found[-1].append(number)
        self._waiting = [tuple(block) for block in reversed(found)]

    def next(self) -> tuple[int, ...]:
        """The next block; empty when there is none."""
        return self._waiting.pop() if self._waiting else ()

    def again(self, numbers: Iterable[int]) -> None:
        """These, one by one, once more: what stood in their way is gone."""
        self._waiting += [(number,) for number in numbers]

    def together(self, numbers: Iterable[int]) -> None:
        """These at once: one of them alone cannot be taken out."""
        self._waiting.append(tuple(numbers))

    def halve(self, block: tuple[int, ...]) -> None:
        """It was not as good without this block: one of it is needed, perhaps not the others."""
        if len(block) > 1:
            middle = (len(block) + 1) // 2
            self._waiting += [block[middle:], block[:middle]]

    @property
    def left(self) -> list[int]:
        """Keeps that wait to be tried."""
        return [number for block in self._waiting for number in block]
