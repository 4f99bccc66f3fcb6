"""val_bpb from logits: log-softmax, byte counts, the ratio. TRUSTED.

val_bpb = sum of nats over scored targets / (ln 2 * sum of target bytes); targets of zero bytes (special
tokens) are excluded from both sums (Karpathy, autoresearch prepare.py, evaluate_bpb).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from trainer.evaluator.program import Program
from trainer.evaluator.refusal import Reason, Refused


@dataclass(frozen=True)
class Bpb:
    """`upstream` counts U+FFFD as three bytes as upstream does; `true` counts the token's own bytes."""

    upstream: float
    true: float
    targets: int


def nats(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """-log softmax(logits)[target] per position, float64 [rows, seq_len].

    The row maximum is subtracted before anything else and the sum is taken in float64: logsumexp minus
    a gathered logit is forgeable (a +1e20 offset cancels to zero nats). Raises Refused(NOT_FINITE).
    """
    out = torch.empty(targets.shape, dtype=torch.float64, device=logits.device)
    for row in range(logits.shape[0]):  # one row at a time: float64 logits of a batch would not fit in cache
        z = logits[row].to(torch.float64, copy=True)  # never the program's own tensor
        top = z.amax(-1, keepdim=True)
        z -= top
        gathered = z.gather(-1, targets[row].unsqueeze(-1)).squeeze(-1)
        out[row] = z.exp_().sum(-1).log_() - gathered
    # A NaN or infinite logit makes the row's maximum or its sum NaN or infinite, or its target's share 0.
    if not bool(torch.isfinite(out).all()):
        raise Refused(Reason.NOT_FINITE, "logits")
    return out


def score(
    program: Program,
    rows: torch.Tensor,
    token_bytes: torch.Tensor,
    true_bytes: torch.Tensor,
    watch: dict[int, Callable[[torch.Tensor], None]],
    progress: Callable[[int], None],
) -> Bpb:
    """bpb of `program` over rows int64 [n, seq_len + 1], n a multiple of program.rows."""
    total = torch.zeros((), dtype=torch.float64)
    total_true = torch.zeros((), dtype=torch.float64)
    upstream_bytes = bytes_true = targets = 0
    for start in range(0, len(rows), program.rows):
        batch = rows[start : start + program.rows].to(program.device)
        x, y = batch[:, :-1].contiguous(), batch[:, 1:].contiguous()
        loss = nats(program(x, watch), y)
        counted, counted_true = token_bytes[y], true_bytes[y]
        total += (loss * (counted > 0)).sum().cpu()
        total_true += (loss * (counted_true > 0)).sum().cpu()
        upstream_bytes += int(counted.sum())
        bytes_true += int(counted_true.sum())
        targets += int((counted > 0).sum())
        progress(start + len(batch))
    return Bpb(
        upstream=float(total) / (math.log(2) * upstream_bytes),
        true=float(total_true) / (math.log(2) * bytes_true),
        targets=targets,
    )
