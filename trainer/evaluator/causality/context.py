"""What a rule gets to see, what it may require, and how it states a result. TRUSTED."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from trainer.evaluator.causality.abstract import Abstract, expand_mask
from trainer.evaluator.causality.obligations import Kind, Obligations
from trainer.evaluator.model.graph import Node


@dataclass
class Context:
    """One node under analysis: bound arguments (Abstract in place of tensors) and result shapes."""

    node: Node
    args: dict[str, Any]
    inputs: list[Abstract]
    shapes: list[tuple[int, ...]]
    dtypes: list[torch.dtype]
    obligations: Obligations
    used_zero: bool = field(default=False)

    def require(self, kind: Kind, *values: Any) -> None:
        """Oblige the run to check the values; numbers and absent values need no check."""
        for value in values:
            if isinstance(value, Abstract):
                self.obligations.require(value.id, kind, value.const)

    def require_no_signed_zero(self, *values: Any) -> None:
        """The operation sees the sign of a zero of these values."""
        self.require(Kind.NONZERO, *(v for v in values if isinstance(v, Abstract) and v.signed))

    def stays_finite(self, *values: Abstract) -> bool:
        """Whether a finite operand is still finite after promotion to the result's type.

        An obligation looks at the operand as it is; f64 to f32, or int64 to f16, could overflow after that.
        """
        return all(_widens(v.dtype, self.dtypes[0]) or _fits(v.const, self.dtypes[0]) for v in values)

    def require_zero(self, mask: Tensor, at: int = 0) -> None:
        """Oblige the run to find exactly zero in output `at`, wherever `mask` is true."""
        self.obligations.require_zero(self.node.first + at, mask)

    def result(
        self,
        dep: Tensor,
        at: int = 0,
        zero: Tensor | None = None,
        neginf: Tensor | None = None,
        low: Tensor | None = None,
        *,
        unsigned: bool = False,
    ) -> Abstract:
        """The abstract value of output `at`, whose sign-of-zero taint follows from the inputs unless it has none."""
        shape, dtype = self.shapes[at], self.dtypes[at]
        inexact = dtype.is_floating_point or dtype.is_complex
        if not inexact and any(x.floating for x in self.inputs):
            zero = None  # a "zero" that is NaN at run time becomes True or INT_MIN
        return Abstract(
            -1,
            dep.expand(shape),
            dtype,
            expand_mask(zero, shape),
            expand_mask(neginf, shape) if dtype.is_floating_point else None,
            expand_mask(low, shape) if dtype.is_floating_point else None,
            # Numbers without a sign of zero lose it, and so do those that are never below it.
            signed=inexact
            and not unsigned
            and self.node.name not in _UNSIGNED
            and (self.used_zero or any(x.signed for x in self.inputs)),
        )


_UNSIGNED = frozenset({"abs", "square"})
Rule = Callable[[Context], list[Abstract] | None]


def by_name(table: dict[Rule, str]) -> dict[str, Rule]:
    """Operation name -> rule, from rule -> space-separated names."""
    return {name: rule for rule, names in table.items() for name in names.split()}


def _fits(const: Tensor | None, result: torch.dtype) -> bool:
    """Whether a constant is known to be finite in the result's type."""
    return const is not None and result.is_floating_point and bool(torch.isfinite(const.to(result)).all())


def _widens(operand: torch.dtype, result: torch.dtype) -> bool:
    if not (result.is_floating_point or result.is_complex):
        return not (operand.is_floating_point or operand.is_complex)
    if operand.is_floating_point or operand.is_complex:
        return torch.finfo(operand).max <= torch.finfo(result).max
    return result is not torch.float16  # any int64 is finite in the wider types
