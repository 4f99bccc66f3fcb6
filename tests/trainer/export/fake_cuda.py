"""A GPU that is not there: models are traced on fake CUDA tensors, with the values of their constants on the CPU.

What torch's dispatcher makes of a model on CUDA (its attention backends, its fused cells) differs from what it makes of
it on a CPU. A CPU build of torch has no device guards for CUDA, so Python's own methods are called as operations.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from trainer.export import lower, values

aten = torch.ops.aten
CUDA = torch.device("cuda")


@contextmanager
def pretended() -> Iterator[None]:
    """Meanwhile tensors are made on CUDA, and what is real is computed on the CPU."""
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(FakeTensorMode, "from_tensor", _there))
        for module in (values, lower):
            stack.enter_context(mock.patch.object(module, "_disable_current_modes", _on_the_cpu))
        stack.enter_context(CUDA)
        stack.enter_context(_AsOperations())
        yield


def _there(self: FakeTensorMode, real: torch.Tensor, static_shapes: bool | None = None, **_: Any) -> torch.Tensor:
    with _disable_current_modes(), self:
        return torch.empty_strided(real.shape, real.stride(), dtype=real.dtype, device=CUDA)


class _Cpu(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        fake = torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE) is not None  # type: ignore[attr-defined]
        if not fake and kwargs.get("device") is not None and torch.device(kwargs["device"]).type == "cuda":
            kwargs["device"] = torch.device("cpu")
        return func(*args, **kwargs)


@contextmanager
def _on_the_cpu() -> Iterator[None]:
    with _disable_current_modes(), _Cpu():  # type: ignore[no-untyped-call]
        yield


class _AsOperations(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        try:
            return func(*args, **kwargs)
        except RuntimeError as error:
            if "not linked with support for cuda" not in str(error):
                raise
        if func is torch.Tensor.__getitem__:
            view, where = _indexed(*args)
            return aten.index.Tensor(view, where) if where else aten.alias(view)
        if func is torch.Tensor.__setitem__:
            (view, where), value = _indexed(*args[:2]), args[2]
            if not isinstance(value, torch.Tensor):
                value = torch.full((), value, dtype=view.dtype)
            return aten.index_put_(view, where, value.to(view.dtype)) if where else aten.copy_(view, value)
        name = {"__invert__": "bitwise_not", "float": "_to_copy"}.get(func.__name__, func.__name__)
        return getattr(aten, name.removesuffix("__").removeprefix("__"))(*args, **kwargs)


def _indexed(x: torch.Tensor, index: Any) -> tuple[torch.Tensor, list[torch.Tensor | None]]:
    """What Python's indexing makes of a tensor: a view, and tensors that say what is taken of its dimensions."""
    index = list(index) if isinstance(index, tuple) else [index]
    dots = next((at for at, one in enumerate(index) if one is Ellipsis), len(index))
    after = sum(_takes(one) for one in index[dots + 1 :])
    at, where = 0, dict[int, torch.Tensor]()
    for one in index:
        if one is Ellipsis:
            at = x.dim() - after
        elif one is None:
            x, at = x.unsqueeze(at), at + 1
        elif isinstance(one, int):
            x = aten.select.int(x, at, one)
        elif isinstance(one, slice):
            x, at = aten.slice.Tensor(x, at, one.start, one.stop, one.step or 1), at + 1
        else:
            where[at] = one if isinstance(one, torch.Tensor) else torch.tensor(one)
            at += _takes(one)
    return x, [where.get(dim) for dim in range(max(where, default=-1) + 1)]


def _takes(one: Any) -> int:
    """How many dimensions an index stands for."""
    if one is None:
        return 0
    return one.dim() if isinstance(one, torch.Tensor) and one.dtype is torch.bool else 1
