"""Arguments of pointwise operations, reductions and indexing."""

from __future__ import annotations

from typing import Any

import torch

from tests.fuzz_ops import tensors
from tests.fuzz_ops.draw import Draw

Named = dict[str, Any]


def pointwise(d: Draw, _: str) -> Named:
    """Three tensors that broadcast, mostly of one dtype; the schema says which of them are taken."""
    size, dtype = d.shape(), d.dtype()

    def one() -> torch.Tensor:
        return d.like(size, dtype if d.often(0.5) else None)

    names = ("self", "other", "tensor1", "tensor2", "end", "weight", "exponent", "min", "max")
    named: Named = {name: one() for name in names}
    named |= {"abs": one(), "angle": one(), "real": one(), "imag": one()}
    return named | {"condition": d.like(size, torch.bool if d.often(0.9) else None)}


def bits(d: Draw, name: str) -> Named:
    """Bitwise operations: whole numbers, mostly."""
    if d.often(0.1):
        return pointwise(d, name)
    size, dtype = d.shape(), d.dtype("whole")
    one, two = (d.like(size, dtype if d.often(0.6) else d.dtype("whole")) for _ in range(2))
    return {"self": one, "other": two if d.often(0.9) else d.rng.choice((1, True, 3))}


def bits_by_number(d: Draw, name: str) -> Named:
    """The same with a number."""
    return bits(d, name) | {"other": d.number() if d.often(0.1) else d.rng.choice((0, 1, 2, 3, -1, 7, 64, True))}


def alike(d: Draw, name: str) -> Named:
    """Tensors of one float dtype that broadcast, as lerp and clamp want them."""
    if d.often(0.1):
        return pointwise(d, name)
    size, dtype = d.shape(), d.dtype("float")
    return {x: d.like(size, dtype) for x in ("self", "end", "weight", "min", "max")}


def turned(d: Draw, _: str) -> Named:
    """_conj and view_as_real: complex numbers."""
    return {"self": d.tensor(d.shape(), torch.complex64 if d.often(0.9) else None)}


def one(d: Draw, _: str) -> Named:
    """One tensor; everything else by its kind."""
    x = d.any(0, 5, d.rng.choice(("any", "float")))
    return {"self": x, "input": x}


def filled(d: Draw, _: str) -> Named:
    """masked_fill: a mask, and a value of no dimensions."""
    size = d.shape()
    return {"self": d.like(size), "mask": d.like(size, torch.bool), "value": d.tensor([])}


def parts(d: Draw, _: str) -> Named:
    """complex and polar: two floats of one dtype."""
    size, dtype = d.shape(), torch.float32 if d.often(0.8) else d.dtype("float")
    one, two = d.like(size, dtype), d.like(size, dtype)
    return {"abs": one, "angle": two, "real": one, "imag": two}


def halved(d: Draw, _: str) -> Named:
    """glu: an even dimension."""
    size = d.shape(1, 4)
    dim = d.dim(len(size))
    size[dim] *= 2
    return {"self": d.tensor(size, d.dtype("float")), "dim": dim}


def embedding(d: Draw, _: str) -> Named:
    """A table and tokens of any shape."""
    table = d.any(2, 2) if d.often(0.9) else d.any()
    return {"weight": table, "indices": d.index(d.shape(0, 3), table.shape[0] if table.dim() else 1, negative=False)}


def indexed(d: Draw, name: str) -> Named:
    """index and index_put: integers and None in any order, of shapes that broadcast, masks now and then."""
    x = d.any(0 if d.often(0.1) else 1)
    common, indices = d.shape(0, 3), list[Any]()
    count = d.rng.randint(0 if d.often(0.1) else min(1, x.dim()), x.dim())
    for at, length in enumerate(x.shape[:count]):
        if d.often(0.3) and (at < count - 1 or d.often(0.3)):
            indices.append(None)
        elif name == "index_put" and d.often(0.1):
            indices.append(d.tensor([length], torch.bool))
        else:
            indices.append(d.index(tensors.narrower(d.rng, common), length))
    values = d.tensor(d.shape(0, 1) if d.often(0.2) else [], x.dtype)
    return {"self": x, "indices": indices, "values": values}


def selected(d: Draw, name: str) -> Named:
    """index_select and index_add: one dimension by a vector, or by a single number."""
    x = d.any(0 if d.often(0.1) else 1)
    dim = d.dim(x.dim())
    length = x.shape[dim] if x.dim() else 1
    count = d.rng.randrange(5)
    size = list(x.shape)
    if size:
        size[dim] = count
    number = d.often(0.15) and (name == "index_select" or count == 1 or not size)
    index = d.index([] if number else [count], length, negative=False)
    return {"self": x, "dim": dim, "index": index, "source": d.tensor(size, x.dtype if d.often(0.9) else None)}


def gathered(d: Draw, name: str) -> Named:
    """gather, scatter and scatter_add: an index no larger than what it reads or writes."""
    x = d.any()
    dim = d.dim(x.dim())
    length = x.shape[dim] if x.dim() else 1
    size = [d.rng.randint(0 if d.often(0.1) else min(1, n), n) for n in x.shape]
    if size:
        size[dim] = d.rng.randrange(6)
    larger = [n + d.rng.randrange(2) for n in size]
    if d.often(0.1):
        size = [] if x.dim() else [d.rng.randrange(3)]
    named: Named = {"self": x, "dim": dim, "index": d.index(size, length, negative=False)}
    return named | {"src": d.tensor(larger, x.dtype if d.often(0.95) else None), "value": d.number()}


def along(d: Draw, _: str) -> Named:
    """take_along_dim: the other dimensions broadcast."""
    x = d.any(1)
    dim = None if d.often(0.2) else d.dim(x.dim())
    if dim is None:
        return {"self": x, "indices": d.index(d.shape(1, 1), x.numel(), negative=False), "dim": None}
    size = [n if d.often(0.7) else 1 for n in x.shape]
    size[dim] = d.rng.randrange(5)
    return {"self": x, "indices": d.index(size, x.shape[dim], negative=False), "dim": dim}


def largest(d: Draw, _: str) -> Named:
    """topk: at most as many as there are."""
    x = d.any(0, 4)
    dim = d.dim(x.dim())
    return {"self": x, "dim": dim, "k": d.rng.randint(0, x.shape[dim] if x.dim() else 1)}


def classes(d: Draw, _: str) -> Named:
    """one_hot of small numbers."""
    return {"self": d.tensor(d.shape(0, 4), torch.int64, (0, 5))}


def transformed(d: Draw, name: str) -> Named:
    """fft_rfft of numbers; fft_irfft also of complex ones."""
    complex_input = name == "fft_irfft" and d.often(0.6)
    dtype = torch.complex64 if complex_input else d.rng.choice((torch.float32, torch.float64, d.dtype()))
    x = d.tensor(d.shape(1), dtype)
    return {"self": x, "dim": d.dim(x.dim())}
