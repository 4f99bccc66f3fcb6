"""Numbers that forward reads from tensors (`assert x.isfinite().all()`, `if x.any():`, `x.item()`). UNTRUSTED side.

A graph has no branches. So the model runs once on real tokens, which tells every number it reads; while it is
exported, the same numbers are the answers, and the graph holds what was assumed: a check that the evaluator makes of
every row (or, of a number that depends on parameters alone, nothing: it is what it is). A number that nothing comes of,
as one that is only kept for a log, needs no check: with any other in its place the logits are the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

BRANCH, NUMBER = "branch", "number"  # messages of the assertions in the exported graph
_BRANCHES = frozenset({torch.Tensor.__bool__, torch.is_nonzero})
_ASKED = 32  # numbers of one forward pass; each takes a few passes more
_FAR = 1 << 31
_READS = _BRANCHES | {torch.Tensor.__int__, torch.Tensor.__float__, torch.Tensor.__index__, torch.Tensor.item}


class Listen(TorchFunctionMode):
    """Counts calls and remembers, in order, what is read from tensors. The `at`-th read may get another answer."""

    def __init__(self, at: int | None = None, other: Any = None) -> None:
        super().__init__()
        self.found: list[Any] = []
        self.calls = 0
        self._at, self._other = at, other

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.calls += 1
        if func not in _READS:
            return result
        self.found.append(result)
        return self._other if len(self.found) - 1 == self._at else result


def idle(
    found: list[Any], model: torch.nn.Module, ask: Callable[[], torch.Tensor], logits: torch.Tensor
) -> frozenset[int]:
    """Which of the numbers that `ask` reads, on the way to the same `logits`, nothing comes of: in that call, or in the
    next. What the model keeps of other answers is taken back."""
    numbers = [at for at, value in enumerate(found) if not isinstance(value, bool)][:_ASKED]
    if not numbers:
        return frozenset()
    with kept(model):
        # The last of the others shows in one more call, which gets what is there.
        return frozenset(
            at for at in numbers if all(_same(at, o, ask, logits) for o in (*_others(found[at]), found[at]))
        )


@contextmanager
def kept(model: torch.nn.Module) -> Iterator[None]:
    """The attributes of all its modules, and what lists, dictionaries and sets among them hold, are those of before."""
    before = [(vars(part), dict(vars(part))) for part in model.modules()]
    held = {id(value): value for _, attributes in before for value in attributes.values() if type(value) in _HOLD}
    contents = [(value, copy(value)) for value in held.values()]
    try:
        yield
    finally:
        for attributes, was in before:
            attributes.clear()
            attributes.update(was)
        for value, was in contents:
            value.clear()
            (value.extend if isinstance(value, list) else value.update)(was)


_HOLD = (dict, list, set)  # a module's own parameters and buffers are in such, too


def _others(value: Any) -> tuple[Any, ...]:
    """What a number might have been instead: whatever it is compared with lies between."""
    return (0, -_FAR, _FAR) if isinstance(value, int) else (0.0, -math.inf, -1e30, 1e30, math.inf, math.nan)


def _same(at: int, other: Any, ask: Callable[[], torch.Tensor], logits: torch.Tensor) -> bool:
    try:
        with Listen(at, other):
            return torch.equal(ask(), logits)
    except torch.OutOfMemoryError:
        raise
    except Exception:  # noqa: BLE001 - a model that raises for another number does something with it
        return False


class Answer(TorchFunctionMode):
    """Answers reads in the order in which they were found; the graph gets an assertion of all but the `idle` ones."""

    def __init__(self, found: list[Any], idle: Collection[int] = ()) -> None:
        super().__init__()
        self.ahead = [(value, at in idle) for at, value in enumerate(found)]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in _READS or not self.ahead:
            return func(*args, **(kwargs or {}))
        value, unused = self.ahead.pop(0)
        if unused:
            return value
        tensor = args[0]
        kind = BRANCH if tensor.dtype is torch.bool or func in _BRANCHES else NUMBER
        as_assumed = (tensor != 0) == bool(value) if kind is BRANCH else tensor == value
        torch._assert_async(as_assumed.reshape(()), kind)
        return value


class Some(TorchFunctionMode):
    """Of rows that are chosen by the tokens there are some: an expert that is left out where it has none (`if
    rows.numel() == 0: continue`) says the same as one that is applied to none."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if func in _CHOOSE:
            for rows in found if isinstance(found, tuple | list) else (found,):
                count: Any = rows.shape[0] if isinstance(rows, torch.Tensor) and rows.dim() else 0
                if isinstance(count, torch.SymInt):
                    torch._check(count >= 1)
        return found


_CHOOSE = frozenset(
    {
        *(torch.where, torch.nonzero, torch.argwhere, torch.Tensor.nonzero, torch.Tensor.argwhere),
        *(torch.Tensor.__getitem__, torch.masked_select, torch.Tensor.masked_select),
    }
)
