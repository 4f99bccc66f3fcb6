"""Dynamic counterfactual audit of what was scored: change the future, compare the past. TRUSTED.

The batches that were scored run once more, the same rows in the same places, but for what follows a secret cut in each
row: there another row's tokens stand, and the token right after the cut always differs. The nats of the row's own
targets up to the cut must not move at all: honest causal programs are bit-exact (measured), so the tolerance is zero.
Whatever tells a candidate that it is audited comes too late: what it is compared with is the score itself. Zero hits
in n rows bound the share of positions that look ahead by about 3 / n.

Neighbours are exchanged as well, and rows are run alone: every other row of the pass is then a copy of it.

Nobody is accused by one pass: kernels can differ from themselves (kernels.py). Before a refusal both inputs run once
more; if either differs from itself, that is Refused(NONDETERMINISTIC), and the caller may try on one thread.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trainer.evaluator import score
from trainer.evaluator.model.program import Program
from trainer.wire.refusal import Reason, Refused


@dataclass
class Auditor:
    """Runs scored batches again. `found`: nats [n, seq_len] by row, `order`: rows as they were scored."""

    program: Program
    rows: Tensor
    found: Tensor
    order: Tensor
    trials: int = 0  # rows whose future was changed
    alone: int = 0  # rows that were run alone
    _generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(secrets.randbits(63)))

    def some(self, trials: int) -> None:
        """At least `trials` row trials on scored batches drawn at random, one of them with other neighbours too."""
        batches = self.order.split(self.program.rows)
        while self.trials < trials:
            for at in torch.randperm(len(batches), generator=self._generator).tolist():
                if self.trials == 0:
                    self.neighbours(batches[at])
                if self.trials >= trials:
                    return
                self.suffixes(batches[at])

    def every(self, alone_share: float) -> None:
        """Each row with another future, and a share of the passes with one row alone."""
        batches = self.order.split(self.program.rows)
        self.trials = 0
        for pick in batches:
            self.suffixes(pick)
        if self.program.rows > 1:
            for at in torch.randperm(len(batches), generator=self._generator)[: _share(len(batches), alone_share)]:
                self.by_itself(batches[at])

    def suffixes(self, pick: Tensor) -> None:
        """Change what follows a secret cut in each row of a batch."""
        x = self.rows[pick, :-1]
        count, seq = x.shape
        other = self.rows[torch.randint(len(self.rows), (count,), generator=self._generator), :-1]
        cut = torch.randint(0, seq - 1, (count, 1), generator=self._generator)
        past = torch.arange(seq).unsqueeze(0) <= cut
        changed = torch.where(past, x, other)
        after, now = x.gather(1, cut + 1), changed.gather(1, cut + 1)
        changed.scatter_(1, cut + 1, torch.where(now == after, (after + 1) % self.program.vocab, now))
        self._compare(pick, changed, past, "a score moved when only later tokens changed")
        self.trials += count

    def neighbours(self, pick: Tensor) -> None:
        """Exchange all rows of a batch but one."""
        if self.program.rows == 1:
            return
        keep = int(torch.randint(len(pick), (1,), generator=self._generator))
        others = self.rows[torch.randint(len(self.rows), (len(pick),), generator=self._generator), :-1].clone()
        others[keep] = self.rows[pick[keep], :-1]
        self._compare(pick, others, _only(keep, others), "a row's score moved when only other rows changed")

    def by_itself(self, pick: Tensor) -> None:
        """One row of a batch, in its place, with copies of itself around it."""
        keep = int(torch.randint(len(pick), (1,), generator=self._generator))
        copies = self.rows[pick[keep], :-1].expand(len(pick), -1).clone()
        self._compare(pick, copies, _only(keep, copies), "a row's score moved when it was alone")
        self.alone += 1

    def _compare(self, pick: Tensor, changed: Tensor, where: Tensor, what: str) -> None:
        """Refuse if the nats of the batch's own targets moved at `where`, bool [rows, seq_len]."""
        targets = self.rows[pick, 1:]
        scored = self.found[pick]
        moved = score.batch(self.program, changed, targets)
        if not bool(((moved != scored) & where).any()):
            return
        same = torch.equal(score.batch(self.program, self.rows[pick, :-1], targets), scored)
        if not (same and torch.equal(score.batch(self.program, changed, targets), moved)):
            raise Refused(Reason.NONDETERMINISTIC, "the same input gave two scores")
        raise Refused(Reason.NON_CAUSAL, f"{what}; rows {pick.tolist()}")


def audit(program: Program, rows: Tensor, trials: int) -> int:
    """Score batches of rows int64 [n, seq_len + 1] drawn at random and audit them, without a score of the whole.

    Returns how many row trials were made; raises Refused(NON_CAUSAL) on a hit.
    """
    count = -(-min(trials, len(rows)) // program.rows) * program.rows
    if count > len(rows):
        raise Refused(Reason.NOT_PROVED, "too few rows to audit")
    picked = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(secrets.randbits(63)))[:count]]
    order = torch.arange(count)
    found = score.losses(program, picked, order, {}, lambda _: None)
    auditor = Auditor(program, picked, found, order)
    auditor.some(trials)
    return auditor.trials


def _only(row: int, like: Tensor) -> Tensor:
    mask = torch.zeros(like.shape, dtype=torch.bool)
    mask[row] = True
    return mask


def _share(count: int, share: float) -> int:
    return min(count, max(1, round(count * share))) if share > 0 else 0
