"""Arguments of products, convolutions, attention, normalisation and recurrence."""

from __future__ import annotations

import math
from typing import Any

import torch

from tests.fuzz_ops import tensors
from tests.fuzz_ops.draw import Draw

Named = dict[str, Any]


def _size(d: Draw) -> int:
    return d.rng.choice((0, 1, 2, 3, 4, 6)) if d.often(0.3) else d.rng.choice((1, 2, 3, 4))


class _Same:
    """Tensors of one dtype, but for a few."""

    def __init__(self, d: Draw) -> None:
        self.d, self.dtype = d, d.dtype("float" if d.often(0.7) else "any")

    def __call__(self, *size: int) -> torch.Tensor:
        return self.d.tensor(list(size), self.dtype if self.d.often(0.97) else None)


def product(d: Draw, name: str) -> Named:
    """mm, bmm, mv, dot, outer, addmm, baddbmm."""
    t, b, n, k, m = _Same(d), _size(d), _size(d), _size(d), _size(d)
    if name in ("mv", "dot", "outer"):
        self = t(n, k) if name == "mv" else t(k) if name == "dot" else t(n)
        return {"self": self, "vec": t(k), "tensor": t(k), "vec2": t(m)}
    batch = [b] if name in ("bmm", "baddbmm") else []
    one, two = t(*batch, n, k), t(*batch, k, m)
    if name in ("mm", "bmm"):
        return {"self": one, "mat2": two}
    added = t(*tensors.narrower(d.rng, [*batch, n, m]))
    return {"self": added, "mat1": one, "mat2": two, "batch1": one, "batch2": two}


def matmul(d: Draw, _: str) -> Named:
    """Vectors, matrices and batches that broadcast."""
    t, n, k, m = _Same(d), _size(d), _size(d), _size(d)
    batch = [_size(d) for _ in range(d.rng.choice((0, 0, 1, 1, 2, 3)))]
    one = [k] if d.often(0.2) else [*tensors.narrower(d.rng, batch), n, k]
    two = [k] if d.often(0.2) else [*tensors.narrower(d.rng, batch), k, m]
    return {"self": t(*one), "other": t(*two)}


def linear(d: Draw, _: str) -> Named:
    """Any rank in front; a weight of one dimension now and then."""
    t, k, m = _Same(d), _size(d), _size(d)
    front = [_size(d) for _ in range(d.rng.randrange(4))]
    vector = d.often(0.1)
    bias = None if d.often(0.5) else t() if vector else t(*tensors.narrower(d.rng, [m])) if d.often(0.2) else t(m)
    return {"input": t(*front, k), "weight": t(k) if vector else t(m, k), "bias": bias}


