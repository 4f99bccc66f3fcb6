"""What must hold of intermediate values at run time for a proof to stand. TRUSTED.

0 * x is 0 only if x is finite, x + -inf is -inf only if x is finite, masked attention ignores a key only
if its score cannot overflow, and 1 / 0 shows the sign of a zero. A kernel may load what lies beyond its operand and
multiply it by zero: that says nothing only if it is finite (uxlfoundation/oneDNN 5717), so every operand of every
product must be. The static proof relies on such facts; they are checked on every scored row, and a single failure
refuses the model.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

import torch

from trainer.wire.refusal import Reason, Refused

SCORE_BOUND = 1e15  # |q|, |k| below this: a float32 dot product of 2**20 terms stays finite


class Kind(StrEnum):
    """What is required of every element of a value."""

    FINITE = "finite"
    BOUNDED = "bounded"
    NONZERO = "nonzero"
    MASK = "mask"  # additive or boolean attention mask: no NaN, no +inf, and every row shows at least one key


class Obligations:
    """Collected requirements by value id, and the checks that discharge them."""

    def __init__(self) -> None:
        self._kinds: dict[int, set[Kind]] = {}
        self._outcomes: list[torch.Tensor] = []
        self.impossible = False  # a constant already violates one

    def __len__(self) -> int:
        return sum(len(kinds) for kinds in self._kinds.values())

    def require(self, id_: int, kind: Kind, const: torch.Tensor | None) -> None:
        """Every element of value `id_` must be `kind`; constants are checked at once."""
        if const is not None:
            self.impossible |= not bool(_holds(const, kind))
        else:
            self._kinds.setdefault(id_, set()).add(kind)

    def watch(self) -> dict[int, Callable[[torch.Tensor], None]]:
        """Callbacks for Program.__call__ that record each check without waiting for the device."""
        return {id_: self._recorder(tuple(kinds)) for id_, kinds in self._kinds.items()}

    def _recorder(self, kinds: tuple[Kind, ...]) -> Callable[[torch.Tensor], None]:
        def record(value: torch.Tensor) -> None:
            self._outcomes.extend(_holds(value, kind) for kind in kinds)

        return record

    def discharge(self) -> None:
        """Look at what was recorded since the last call; raises Refused(NOT_FINITE)."""
        outcomes, self._outcomes = self._outcomes, []
        if self.impossible or (outcomes and not bool(torch.stack(outcomes).all())):
            raise Refused(Reason.NOT_FINITE, "an obligation of the causality proof failed")


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
    bound = float("inf") if kind is Kind.FINITE else SCORE_BOUND
    least, most = torch.aminmax(value)  # both are NaN if anything is: a comparison is then false
    return (least > -bound) & (most < bound)
