"""One argument of any kind of an operation's schema, by chance."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch

from tests.fuzz_ops import tensors
from tests.fuzz_ops.tensors import COMPLEX, FLOATS, INTEGERS, Tensors
from trainer.evaluator.model.graph import DTYPES, MEMORY_FORMATS

_ALL = tuple(DTYPES.values())
_FEW = (torch.float32, torch.float32, torch.bfloat16, torch.int64, torch.bool)
_NUMBERS = (0, 1, 2, 3, -1, -2, 7, 63, 64, 255, 256, 2**31, -(2**40), True, False)
_REALS = (0.0, -0.0, 1.0, 0.5, -0.5, 2.0, 2.5, -1.0, 1e-45, 1e30, 1e300, float("inf"), float("-inf"), float("nan"))
_WILD = (0, 1, 2, 3, 4, 5, 7, -1, -2, -3, -5, 8, 64, 2**31 - 1, 2**31, 2**62, 2**63 - 1, -(2**31) - 1, -(2**63))
_NAMED: dict[str, tuple[Any, ...]] = {
    "rounding_mode": (None, "floor", "trunc"),
    "approximate": ("none", "tanh"),
    "correction": (None, 0, 1, 2, 0.5, 1.0, -1, 100, True),
    "ord": (2, 1, 0, 0.5, -1, 3, 2.0, float("inf"), float("-inf"), True),
    "eps": (1e-5, 0.0, 1.0, 1, -1.0),
    "scale": (None, 1.0, 0.1, 0.0, -1.0, 2, float("inf")),
    "norm": (None,),
    "train": (False,),
    "accumulate": (False,),
    "dropout_p": (0.0, 0),
    "dropout": (0.0, 0),
    "p": (0.0, 0.5, 1.0, 1),
    "half_to_float": (False, False, False, True),
    "pin_memory": (None, False),
    "padding_idx": (-1, 0, 1),
    "num_classes": (5, 5, 6, 9, 4, -1, 0),
    "output_size": (None,),
    "step": (1, 1, 2, 3, 100),
    "diagonal": (0, 1, -1, 2, -3, 100, -100),
    "offset": (0, 1, -1, 2, -3, 100, -100),
    "k": (0, 1, 2, 3, 5),
    "n": (None, 1, 2, 3, 8, 20),
}


class Draw:
    """Everything random of one call."""

    def __init__(self, rng: random.Random, made: Tensors) -> None:
        self.rng, self.made = rng, made
        self.few = self.often(0.5)  # out of so few shapes and dtypes that the dry run's cache is met

    def often(self, share: float) -> bool:
        """True in this share of the cases."""
        return self.rng.random() < share

    def shape(self, low: int = 0, high: int = 5) -> list[int]:
        """A random shape."""
        return tensors.shape(self.rng, low, high, self.few)

    def dtype(self, kinds: str = "any") -> torch.dtype:
        """A dtype out of float, index, whole, real, any."""
        if kinds == "any" and self.few:
            return self.rng.choice(_FEW)
        if kinds == "any":
            return self.rng.choice(FLOATS if self.often(0.5) else _ALL)
        if kinds == "index":
            return torch.int64 if self.often(0.8) else torch.int32
        return self.rng.choice({"float": FLOATS, "whole": (*INTEGERS, torch.bool)}.get(kinds, FLOATS + INTEGERS))

    def tensor(
        self, size: list[int], dtype: torch.dtype | None = None, between: tuple[int, int] = (-4, 5)
    ) -> torch.Tensor:
        """A tensor of this shape in a random layout."""
        dtype = self.dtype() if dtype is None else dtype
        conj = dtype in COMPLEX and self.often(0.2)
        return self.made.get(dtype, size, tensors.layout(self.rng, size, self.few), between, conj)

    def any(self, low: int = 0, high: int = 5, kinds: str = "any") -> torch.Tensor:
        """A tensor of a random shape; now and then of a dtype that an operation may refuse."""
        return self.tensor(self.shape(low, high), self.dtype(kinds if self.often(0.95) else "any"))

    def index(self, size: list[int], bound: int, negative: bool = True) -> torch.Tensor:
        """Integers that index a dimension of length `bound`."""
        high = max(bound, 1)
        dtype = self.dtype("index") if negative else torch.int64
        return self.tensor(size, dtype, (-high if negative else 0, high))

    def like(self, size: list[int], dtype: torch.dtype | None = None) -> torch.Tensor:
        """A tensor that broadcasts to `size`."""
        return self.tensor(tensors.narrower(self.rng, size), dtype)

    def dim(self, rank: int) -> int:
        """A dimension, counted from either end."""
        rank = max(rank, 1)
        return self.rng.randrange(-rank, rank)

    def dims(self, rank: int) -> list[int]:
        """Distinct dimensions, often all or none."""
        count = self.rng.choice((0, rank, self.rng.randint(0, rank)))
        return [at - rank if self.often(0.4) else at for at in self.rng.sample(range(rank), count)]

    def number(self) -> int | float | bool:
        """Any number."""
        return self.rng.choice(_NUMBERS if self.often(0.5) else _REALS)

    def named(self, name: str, kind: str, rank: int) -> Any:
        """A likely value of an argument, by its name or else by its kind; `rank` is of the first tensor."""
        if name in _NAMED:
            return self.rng.choice(_NAMED[name])
        if kind.startswith("Optional["):
            return None if self.often(0.4) else self.named(name, kind.removeprefix("Optional[")[:-1], rank)
        if kind == "int":
            return self.dim(rank)
        if kind == "List[int]":
            return self.dims(rank)
        return self.kind(kind)

    def kind(self, kind: str, wild: bool = False) -> Any:
        """Any value of a schema type; a wild integer may be huge, but is never of a size that could be allocated."""
        if kind.startswith("Optional["):
            return None if self.often(0.3) else self.kind(kind.removeprefix("Optional[")[:-1], wild)
        if kind.startswith("List["):
            return [self.kind(kind.removeprefix("List[")[:-1], wild) for _ in range(self.rng.randrange(5))]
        values: dict[str, Callable[[], Any]] = {
            "Tensor": lambda: self.number() if self.often(0.3) else self.any(),
            "int": lambda: self.rng.choice(_WILD) if wild else self.rng.randint(-3, 5),
            "float": lambda: self.rng.choice(_REALS if wild else (0.0, 0.5, 1.0)),
            "number": self.number,
            "bool": lambda: self.often(0.5),
            "str": lambda: self.rng.choice(("none", "tanh", "floor", "trunc", "valid", "same")),
            "Device": lambda: self.made.device,
            "ScalarType": self.dtype,
            "MemoryFormat": lambda: self.rng.choice(tuple(MEMORY_FORMATS.values())),
            "Layout": lambda: None,
        }
        return values[kind]()
