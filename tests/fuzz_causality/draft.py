"""A graph being written: every operation is run on one batch of tokens as it is appended."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tests.evaluator.build import CPU, Build
from trainer.evaluator.model import graph
from trainer.evaluator.model.graph import DTYPES, substitute

STRIDED = 0.2  # of the weights that are not dense
MAX_ELEMENTS = 20_000  # of one value
MAX_OUTPUTS = 64
KEEP_EMPTY = 0.2  # how often a value without elements is let in: little can be found behind it
KEEP_STRAY = 0.2

Call = tuple[list[Any], dict[str, Any]]
Fits = Callable[[Tensor], bool]
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
FLOATS = ("float32", "float32", "float32", "bfloat16", "float16", "float64")
INTEGERS = (0, 1, 2, 3, -1, -2, 5, 7, 63, 64, 127, 128, 255, 256, 32767, 2**31 - 1, 2**31, 2**40, True, False)
NUMBERS = (
    0.0, -0.0, 1.0, -1.0, 2.0, 0.5, -0.5, 3.0, 1e-3, 1e-30, 1e-45, 1e-300, 1e30, 1e300, -1e300, 1e7, 1e10, 65504.0,
    math.inf, -math.inf, math.nan, 0, 1, 2, -1, True,
)  # fmt: skip


class Unfit(Exception):
    """No value in the graph suits this operation."""


@dataclass(frozen=True)
class Sizes:
    """Of the input and of the model around it."""

    rows: int
    seq: int
    vocab: int
    dim: int


@dataclass(frozen=True)
class Value:
    """A value of the graph: how arguments name it, and what it is for the tokens of the draft."""

    ref: dict[str, int]
    tensor: Tensor


def call(*args: Any, **kwargs: Any) -> Call:
    """Positional and keyword arguments, as the format writes them."""
    return list(args), kwargs


def literal(value: Any) -> Any:
    """A number as the format writes it."""
    return {"f": str(value)} if isinstance(value, float) and not math.isfinite(value) else value


def is_float(t: Tensor) -> bool:
    return t.is_floating_point()


def is_inexact(t: Tensor) -> bool:
    return t.is_floating_point() or t.is_complex()


def is_bool(t: Tensor) -> bool:
    return bool(t.dtype is torch.bool)


def is_index(t: Tensor) -> bool:
    return t.dtype in (torch.int64, torch.int32)


def is_long(t: Tensor) -> bool:
    return t.dtype is torch.int64


def broadcasts(a: Any, b: Any) -> bool:
    """Whether two shapes broadcast to one that is not too large."""
    try:
        return bool(math.prod(torch.broadcast_shapes(a, b)) <= MAX_ELEMENTS)
    except RuntimeError:
        return False


class Draft:
    """Weights, operations and their values so far, and the random choices made over them."""

    def __init__(self, rng: random.Random, sizes: Sizes, weights: dict[str, Tensor]) -> None:
        self.rng, self.sizes = rng, sizes
        self.build = Build(sizes.seq, sizes.vocab, sizes.rows, **weights)
        generator = torch.Generator().manual_seed(rng.randrange(1 << 30))
        tokens = torch.randint(0, sizes.vocab, (sizes.rows, sizes.seq), generator=generator)
        self.tokens = Value(self.build.idx, tokens)
        self.named = {name: Value(ref, weights[name]) for name, ref in self.build.ids.items()}
        self.pool = [self.tokens, *self.named.values()]
        self.moving = [self.tokens]  # what depends on the tokens
        self.output = self.build.idx
        self.stray: dict[str, Any] | None = None  # one operation that did not run: the dry run may think otherwise
        self._real: dict[int, Any] = {value.ref["t"]: value.tensor for value in self.pool}

    def emit(self, operation: str, *args: Any, **kwargs: Any) -> list[Value]:
        """Append an operation if it runs; its values, none if it does not."""
        entry: dict[str, Any] = {"op": f"aten.{operation}", "a": list(args)} | ({"k": kwargs} if kwargs else {})
        try:
            node = graph._node(entry, self.build.next, CPU)
            with torch.no_grad():
                given = [substitute(x, self._real) for x in node.args]
                result = node.op(*given, **{k: substitute(v, self._real) for k, v in node.kwargs.items()})
        except Exception:  # refused, or the operation rejects its arguments
            if self.rng.random() < KEEP_STRAY:
                self.stray = entry
            return []
        tensors = list(result) if node.many else [result]
        if not 0 < len(tensors) <= MAX_OUTPUTS or not all(map(self._usable, tensors)):
            return []
        first = self.build.op(operation, *args, n=len(tensors), **kwargs)["t"]
        values = [Value({"t": first + at}, tensor) for at, tensor in enumerate(tensors)]
        self._real.update((value.ref["t"], value.tensor) for value in values)
        self.pool += values
        moving = {value.ref["t"] for value in self.moving}
        if not moving.isdisjoint(node.refs):
            self.moving += values
        return values

    def need(self, operation: str, *args: Any, **kwargs: Any) -> Value:
        """The first value of an operation; Unfit if it does not run."""
        values = self.emit(operation, *args, **kwargs)
        if not values:
            raise Unfit(operation)
        return values[0]

    def _usable(self, tensor: Any) -> bool:
        if not isinstance(tensor, Tensor) or tensor.dtype not in DTYPE_NAMES:
            return False
        if tensor.numel() > MAX_ELEMENTS or tensor.dim() > 8:
            return False
        return tensor.numel() > 0 or self.rng.random() < KEEP_EMPTY

    def weight(self, name: str) -> Value:
        """A weight by name; not every draft has all."""
        if name not in self.named:
            raise Unfit(name)
        value = self.named[name]
        return self._laid_out(value) if is_float(value.tensor) and self.rng.random() < STRIDED else value

    def _laid_out(self, value: Value) -> Value:
        """The same numbers at other places of memory, or, one time in three, one of them for a whole dimension."""
        shape = list(value.tensor.shape)
        if not shape or 0 in shape:
            return value
        way, dim = self.rng.randrange(3), self.rng.randrange(len(shape))
        if way == 0:
            return self.need("expand.default", self.need("slice.Tensor", value.ref, dim, 0, 1).ref, shape)
        if way == 1:
            return self.need("select.int", self.need("stack.default", [value.ref, value.ref], -1).ref, -1, 0)
        turned = self.need("transpose.int", value.ref, dim, -1)
        return self.need("transpose.int", self.need("clone.default", turned.ref).ref, dim, -1)

    def pick(self, fits: Fits | None = None, recent: float = 0.6) -> Value:
        """Any value that fits, rather a late one, rather one that depends on the tokens."""
        for _ in range(14):
            pool = self.moving if self.rng.random() < 0.6 else self.pool
            if self.rng.random() < recent:
                value = pool[-1 - min(len(pool) - 1, int(self.rng.expovariate(0.18)))]
            else:
                value = self.rng.choice(pool)
            if fits is None or fits(value.tensor):
                return value
        raise Unfit("no value fits")

    def beside(self, value: Value) -> Value:
        """Any value that broadcasts with this one."""
        return self.pick(lambda t: broadcasts(t.shape, value.tensor.shape), 0.5)

    def maybe(self, chance: float, fits: Fits, recent: float = 0.6) -> dict[str, int] | None:
        """A reference to a value that fits, or none."""
        if self.rng.random() >= chance:
            return None
        try:
            return self.pick(fits, recent).ref
        except Unfit:
            return None

    def number(self, like: Tensor | None = None) -> Any:
        """A number, often of the kind a tensor has."""
        if like is not None and not is_inexact(like) and self.rng.random() < 0.7:
            return self.rng.choice(INTEGERS)
        return literal(self.rng.choice(NUMBERS))

    def dim(self, tensor: Tensor) -> int:
        """A dimension, counted from either end."""
        rank = max(1, tensor.dim())
        return self.rng.randrange(-rank, rank)

    def dims(self, tensor: Tensor) -> list[int]:
        """Some dimensions, each once, each counted from either end."""
        rank = tensor.dim()
        chosen = self.rng.sample(range(rank), self.rng.randint(0, rank))
        return [d - rank if self.rng.random() < 0.5 else d for d in chosen]

    def flag(self, chance: float = 0.5) -> bool:
        return self.rng.random() < chance

    def float_type(self) -> dict[str, str]:
        return {"d": self.rng.choice(FLOATS)}

    def any_type(self) -> dict[str, str]:
        return {"d": self.rng.choice(list(DTYPES))}

    def shape(self) -> list[int]:
        """A shape of sizes that occur elsewhere in the graph."""
        s = self.sizes
        sizes = (1, s.rows, s.seq, s.dim, 1, s.rows, s.seq, s.dim, 0)
        return [self.rng.choice(sizes) for _ in range(self.rng.randint(0, 3))]
