"""Conditions said the other way round: `~(seen & causal)` is what a mask hides, not what it shows. UNTRUSTED side.

The proof knows where a condition is false (behind a triangle, say), not where it is true. So what is hidden where a
negation holds is shown where the negated holds, and a negation goes inside: not (a or b) is (not a and not b), and
the negation of a view is a view of the negation. Each says the same; what nothing comes of is dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch

from trainer.export.calls import name_of, named

_NOT = frozenset({"logical_not", "bitwise_not"})
SAID_BETTER = {"ne": "self", "logical_not": "self", "bitwise_not": "self", "masked_fill": "mask", "where": "condition"}
_OR = frozenset({"logical_or", "bitwise_or", "__or__"})
_VIEWS = frozenset(
    {
        *("view", "_unsafe_view", "reshape", "flatten", "unflatten", "unsqueeze", "squeeze", "expand", "repeat", "t"),
        *("transpose", "permute", "movedim", "slice", "select", "narrow", "alias", "detach", "clone", "contiguous"),
    }
)


class _Opposite(NamedTuple):
    """How to make the opposite of a condition, once those of what it was made `of` are there."""

    of: tuple[torch.Tensor, ...]
    make: Callable[[], torch.Tensor]


class Negations:
    """Of each boolean tensor that is a negation, or is better said as one, how to make its opposite."""

    def __init__(self, is_constant: Callable[[torch.Tensor], bool], is_chosen: Callable[[torch.Tensor], bool]) -> None:
        self._is_constant, self._is_chosen = is_constant, is_chosen
        self._opposites: dict[int, _Opposite] = {}
        self._made: dict[int, torch.Tensor] = {}
        self._alive: list[torch.Tensor] = []  # or an identity could be given twice

    def instead(self, func: torch._ops.OpOverload, args: Any, kwargs: dict[str, Any]) -> torch.Tensor | None:
        """The same, of an operation that may be SAID_BETTER, in words that the proof understands; None without any."""
        name = name_of(func)
        given = named(func, args, kwargs)
        if name == "ne":  # of numbers that may be NaN the run would have to find that they are not
            compared = self._is_compared_to_zero(func, given) and not given["self"].is_floating_point()
            return _truth(given["self"]) if compared else None
        condition = given[SAID_BETTER[name]]
        if id(condition) not in self._opposites or (name == "where" and "self" not in given):
            return None  # `where(condition)` asks for places
        if name in _NOT:
            return self._opposite(condition)
        x, fill = (given["other"], given["self"]) if name == "where" else (given["self"], given["value"])
        if not isinstance(x, torch.Tensor) or self._is_constant(x) or not self._is_plain(fill):
            return None
        if name == "masked_fill":  # which keeps the type of what it fills
            fill = fill.to(x.dtype) if isinstance(fill, torch.Tensor) else fill
            if torch.result_type(x, fill) is not x.dtype:
                return None
        return torch.where(self._opposite(condition), x, fill)

    def note(self, func: torch._ops.OpOverload, args: Any, kwargs: dict[str, Any], found: Any) -> None:
        """Remember what the opposite of this result would be."""
        if not isinstance(found, torch.Tensor) or found.dtype is not torch.bool or id(found) in self._opposites:
            return
        name, given = name_of(func), named(func, args, kwargs)
        x, opposite = given.get("self"), None
        if not isinstance(x, torch.Tensor) or self._is_constant(found) or self._is_chosen(found):
            return
        if (name in _NOT and not x.is_complex()) or (name == "eq" and self._is_compared_to_zero(func, given)):
            opposite = _Opposite((), partial(_truth, x))
        elif name in _OR and x.dtype is torch.bool and getattr(given["other"], "dtype", None) is torch.bool:
            opposite = _Opposite((x, given["other"]), partial(self._neither, x, given["other"]))
        elif name in _VIEWS and id(x) in self._opposites:
            opposite = _Opposite((x,), partial(self._viewed, x, func, args[1:], kwargs))
        if opposite is not None:
            self._opposites[id(found)] = opposite
            self._alive.append(found)

    def forget(self) -> None:
        """A tensor was written to: what was said of it, or by it, may no longer be so."""
        self._opposites, self._made = {}, {}

    def _is_compared_to_zero(self, func: torch._ops.OpOverload, given: dict[str, Any]) -> bool:
        x = given["self"]
        return (
            func._overloadname == "Scalar" and given["other"] == 0 and not x.is_complex() and not self._is_constant(x)
        )

    def _is_plain(self, fill: Any) -> bool:
        return not isinstance(fill, torch.Tensor) or self._is_constant(fill)

    def _opposite(self, x: torch.Tensor) -> torch.Tensor:
        """Made once; a condition may be as long as a loop over time."""
        ahead = [x]
        while ahead:
            of, make = self._opposites[id(ahead[-1])]
            missing = [one for one in of if id(one) in self._opposites and id(one) not in self._made]
            if missing:
                ahead += missing
                continue
            if id(ahead[-1]) not in self._made:
                self._made[id(ahead[-1])] = make()
            ahead.pop()
        return self._made[id(x)]

    def _neither(self, *either: torch.Tensor) -> torch.Tensor:
        one, two = (self._opposite(x) if id(x) in self._opposites else torch.logical_not(x) for x in either)
        return torch.logical_and(one, two)

    def _viewed(self, x: torch.Tensor, func: torch._ops.OpOverload, args: Any, kwargs: dict[str, Any]) -> torch.Tensor:
        found: torch.Tensor = func(self._opposite(x), *args, **kwargs)
        return found


def _truth(x: torch.Tensor) -> torch.Tensor:
    """x != 0, of NaN too."""
    return x if x.dtype is torch.bool else x.to(torch.bool)
