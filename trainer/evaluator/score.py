"""val_bpb from logits: log-softmax, byte counts, the ratio. TRUSTED.

val_bpb = sum of nats over scored targets / (ln 2 * sum of target bytes); targets of zero bytes (special
tokens) are excluded from both sums (Karpathy, autoresearch prepare.py, evaluate_bpb).

Rows are scored in an order the candidate cannot know, and their nats are kept by row: the audit runs the very same
batches again. Sums are exact (`math.fsum` over rows), so the order changes no digit of the score.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.evaluator.model import kernels
from trainer.evaluator.model.program import Program
from trainer.wire.refusal import Reason, Refused

Watch = dict[int, Callable[[Tensor], None]]


@dataclass(frozen=True)
class Bpb:
    """`upstream` counts U+FFFD as three bytes as upstream does; `true` counts the token's own bytes."""

    upstream: float
    true: float
    targets: int


def nats(logits: Tensor, targets: Tensor) -> Tensor:
    """-log softmax(logits)[target] per position, float64 [rows, seq_len].

    The row maximum is subtracted before anything else: logsumexp minus a gathered logit is forgeable (a +1e20 offset
    cancels to zero nats). Terms are float32, as logits are; they are summed in float64. Per token this is within
    ln(vocab) 2^-24 + 2 ulp of exp, below 1e-6 nats, of float64 throughout, and on a GPU several times as fast: cards
    that people own have 1/64 of their float32 rate in float64. Raises Refused(NOT_FINITE).
    """
    out = torch.empty(targets.shape, dtype=torch.float64, device=logits.device)
    for row in range(logits.shape[0]):  # one row at a time: the terms of a batch would not fit in cache
        z = logits[row]
        z = z.float() if z.dtype in kernels.HALVES else z
        top = z.amax(-1, keepdim=True)
        target = z.gather(-1, targets[row].unsqueeze(-1)).to(torch.float64) - top.to(torch.float64)
        out[row] = (z - top).exp_().sum(-1, dtype=torch.float64).log_() - target.squeeze(-1)
    # A NaN or +inf makes the row's maximum or its sum NaN, a -inf at the target its share 0; elsewhere -inf is a share
    # of 0, which a model may say.
    if not bool(torch.isfinite(out).all()):
        raise Refused(Reason.NOT_FINITE, "logits")
    return out


def batch(program: Program, tokens: Tensor, targets: Tensor, watch: Watch | None = None) -> Tensor:
    """Nats of one pass, float64 [rows, seq_len] on the CPU; tokens and targets int64 of that shape."""
    logits = program(tokens.to(program.device), watch)
    return nats(logits, targets.to(program.device)).cpu()


def losses(program: Program, rows: Tensor, order: Tensor, watch: Watch, progress: Callable[[int], object]) -> Tensor:
    """Nats of all rows int64 [n, seq_len + 1], n a multiple of program.rows, scored in `order`; by row, not by order.

    `progress` is told after each pass how many rows are done.
    """
    out = torch.empty(len(rows), rows.shape[1] - 1, dtype=torch.float64)
    for done, pick in enumerate(order.split(program.rows), 1):
        out[pick] = batch(program, rows[pick, :-1], rows[pick, 1:], watch)
        progress(done * program.rows)
    return out


def bpb(found: Tensor, rows: Tensor, token_bytes: Tensor, true_bytes: Tensor) -> Bpb:
    """The score of nats [n, seq_len] over rows int64 [n, seq_len + 1]; bytes by token, int64 [vocab]."""
    targets = rows[:, 1:]
    counted, counted_true = token_bytes[targets], true_bytes[targets]
    total = math.fsum((found * (counted > 0)).sum(-1).tolist())
    total_true = math.fsum((found * (counted_true > 0)).sum(-1).tolist())
    return Bpb(
        upstream=total / (math.log(2) * int(counted.sum())),
        true=total_true / (math.log(2) * int(counted_true.sum())),
        targets=int((counted > 0).sum()),
    )


def score(
    program: Program,
    rows: Tensor,
    token_bytes: Tensor,
    true_bytes: Tensor,
    watch: Watch,
    progress: Callable[[int], object],
) -> Bpb:
    """bpb of `program` over rows int64 [n, seq_len + 1] in their own order, n a multiple of program.rows."""
    found = losses(program, rows, torch.arange(len(rows)), watch, progress)
    return bpb(found, rows, token_bytes.cpu(), true_bytes.cpu())
