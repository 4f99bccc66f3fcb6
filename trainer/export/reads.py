"""Numbers that forward reads from tensors (`assert x.isfinite().all()`, `if x.any():`, `x.item()`). UNTRUSTED side.

A graph has no branches. So the model runs once on real tokens, which tells every number it reads; while it is
exported, the same numbers are the answers, and the graph holds what was assumed: a check that the evaluator makes of
every row (or, of a number that depends on parameters alone, nothing: it is what it is).
"""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

BRANCH, NUMBER = "branch", "number"  # messages of the assertions in the exported graph
_BRANCHES = frozenset({torch.Tensor.__bool__, torch.is_nonzero})
_READS = _BRANCHES | {torch.Tensor.__int__, torch.Tensor.__float__, torch.Tensor.__index__, torch.Tensor.item}


class Listen(TorchFunctionMode):
    """Remembers, in order, what is read from tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Any] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in _READS:
            self.found.append(result)
        return result


class Answer(TorchFunctionMode):
    """Answers reads in the order in which they were found, and leaves an assertion of each in the graph."""

    def __init__(self, found: list[Any]) -> None:
        super().__init__()
        self.ahead = list(found)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in _READS or not self.ahead:
            return func(*args, **(kwargs or {}))
        value = self.ahead.pop(0)
        tensor = args[0]
        kind = BRANCH if tensor.dtype is torch.bool or func in _BRANCHES else NUMBER
        as_assumed = (tensor != 0) == bool(value) if kind is BRANCH else tensor == value
        torch._assert_async(as_assumed.reshape(()), kind)
        return value