def convolution(d: Draw, name: str) -> Named:
    """conv1d, conv2d and convolution in one to three dimensions, grouped, transposed, without a batch."""
    rank = {"conv1d": 1, "conv2d": 2}.get(name) or d.rng.choice((1, 1, 2, 2, 3))
    groups, transposed = d.rng.choice((1, 1, 1, 2, 3)), name == "convolution" and d.often(0.4)
    per, out = _size(d), groups * (0 if d.often(0.05) else d.rng.choice((1, 1, 2)))
    dtype = d.dtype("float" if d.often(0.9) else "any")
    space = [d.rng.choice((0, 1, 2, 4, 5, 6, 7)) if d.often(0.3) else d.rng.choice((3, 4, 5)) for _ in range(rank)]
    kernel = [d.rng.choice((1, 1, 2, 3)) for _ in range(rank)]
    batch = [] if d.often(0.15) else [_size(d)]
    channels = [groups * per, out // groups] if transposed else [out, per]
    outer = channels[1] * groups if transposed else out

    def each(*values: int) -> list[int]:
        return [d.rng.choice(values) for _ in range(1 if d.often(0.3) else rank)]

    named: Named = {
        "input": d.tensor([*batch, groups * per, *space], dtype),
        "weight": d.tensor([*channels, *kernel], dtype),
        "bias": None if d.often(0.5) else d.tensor([outer], dtype),
        "stride": each(1, 1, 2, 3),
        "dilation": each(1, 1, 2),
        "groups": groups,
        "padding": each(0, 0, 1, 2, 4),
    }
    if name == "convolution":
        named |= {"transposed": transposed, "output_padding": each(0, 0, 0, 1)}
    return named


def padding_by_name(d: Draw, name: str) -> Named:
    """conv1d.padding."""
    return convolution(d, name) | {"padding": d.rng.choice(("same", "valid"))}


def attention(d: Draw, _: str) -> Named:
    """Queries, keys and values of one to five dimensions, grouped heads, masks of either kind, no rows at all."""
    t, rows, keys, e, v = _Same(d), _size(d), _size(d), _size(d), _size(d)
    front = [_size(d) for _ in range(d.rng.choice((0, 1, 2, 2, 2, 3)))]
    grouped = d.often(0.2) and bool(front)
    heads = [*front[:-1], front[-1] * d.rng.choice((1, 2, 3))] if grouped else front
    few = tensors.narrower(d.rng, front) if d.often(0.2) else front
    mask = None
    if d.often(0.5):
        size = tensors.narrower(d.rng, [*heads, rows, keys])
        mask = d.tensor(size, torch.bool) if d.often(0.5) else t(*size)
    named: Named = {
        "query": t(*heads, rows, e),
        "key": t(*few, keys, e),
        "value": t(*few, keys, e if d.often(0.6) else v),
    }
    return named | {
        "attn_mask": mask,
        "is_causal": mask is None and d.often(0.4),
        "enable_gqa": grouped or d.often(0.1),
    }


def normalised(d: Draw, name: str) -> Named:
    """rms_norm, layer_norm, native_layer_norm: the last dimensions, with weights that may be of another dtype."""
    x = d.any(1, 4, "float")
    shape = list(x.shape[d.rng.randrange(x.dim()) :])

    def weight() -> torch.Tensor | None:
        return None if d.often(0.4) else d.tensor(shape, x.dtype if d.often(0.6) else None)

    return {"input": x, "normalized_shape": shape, "weight": weight(), "bias": weight()}


def grouped(d: Draw, name: str) -> Named:
    """group_norm and native_group_norm."""
    groups = d.rng.choice((1, 1, 2, 3))
    channels, batch = groups * d.rng.choice((0, 1, 2)), _size(d)
    space = [_size(d) for _ in range(d.rng.randrange(3))]
    x = d.tensor([batch, channels, *space], d.dtype("float"))

    def weight() -> torch.Tensor | None:
        return None if d.often(0.4) else d.tensor([channels], x.dtype if d.often(0.6) else d.dtype("float"))

    sizes = {"N": batch, "C": channels, "HxW": math.prod(space), "group": groups}
    return {"input": x, "num_groups": groups, "weight": weight(), "bias": weight(), **sizes}


def gru(d: Draw, _: str) -> Named:
    """Layers, directions, biases and the order of time and batch."""
    t, layers, two, biases = _Same(d), d.rng.choice((1, 1, 2)), d.often(0.3), d.often(0.6)
    steps, batch, wide, hidden = _size(d), _size(d), _size(d), _size(d)
    params, ways = [], 1 + two
    for layer in range(layers):
        for _way in range(ways):
            params += [t(3 * hidden, wide if layer == 0 else ways * hidden), t(3 * hidden, hidden)]
            params += [t(3 * hidden), t(3 * hidden)] if biases else []
    first = d.often(0.5)
    x = t(*((batch, steps) if first else (steps, batch)), wide)
    named = {"params": params, "has_biases": biases, "num_layers": layers, "bidirectional": two, "batch_first": first}
    return {"input": x, "hx": t(layers * ways, batch, hidden), **named}
