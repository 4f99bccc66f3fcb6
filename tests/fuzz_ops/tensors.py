"""Input tensors by the thousand: every dtype, rank and memory layout, from a few shared buffers."""

from __future__ import annotations

import math
import random

import torch

from trainer.evaluator.model.graph import DTYPES

CPU = torch.device("cpu")
FLOATS = tuple(dtype for dtype in DTYPES.values() if dtype.is_floating_point)
COMPLEX = tuple(dtype for dtype in DTYPES.values() if dtype.is_complex)
INTEGERS = tuple(x for x in DTYPES.values() if x not in FLOATS and x not in COMPLEX and x is not torch.bool)
MAX_ELEMENTS = 2000  # of one input
_BUFFER = 2 * MAX_ELEMENTS  # a layout may skip every other element
_KEPT = 20_000  # tensors remembered, so that the dry run's cache is met as often as missed
_SIZES = (0, 1, 1, 1, 2, 2, 2, 3, 3, 4, 5, 7)
_RANKS = (0, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 5)
_FEW_SIZES, _FEW_RANKS = (0, 1, 2, 3), (0, 1, 1, 2, 2, 3)


class Tensors:
    """Tensors by dtype, size and stride; equal questions get the same tensor."""

    def __init__(self, device: torch.device = CPU) -> None:
        self.device = device
        self._buffers: dict[tuple[object, ...], torch.Tensor] = {}
        self._made: dict[tuple[object, ...], torch.Tensor] = {}

    def get(
        self, dtype: torch.dtype, size: list[int], stride: list[int], between: tuple[int, int], conj: bool = False
    ) -> torch.Tensor:
        """The tensor with this layout; its integers are from low to below high."""
        key = (dtype, tuple(size), tuple(stride), between, conj)
        if key not in self._made:
            if len(self._made) >= _KEPT:
                self._made.clear()
            storage = self._buffer(dtype, between).untyped_storage()
            made = torch.empty(0, dtype=dtype, device=self.device).set_(storage, 0, size, stride)  # not a view
            self._made[key] = made.conj() if conj else made
        return self._made[key]

    def _buffer(self, dtype: torch.dtype, between: tuple[int, int]) -> torch.Tensor:
        key = (dtype, between)
        if key not in self._buffers:
            random_numbers = torch.Generator().manual_seed(sum(between))
            if dtype in FLOATS or dtype in COMPLEX:
                made = torch.complex64 if dtype in COMPLEX else torch.float32
                buffer = torch.randn(_BUFFER, generator=random_numbers, dtype=made).to(dtype)
            elif dtype is torch.bool:
                buffer = torch.rand(_BUFFER, generator=random_numbers) < 0.5
            else:
                low, high = max(between[0], 0) if dtype is torch.uint8 else between[0], between[1]
                buffer = torch.randint(low, high, (_BUFFER,), generator=random_numbers).to(dtype)
            self._buffers[key] = buffer.to(self.device)
        return self._buffers[key]


def shape(rng: random.Random, low: int = 0, high: int = 5, few: bool = False) -> list[int]:
    """A shape of rank low to high; zero sizes are common and large ones rare. Or one of a few shapes."""
    rank = rng.choice([x for x in (_FEW_RANKS if few else _RANKS) if low <= x <= high] or [low])
    zero, lengths = rng.random() < 0.1, _FEW_SIZES if few else _SIZES
    sizes = [rng.choice(lengths if zero else lengths[1:]) for _ in range(rank)]
    while math.prod(sizes) > MAX_ELEMENTS:
        sizes[rng.randrange(rank)] = 1
    return sizes


def contiguous(size: list[int]) -> list[int]:
    """Strides of a contiguous tensor."""
    strides, step = [], 1
    for length in reversed(size):
        strides.append(step)
        step *= max(length, 1)
    return strides[::-1]


def layout(rng: random.Random, size: list[int], few: bool = False) -> list[int]:
    """Strides for `size`: contiguous, transposed, expanded or with gaps."""
    kind = rng.random()
    if kind < 0.5 or len(size) == 0 or (few and kind < 0.9):
        return contiguous(size)
    if kind < 0.7:
        order = rng.sample(range(len(size)), len(size))
        inner = contiguous([size[at] for at in order])
        return [inner[order.index(at)] for at in range(len(size))]
    strides = contiguous(size)
    if kind < 0.85:
        return [0 if rng.random() < 0.5 else step for step in strides]
    return [2 * step for step in strides]


def narrower(rng: random.Random, size: list[int]) -> list[int]:
    """A shape that broadcasts to `size`."""
    kind = rng.random()
    if kind < 0.5:
        return list(size)
    kept = size[rng.randrange(len(size) + 1) :]
    return [1 if rng.random() < 0.3 else length for length in kept]
