"""What must hold of intermediate values at run time for a proof to stand. TRUSTED.

0 * x is 0 only if x is finite, x + -inf is -inf only if x is finite, masked attention ignores a key only
if its score cannot overflow, and 1 / 0 shows the sign of a zero. A kernel may load what lies beyond its operand and
multiply it by zero: that says nothing only if it is finite (uxlfoundation/oneDNN 5717), so every operand of every
product must be. The static proof relies on such facts; they are checked on every scored row, and a single failure
refuses the model.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from enum import StrEnum
from functools import partial
from typing import NamedTuple

import torch

from trainer.evaluator.causality.abstract import squash
from trainer.wire.refusal import Reason, Refused

GAP = 256.0  # exp(-GAP) is zero in float32; exp(-103) is not, and a long sum can be made to show it
SCORE_BOUND = 1e15  # |q|, |k| below this: a float32 dot product of 2**20 terms stays finite


class Kind(StrEnum):
    """What is required of every element of a value."""

    FINITE = "finite"
    BELOW = "below"  # neither NaN nor plus infinity
    BOUNDED = "bounded"
    NONZERO = "nonzero"
    MASK = "mask"  # additive or boolean attention mask: no NaN, no +inf, and every row shows at least one key


Check = Callable[[torch.Tensor], torch.Tensor]  # a value to whether it is as required, as a truth value on its device


class Gap(NamedTuple):
    """How far below the others something must lie: along a dimension, in the type that a softmax computes in."""

    dim: int
    dtype: torch.dtype


class Obligations:
    """Collected requirements by value id, and the checks that discharge them."""

    def __init__(self) -> None:
        self._kinds: dict[int, set[Kind]] = {}
        self._zeros: dict[int, torch.Tensor] = {}
        self._gaps: dict[tuple[int, Gap], torch.Tensor] = {}
        self._outcomes: list[torch.Tensor] = []
        self.impossible = False  # a constant already violates one

    def __len__(self) -> int:
        return sum(len(kinds) for kinds in self._kinds.values()) + len(self._zeros) + len(self._gaps)

    def require(self, id_: int, kind: Kind, const: torch.Tensor | None) -> None:
        """Every element of value `id_` must be `kind`; constants are checked at once."""
        if const is not None:
            self.impossible |= not bool(_holds(const, kind))
        else:
            self._kinds.setdefault(id_, set()).add(kind)

    def require_zero(self, id_: int, mask: torch.Tensor) -> None:
        """Value `id_` must be exactly zero, and no NaN, wherever the mask is true."""
        self._zeros[id_] = squash(self._zeros[id_] | mask if id_ in self._zeros else mask)

    def require_gap(self, id_: int, mask: torch.Tensor, gap: Gap) -> None:
        """What the mask picks of value `id_` must lie at least GAP below the largest of the rest."""
        key = id_, gap
        self._gaps[key] = squash(self._gaps[key] | mask if key in self._gaps else mask)

    def take(self) -> dict[int, list[Check]]:
        """What has been required so far, by value id; nothing is left."""
        checks: dict[int, list[Check]] = {}
        for id_, kinds in self._kinds.items():
            checks.setdefault(id_, []).extend(partial(_holds, kind=kind) for kind in sorted(kinds))
        for id_, mask in self._zeros.items():
            checks.setdefault(id_, []).append(_Zero(mask))
        for (id_, gap), mask in self._gaps.items():
            checks.setdefault(id_, []).append(_Lies(mask, gap))
        self._kinds, self._zeros, self._gaps = {}, {}, {}
        return checks

    def watch(self) -> dict[int, Callable[[torch.Tensor], None]]:
        """Callbacks for Program.__call__ that record each check without waiting for the device."""
        kept = copy(self)  # what is required stays required
        return {id_: self._recorder(checks) for id_, checks in kept.take().items()}

    def _recorder(self, checks: list[Check]) -> Callable[[torch.Tensor], None]:
        def record(value: torch.Tensor) -> None:
            self._outcomes.extend(check(value) for check in checks)

        return record

    def discharge(self) -> None:
        """Look at what was recorded since the last call; raises Refused(NOT_FINITE)."""
        outcomes, self._outcomes = self._outcomes, []
        if self.impossible or (outcomes and not bool(torch.stack(outcomes).all())):
            raise Refused(Reason.NOT_FINITE, "an obligation of the causality proof failed")


class _There:
    """A mask, on whatever device a value is."""

    def __init__(self, mask: torch.Tensor) -> None:
        self._masks = {mask.device: mask}

    def mask(self, device: torch.device) -> torch.Tensor:
        if device not in self._masks:
            self._masks[device] = next(iter(self._masks.values())).to(device)
        return self._masks[device]


class _Zero(_There):
    """Exactly zero wherever the mask is true."""

    def __call__(self, value: torch.Tensor) -> torch.Tensor:
        return ((value == 0) | ~self.mask(value.device)).all()


class _Lies(_There):
    """So far below the rest that exp of the difference is no number but zero."""

    def __init__(self, mask: torch.Tensor, gap: Gap) -> None:
        super().__init__(mask)
        self._gap = gap

    def __call__(self, value: torch.Tensor) -> torch.Tensor:
        low, dim = self.mask(value.device), self._gap.dim
        value, nothing = value.to(self._gap.dtype).float(), float("-inf")
        rest = value.masked_fill(low, nothing).amax(dim).double()
        most = value.masked_fill(~low, nothing).amax(dim).double()
        return ((rest - most >= GAP) | ~low.expand(value.shape).any(dim)).all()


def _holds(value: torch.Tensor, kind: Kind) -> torch.Tensor:
    if value.is_complex():
        value = torch.view_as_real(value.resolve_conj())
    if value.numel() == 0:
        return torch.ones((), dtype=torch.bool, device=value.device)
    if kind is Kind.NONZERO:
        return (value != 0).all()
    if kind is Kind.MASK and value.dim():
        most = value.amax(-1)  # of each row; NaN if there is one
        return most.all() if value.dtype is torch.bool else ((most > -SCORE_BOUND) & (most < SCORE_BOUND)).all()
    if not value.is_floating_point():
        return torch.ones((), dtype=torch.bool, device=value.device)
    least, most = torch.aminmax(value)  # both are NaN if anything is: a comparison is then false
    if kind is Kind.BELOW:
        return most < float("inf")
    bound = float("inf") if kind is Kind.FINITE else SCORE_BOUND
    return (least > -bound) & (most < bound)
