"""What an evaluation may cost: the evaluator's time is the candidate's time. TRUSTED.

A clock on training alone moves the training elsewhere: a hand-over that ships its training tokens as weights can have
them counted while constants are folded. So folding may take a small share of what the tag's baseline costs to score,
counted on the dry run before anything is computed, and by time while it is. A pass may take a multiple of the
baseline's, counted and by time. Nothing a pass computes outlives it, so what it may do beyond an honest one is small.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from trainer.evaluator.model.program import Program, Work
from trainer.wire.refusal import Reason, Refused

LEAST_FOLDING = Work(1e9, 32_000_000)  # always allowed: casts and masks of a small model
LEAST_PASS = 1 << 18  # elements a token: those of a GPT of 50 million parameters and 8,192 words
LEAST_FOLDING_SECONDS = 0.5
LEAST_SCORING_SECONDS = 10.0


@dataclass(frozen=True)
class Costs:
    """What one evaluation took; that of a tag's baseline is the yardstick of the others."""

    pass_flops: float
    pass_elements: int
    passes: int
    scoring_seconds: float  # by `clock`

    @property
    def scoring(self) -> Work:
        """All passes."""
        return Work(self.pass_flops * self.passes, self.pass_elements * self.passes)

    @classmethod
    def from_go(cls, raw: Any) -> Costs | None:
        """The baseline's, as the launcher passes it on; None for a baseline itself."""
        return None if raw is None else cls(**raw)


def clock(device: torch.device) -> float:
    """Seconds of work so far: of all threads on a CPU, which other processes do not lengthen; else of the clock."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.monotonic()


@dataclass(frozen=True)
class Allowance:
    """What may be spent, beyond the limits of one pass."""

    fold_share: float
    scoring_ratio: float
    passes: int
    baseline: Costs | None = None

    def folding(self, program: Program) -> Callable[[], None]:
        """Refuse work that is out of proportion, on constants and in a pass, before any is done; raises Refused.

        What it returns is to be called after each operation that is folded, and raises once they take too long.
        """
        tokens = program.rows * program.seq_len
        most = max(LEAST_PASS * tokens, self.scoring_ratio * self.baseline.pass_elements if self.baseline else math.inf)
        if program.each_pass.elements > most:
            raise Refused(Reason.COMPUTE_LIMIT, f"a pass: {program.each_pass}, {most:.3g} elements are allowed")
        own = Work(program.each_pass.flops * self.passes, program.each_pass.elements * self.passes)
        whole = self.baseline.scoring if self.baseline else own
        flops = max(LEAST_FOLDING.flops, self.fold_share * whole.flops)
        elements = max(LEAST_FOLDING.elements, self.fold_share * whole.elements)
        if program.folding.flops > flops or program.folding.elements > elements:
            raise Refused(Reason.COMPUTE_LIMIT, f"folding: {program.folding}, allowed {flops:.3g}, {elements:.3g}")
        seconds = max(LEAST_FOLDING_SECONDS, self.fold_share * self.baseline.scoring_seconds if self.baseline else 0.0)
        until = clock(program.device) + seconds

        def check() -> None:
            if clock(program.device) > until:
                raise Refused(Reason.COMPUTE_LIMIT, f"folding took more than {seconds:.2f} s of work")

        return check

    @property
    def scoring_seconds(self) -> float:
        """By `clock`."""
        if self.baseline is None:
            return math.inf
        return max(LEAST_SCORING_SECONDS, self.scoring_ratio * self.baseline.scoring_seconds)
