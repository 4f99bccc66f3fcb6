"""Arguments of operations that move, repeat or create elements."""

from __future__ import annotations

import math
from typing import Any

import torch

from tests.fuzz_ops.draw import Draw
from tests.fuzz_ops.tensors import contiguous

Named = dict[str, Any]


def _divisor(d: Draw, number: int) -> int:
    return d.rng.choice([x for x in range(1, number + 1) if number % x == 0] or [1])


def viewed(d: Draw, name: str) -> Named:
    """view, reshape, _unsafe_view: the same elements in another shape, one of them perhaps -1."""
    x = d.any()
    if d.often(0.5):
        x = d.tensor(list(x.shape), x.dtype)
    size, left = list[int](), x.numel()
    while left > 1 and len(size) < 5 and d.often(0.7):
        size.append(_divisor(d, left))
        left //= size[-1]
    size.append(left)
    if len(size) == 1 and left == 1 and d.often(0.5):
        size = []
    size += [1] * d.rng.randrange(2)
    d.rng.shuffle(size)
    if size and d.often(0.3):
        size[d.rng.randrange(len(size))] = -1
    return {"self": x, "shape" if name == "reshape" else "size": size}


def unsqueeze(d: Draw, _: str) -> Named:
    """One place more than there are dimensions."""
    x = d.any()
    return {"self": x, "dim": d.dim(x.dim() + 1)}


def two_dims(d: Draw, name: str) -> Named:
    """transpose, diagonal, movedim.int, flatten."""
    x = d.any(2 if name == "diagonal" and d.often(0.9) else 0)
    one, two = d.dim(x.dim()), d.dim(x.dim())
    low, high = sorted((one, two), key=lambda at: at % max(x.dim(), 1))
    named = {"dim0": one, "dim1": two, "source": one, "destination": two, "start_dim": low, "end_dim": high}
    if name == "diagonal" and x.dim() > 1:
        named["dim1"], named["dim2"] = (at + d.rng.choice((0, x.dim())) for at in d.rng.sample(range(-x.dim(), 0), 2))
    return {"self": x, **named}


def permuted(d: Draw, _: str) -> Named:
    """permute and movedim.intlist."""
    x = d.any()
    order = [at - x.dim() if d.often(0.3) else at for at in d.rng.sample(range(x.dim()), x.dim())]
    count = d.rng.randint(0, x.dim())
    return {"self": x, "dims": order, "source": order[:count], "destination": d.rng.sample(range(x.dim()), count)}


def expand(d: Draw, _: str) -> Named:
    """Ones widened, sizes kept or -1, dimensions added in front."""
    x = d.any(0, 4)
    size = [d.rng.choice((1, 2, 4, 0)) if n == 1 and d.often(0.6) else -1 if d.often(0.3) else n for n in x.shape]
    return {"self": x, "size": [d.rng.choice((1, 2, 3, 0)) for _ in range(d.rng.randrange(3))] + size}


def sliced(d: Draw, name: str) -> Named:
    """slice, slice_scatter, select, select_scatter, and an upstream `src` of the right shape."""
    x = d.any(0 if d.often(0.1) else 1)
    dim = d.dim(x.dim())
    length = x.shape[dim] if x.dim() else 1
    ends = (None, 0, 1, -1, 2, -2, length, length + 3, -length, -length - 4, 2**31, 2**63 - 1, -(2**63))
    named: Named = {"self": x, "dim": dim, "index": d.rng.randrange(-max(length, 1), max(length, 1))}
    named |= {"start": d.rng.choice(ends), "end": d.rng.choice(ends), "step": d.rng.choice((1, 1, 2, 3, 50, 2**62))}
    if name == "slice_scatter" and x.dim():
        size = list(x.shape)
        size[dim] = len(range(length)[slice(named["start"], named["end"], named["step"])])
        named["src"] = d.tensor(size, x.dtype if d.often(0.7) else None)
    if name == "select_scatter" and x.dim():
        named["src"] = d.tensor([n for at, n in enumerate(x.shape) if at != dim % x.dim()])
    return named


def joined(d: Draw, name: str) -> Named:
    """cat and stack: shapes that agree but for the joined dimension; cat also of empty vectors."""
    size = d.shape(1 if name == "cat" else 0, 4)
    dim = d.dim(len(size) + (name == "stack"))
    parts = []
    dtype = d.dtype()
    for _ in range(d.rng.randint(1, 4)):
        part = list(size)
        if name == "cat":
            part[dim] = d.rng.randrange(4)
            part = [0] if d.often(0.1) else part
        parts.append(d.tensor(part, dtype if d.often(0.7) else None))
    return {"tensors": parts, "dim": dim}


