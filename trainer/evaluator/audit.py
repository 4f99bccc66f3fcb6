"""Dynamic counterfactual audit: change the future, compare the past. TRUSTED.

For every row a secret random cut is drawn; the suffix after it is replaced by another row's and the token
right after the cut always changes. Logits up to the cut must not move at all: honest causal programs are
bit-exact (measured), so the tolerance is zero. With several rows per pass the neighbours of one row are
exchanged as well. Zero hits in n trials bound the share of rows that look ahead by about 3 / n.
"""

from __future__ import annotations

import secrets

import torch

from trainer.evaluator.program import Program
from trainer.evaluator.refusal import Reason, Refused


def audit(program: Program, rows: torch.Tensor, trials: int) -> int:
    """Run at least `trials` row trials; returns how many were made, raises Refused(NON_CAUSAL) on a hit."""
    generator = torch.Generator().manual_seed(secrets.randbits(63))
    done = 0
    while done < trials:
        pick = torch.randperm(len(rows), generator=generator)[: program.rows]
        if len(pick) < program.rows:
            raise Refused(Reason.NOT_PROVED, "too few rows to audit")
        x = rows[pick, :-1].contiguous()
        natural = program(x.to(program.device))
        if bool(torch.isnan(natural).any()):  # NaN differs from itself and would look like a change
            raise Refused(Reason.NOT_FINITE, "logits")
        _suffixes(program, x, rows, natural, generator)
        if program.rows > 1:
            _neighbours(program, x, rows, natural, generator)
        done += program.rows
    return done


def _suffixes(
    program: Program, x: torch.Tensor, rows: torch.Tensor, natural: torch.Tensor, generator: torch.Generator
) -> None:
    count, seq = x.shape
    other = rows[torch.randint(len(rows), (count,), generator=generator), :-1]
    cut = torch.randint(0, seq - 1, (count, 1), generator=generator)
    position = torch.arange(seq).unsqueeze(0)
    changed = torch.where(position > cut, other, x)
    after = x.gather(1, cut + 1)
    same = changed.gather(1, cut + 1) == after
    changed.scatter_(1, cut + 1, torch.where(same, (after + 1) % program.vocab, changed.gather(1, cut + 1)))
    moved = (program(changed.to(program.device)) != natural).any(-1).cpu()
    if bool((moved & (position <= cut)).any()):
        raise Refused(Reason.NON_CAUSAL, "a logit moved when only later tokens changed")


def _neighbours(
    program: Program, x: torch.Tensor, rows: torch.Tensor, natural: torch.Tensor, generator: torch.Generator
) -> None:
    keep = int(torch.randint(len(x), (1,), generator=generator))
    others = rows[torch.randint(len(rows), (len(x),), generator=generator), :-1].clone()
    others[keep] = x[keep]
    if bool((program(others.to(program.device))[keep] != natural[keep]).any()):
        raise Refused(Reason.NON_CAUSAL, "a row's logits moved when only other rows changed")
