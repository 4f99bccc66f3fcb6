"""An operation and what it is given, as a rewrite sees it. UNTRUSTED side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch


class Through(Protocol):
    """Where operations are recorded."""

    def emit(self, func: torch._ops.OpOverload, args: Any, kwargs: dict[str, Any]) -> Any:
        """Record an operation as it is."""

    def known(self, tensor: torch.Tensor, read: Callable[[torch.Tensor], Any] = torch.Tensor.tolist) -> Any:
        """What `read` says of a constant; None if it depends on the tokens."""


class Call(NamedTuple):
    """An operation and what it is given."""

    through: Through
    func: torch._ops.OpOverload
    args: Any
    kwargs: dict[str, Any]

    def named(self) -> dict[str, Any]:
        """Arguments by name, defaults included."""
        return named(self.func, self.args, self.kwargs)

    def first(self, found: Any) -> Any:
        """The result that is meant, beside those that no forward pass reads."""
        count = len(self.func._schema.returns)
        return found if count == 1 else (found,) + (None,) * (count - 1)


Rewrite = Callable[[Call], Any]


def name_of(func: torch._ops.OpOverload) -> str:
    """The name of an operation of ATen's without namespace and overload; of all others with their namespace."""
    return func._schema.name.removeprefix("aten::")


def named(func: torch._ops.OpOverload, args: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments by name, defaults included."""
    arguments = func._schema.arguments
    defaults = {a.name: a.default_value for a in arguments if a.has_default_value()}
    return defaults | dict(zip((a.name for a in arguments), args, strict=False)) | kwargs