def cut(d: Draw, _: str) -> Named:
    """split, split_with_sizes, chunk, unbind, unflatten."""
    x = d.any(0 if d.often(0.05) else 1)
    dim = d.dim(x.dim())
    left = x.shape[dim] if x.dim() else 1
    one = _divisor(d, left)
    factors = [one, left // one if left else 0] + [1] * d.rng.randrange(2)
    if d.often(0.4):
        factors[d.rng.randrange(len(factors))] = -1
    sizes = list[int]()
    while left > 0 and len(sizes) < 5:
        sizes.append(d.rng.randint(0, left))
        left -= sizes[-1]
    named = {"split_size": d.rng.choice((0, 1, 2, 3, 7, 2**62)), "chunks": d.rng.choice((1, 2, 3, 5, 9, 0))}
    return {"self": x, "dim": dim, "split_sizes": [*sizes, left], "sizes": factors, **named}


def repeated(d: Draw, name: str) -> Named:
    """repeat, repeat_interleave and roll."""
    x = d.any(0, 4)
    if name == "repeat_interleave":
        dim = None if d.often(0.3) else d.dim(x.dim())
        count = d.rng.choice((0, 1, 2, 3))
        whole = x.numel() if dim is None else x.shape[dim] if x.dim() else 1
        return {"self": x, "repeats": count, "dim": dim, "output_size": d.rng.choice((None, count * whole))}
    dims = d.dims(x.dim())
    shifts = [d.rng.choice((0, 1, -1, 4, -9, 2**40)) for _ in dims or [0]]
    repeats = [d.rng.choice((0, 1, 1, 2, 3)) for _ in range(x.dim() + d.rng.randrange(2))]
    return {"self": x, "repeats": repeats, "shifts": shifts, "dims": dims}


def padded(d: Draw, _: str) -> Named:
    """Padding and cropping of the last dimensions."""
    x = d.any(0, 4)
    pad = [d.rng.choice((0, 0, 1, 2, -1, -2)) for _ in range(2 * d.rng.randint(0, x.dim()))]
    return {"self": x, "pad": pad, "value": d.number()}


def unfold(d: Draw, _: str) -> Named:
    """Windows along one dimension."""
    x = d.any(0, 4)
    dim = d.dim(x.dim())
    size = d.rng.randint(0, x.shape[dim] if x.dim() else 1)
    return {"self": x, "dimension": dim, "size": size, "step": d.rng.choice((1, 1, 2, 3, 2**40))}


def copied(d: Draw, _: str) -> Named:
    """A source that broadcasts to the target."""
    x = d.any()
    return {"self": x, "src": d.like(list(x.shape))}


def pairs(d: Draw, _: str) -> Named:
    """view_as_complex: real and imaginary parts side by side."""
    size = [*d.shape(0, 4), 2]
    x = d.tensor(size, torch.float32 if d.often(0.8) else d.dtype("float"))
    return {"self": d.made.get(x.dtype, size, contiguous(size), (0, 1)) if d.often(0.5) else x}


def matrix(d: Draw, _: str) -> Named:
    """t: at most two dimensions."""
    return {"self": d.any(0, 2)}


def ranged(d: Draw, _: str) -> Named:
    """arange: integers and fractions, ends on and just beside a whole number of steps, beyond 2**53."""
    whole = d.often(0.5)
    start = d.rng.choice((0, 1, -3, 2**53, -(2**62), True) if whole else (0.0, 0.1, -2.5, 1e16, 0.3))
    step = d.rng.choice((1, 2, -1, 3, 2**40) if whole or d.often(0.2) else (0.1, 0.5, -0.3, 1 / 3, 1e-7))
    end = start + d.rng.randint(0, 50) * step
    if not math.isfinite(float(end)) or d.often(0.1):
        end = d.rng.randint(0, 50)
    beside = (end, end + step / 3, math.nextafter(float(end), math.inf), math.nextafter(float(end), -math.inf))
    end = d.rng.choice(beside) if d.often(0.4) else end
    if abs(end - start) / abs(step) > 1e4:
        start, end, step = 0, 5, 1
    return (
        {"start": start, "end": end, "step": step}
        if d.often(0.8)
        else {"start": 0, "end": d.rng.random() * 9, "step": 1}
    )


def created(d: Draw, _: str) -> Named:
    """full, zeros, ones, eye and new_*."""
    return {"self": d.any(), "size": d.shape(), "n": d.rng.choice((0, 1, 3, 7)), "fill_value": d.number()}
