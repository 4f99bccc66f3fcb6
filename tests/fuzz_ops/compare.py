"""One call on real and on fake tensors, run as the evaluator runs them, and how the two differ."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from trainer.evaluator.model import kernels
from trainer.evaluator.model.arguments import Ref
from trainer.evaluator.model.graph import DTYPES, Node, substitute
from trainer.evaluator.model.program import MAX_RANK

MAX_RESULT = 1_000_000  # elements; what the dry run says is larger is not made for real
_DTYPES = frozenset(DTYPES.values())


@dataclass(frozen=True)
class Outcome:
    """What an operation returned, or the error it raised."""

    outputs: list[tuple[tuple[int, ...], torch.dtype | None, str]] = field(default_factory=list)
    error: str = ""

    def refused(self) -> bool:
        """Whether the dry run stops at this value, whatever comes later."""
        return any(dtype not in _DTYPES or len(shape) > MAX_RANK for shape, dtype, _ in self.outputs)

    def large(self) -> bool:
        """Whether making it would take too much memory here."""
        return any(torch.Size(shape).numel() > MAX_RESULT for shape, *_ in self.outputs)

    def __str__(self) -> str:
        made = (f"{str(dtype).removeprefix('torch.')}{list(shape)}" for shape, dtype, _ in self.outputs)
        return self.error or ", ".join(made)


def difference(real: Outcome, fake: Outcome) -> str | None:
    """The first kind of difference between two results."""
    if len(real.outputs) != len(fake.outputs):
        return "count"
    for at, kind in enumerate(("shape", "dtype", "device")):
        if [x[at] for x in real.outputs] != [x[at] for x in fake.outputs]:
            return kind
    return None


class Dry:
    """Operations on fake tensors, in one mode that lasts, as in a dry run."""

    def __init__(self, cache: bool = True) -> None:
        self.mode = FakeTensorMode()
        self.mode.cache_enabled = self.mode.cache_enabled and cache
        self._flops = FlopCounterMode(display=False)
        self._fakes: dict[tuple[object, ...], torch.Tensor] = {}

    def run(self, op: torch._ops.OpOverload, args: list[Any], kwargs: dict[str, Any]) -> Outcome:
        """The operation on fakes of the given tensors."""
        args, kwargs = self._faked(args), {name: self._faked(value) for name, value in kwargs.items()}
        with self.mode, self._flops:
            return run(op, args, kwargs)

    def _faked(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._faked(x) for x in value]
        if not isinstance(value, torch.Tensor):
            return value
        key = (value.dtype, value.shape, value.stride(), value.is_conj(), value.device)
        if key not in self._fakes:
            if len(self._fakes) > 20_000:
                self._fakes.clear()
            self._fakes[key] = self.mode.from_tensor(value)
        return self._fakes[key]


def many(op: torch._ops.OpOverload) -> bool:
    """Whether the parser lets a node of this operation have several outputs."""
    returns = op._schema.returns
    return len(returns) != 1 or str(returns[0].type) != "Tensor"


def run(op: torch._ops.OpOverload, args: list[Any], kwargs: dict[str, Any]) -> Outcome:
    """The operation on whatever tensors it is given, outputs taken as the evaluator's Node takes them."""
    return _outcome(lambda: _results(op, op(*args, **kwargs)))


def real(op: torch._ops.OpOverload, args: list[Any], kwargs: dict[str, Any]) -> Outcome:
    """The operation on real tensors, by the kernels that the evaluator chooses."""
    values: dict[int, Any] = {}
    node = _Any(op, _referred(args, values), {k: _referred(v, values) for k, v in kwargs.items()}, 0, 1, many(op), ())
    node = replace(node, refs=tuple(values))
    return _outcome(lambda: [value for _, value in kernels.run(node, values)])


class _Any(Node):
    """A node that may have any number of outputs, tensors or not: how many there are is compared."""

    def run(self, values: dict[int, Any]) -> Iterator[tuple[int, Any]]:
        """Apply the operation to `values`."""
        kwargs = {k: substitute(v, values) for k, v in self.kwargs.items()}
        yield from enumerate(_results(self.op, self.op(*[substitute(x, values) for x in self.args], **kwargs)))


def _referred(value: Any, values: dict[int, Any]) -> Any:
    if isinstance(value, list):
        return [_referred(x, values) for x in value]
    if not isinstance(value, torch.Tensor):
        return value
    values[len(values)] = value
    return Ref(len(values) - 1)


def _results(op: torch._ops.OpOverload, result: Any) -> list[Any]:
    return list(result) if many(op) else [result]


def _outcome(call: Callable[[], list[Any]]) -> Outcome:
    try:
        with torch.no_grad():
            return Outcome(list(_described(call())))
    except Exception as error:
        return Outcome(error=f"{type(error).__name__}: {error}".splitlines()[0][:200])


def _described(results: list[Any]) -> Iterable[tuple[tuple[int, ...], torch.dtype | None, str]]:
    for result in results:
        if isinstance(result, torch.Tensor):
            yield tuple(result.shape), result.dtype, result.device.type
        else:
            yield (), None, type(result).__name__


def shown(value: Any) -> Any:
    """Arguments in few words: a tensor as its dtype, shape and, unless contiguous, strides."""
    if isinstance(value, torch.Tensor):
        text = f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
        return text if value.is_contiguous() else f"{text}/{list(value.stride())}"
    if isinstance(value, list):
        return "[" + ", ".join(shown(x) for x in value) + "]"
    return repr(value)
