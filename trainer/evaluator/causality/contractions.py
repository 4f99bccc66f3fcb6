"""Causality rules of matrix products, attention, convolution and recurrence. TRUSTED."""

from __future__ import annotations

import math
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from trainer.evaluator.causality.abstract import LABEL, Abstract, either, every, join, reduce, squash
from trainer.evaluator.causality.context import Context, Rule, by_name

MAX_ELEMENTS = 1 << 28  # of a table built while looking for silenced operands
MAX_TERMS = 1 << 34  # of a product of two tables of zeros: about a second
MAX_SCALE = 1e7  # |scale|, at least 1, times head dimension of attention: some kernels scale after the sum


def _matmul(c: Context) -> list[Abstract] | None:
    args, extra = c.args, []
    if c.node.name == "linear":
        a, b = args["input"], args["weight"]
        if b.const is None or b.dep.dim() != 2:
            return None
        extra = [args["bias"].dep] if isinstance(args.get("bias"), Abstract) else []
        b = Abstract(b.id, b.dep.T, b.dtype, const=b.const.T)
        if squash(a.dep).shape[-1] == 1:  # all features alike: the weight's zeros change nothing
            dep = join(c.shapes[0], reduce(a.dep, [a.dep.dim() - 1]), *extra)
            return [c.result(dep, zero=None if extra else _nothing(c, a, b))]
    elif c.node.name in ("addmm", "baddbmm"):
        a, b = (args["mat1"], args["mat2"]) if c.node.name == "addmm" else (args["batch1"], args["batch2"])
        extra = [args["self"].dep]
    else:
        a, b = args["self"], args.get("mat2", args.get("other"))
    if a.dep.dim() < 2 or b.dep.dim() < 2:
        return None
    scaled = args.get("alpha", 1) != 1  # folded into an operand while packing, which may overflow it
    dep = join(c.shapes[0], _contract(c, a, b, silence=not scaled), *extra)
    return [c.result(dep, zero=None if extra else _nothing(c, a, b))]


def _nothing(c: Context, a: Abstract, b: Abstract) -> Tensor | None:
    """Where a @ b is zero, with any sign: every term has a known zero, and what that meets is finite.

    So a product of two triangular matrices is triangular.
    """
    za, zb = a.known_zero(), b.known_zero()
    found = None if za is None or zb is None else _no_term(za, zb)
    if found is None:
        found = either(every(za, [a.dep.dim() - 1]), every(zb, [b.dep.dim() - 2]))
    c.used_zero |= found is not None
    return found


def _no_term(za: Tensor, zb: Tensor) -> Tensor | None:
    """Where no k has neither za[..., i, k] nor zb[..., k, j]; None if that is nowhere, or too long to look for."""
    one, two, terms = squash(za), squash(zb), za.shape[-1]
    count = math.prod(torch.broadcast_shapes(one.shape[:-2], two.shape[:-2])) * one.shape[-2] * terms * two.shape[-1]
    if count > MAX_TERMS:
        return None
    one, two = one.expand(*one.shape[:-1], terms), two.expand(*two.shape[:-2], terms, two.shape[-1])
    found = torch.matmul((~one).float(), (~two).float()) == 0
    return found if bool(found.any()) else None


def _contract(c: Context, a: Abstract, b: Abstract, *, silence: bool) -> Tensor:
    """Labels of a @ b, [..., i, j]. A known zero of a silences the element of b it meets, and vice versa."""
    bounds = [torch.maximum(reduce(a.dep, [a.dep.dim() - 1]), reduce(b.dep, [b.dep.dim() - 2]))]
    za, zb = (a.known_zero(), b.known_zero()) if silence else (None, None)
    if za is not None and _varies(b.dep, -2):
        silenced = _silence(za, squash(b.dep).amax(-1).unsqueeze(-2))
        if silenced is not None:
            bounds.append(torch.maximum(reduce(a.dep, [a.dep.dim() - 1]), silenced.unsqueeze(-1)))
    if zb is not None and _varies(a.dep, -1):
        silenced = _silence(zb.mT, squash(a.dep).amax(-2).unsqueeze(-2))
        if silenced is not None:
            bounds.append(torch.maximum(reduce(b.dep, [b.dep.dim() - 2]), silenced.unsqueeze(-2)))
    if len(bounds) > 1:
        c.used_zero = True  # and both are finite: rules.py obliges every product to that
    shape = c.shapes[0]
    out = bounds[0].expand(shape)
    for bound in bounds[1:]:
        out = torch.minimum(squash(out), squash(bound)).expand(shape)
    return out


def _varies(dep: Tensor, dim: int) -> bool:
    return squash(dep).shape[dim] > 1


def _silence(zero: Tensor, labels: Tensor) -> Tensor | None:
    """max over k of labels[..., 1, k] where not zero[..., i, k]: [..., i]; None if that were too large to build."""
    mask = squash(zero)
    sizes = [max(a, b) for a, b in zip_longest(mask.shape[::-1], labels.shape[::-1], fillvalue=1)]
    return torch.where(mask, -1, labels).amax(-1) if math.prod(sizes) <= MAX_ELEMENTS else None


def _attention(c: Context) -> list[Abstract] | None:
    q, k, v, mask = c.args["query"], c.args["key"], c.args["value"], c.args.get("attn_mask")
    rank = q.dep.dim()
    if c.dtypes[0] is torch.float16 or rank < 3 or {k.dep.dim(), v.dep.dim()} != {rank}:
        return None
    if len({x.shape[0] for x in (q, k, v)}) > 1 or (mask is not None and mask.dep.dim() < 2):
        return None  # rows that are spread over others
    scale = c.args.get("scale")
    if scale is not None and not 0 < scale < math.inf:
        return None  # -inf times less than nothing is no mask
    if not max(1.0, abs(scale or 1.0)) * q.shape[-1] <= MAX_SCALE:
        return None  # with |q|, |k| < SCORE_BOUND a score stays finite in float32
    visible = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool)
    if c.args.get("is_causal"):
        visible = visible.tril()
    if mask is not None:
        hidden = mask.known_neginf() if mask.floating else mask.known_zero()
        visible = visible if hidden is None else visible & squash(~hidden)
    if not bool(visible.all()):
        c.used_zero = True  # a computed mask is obliged to be no NaN: what is known to be -inf or NaN there is -inf
    deps = [x.dep for x in (q, k, v, mask) if x is not None]
    heads = list(range(1 - rank, -2))  # however many dimensions they take; each sees but its own
    if len({x.shape[:-2] for x in (q, k, v)}) > 1 or _table(visible, k.dep, v.dep) > MAX_ELEMENTS:
        visible = visible.any(_there(heads, visible), keepdim=True) if _there(heads, visible) else visible
        deps = [reduce(dep, _there(heads, dep)) for dep in deps]
    of_q, of_k, of_v, *of_mask = (reduce(dep, [-1]) for dep in deps)  # [batch, heads..., positions, 1]
    reach = torch.where(visible, squash(torch.maximum(of_k, of_v)).mT, -1).amax(-1, keepdim=True)
    return [c.result(join(c.shapes[0], of_q, reach, *of_mask))]


def _there(dims: list[int], x: Tensor) -> list[int]:
    return [dim for dim in dims if -dim <= x.dim()]


def _table(visible: Tensor, k: Tensor, v: Tensor) -> int:
    """Elements of a table of what each query sees of each key."""
    leading = (squash(x)[..., :1, :1].shape for x in (k, v))
    return math.prod(torch.broadcast_shapes(visible.shape, *leading))


def _convolution(c: Context) -> list[Abstract] | None:
    x, weight = c.args["input"], c.args["weight"]
    count = weight.dep.dim() - 2  # dimensions that windows slide along
    if x.dep.dim() != weight.dep.dim() or count not in (1, 2) or weight.const is None or c.args.get("transposed"):
        return None
    strides, dilations, paddings = (
        _each(c.args.get(name, default), count) for name, default in (("stride", 1), ("dilation", 1), ("padding", 0))
    )
    dep = reduce(x.dep, [1]).expand(x.shape[0], 1, *x.shape[2:])
    for at in range(count):
        taps = (weight.shape[2 + at] - 1) * dilations[at] + 1
        total = {"same": taps - 1, "valid": 0}.get(paddings[at])
        left, right = (paddings[at],) * 2 if total is None else (total // 2, total - total // 2)
        sides = [0, 0] * (count - 1 - at) + [left, right]
        dep = torch.nn.functional.pad(dep, sides, value=-1)
        dep = dep.unfold(2 + at, taps, strides[at])[..., :: dilations[at]].amax(-1)
    bias = [b.dep.reshape(-1, *[1] * count)] if isinstance(b := c.args.get("bias"), Abstract) else []
    point = set(weight.shape[2:]) == {1} and not any(paddings) and set(strides) == {1} and not bias
    zero = every(x.known_zero(), [1]) if point else None  # of all channels: whatever they are multiplied by
    c.used_zero |= zero is not None
    return [c.result(join(c.shapes[0], dep, *bias), zero=zero)]


def _each(value: Any, count: int) -> list[Any]:
    """One entry for each dimension."""
    entries = value if isinstance(value, list) else [value]
    return list(entries) * (count // len(entries))


def _recurrence(c: Context) -> list[Abstract] | None:
    fixed = all(v.const is not None for v in [c.args["hx"], *c.args["params"]])
    if not fixed or c.args["bidirectional"] or not c.args["batch_first"] or c.args["input"].dep.dim() != 3:
        return None
    features = c.args["input"].dep.amax(-1, keepdim=True)
    steps = features.cummax(1).values
    final = torch.full((), int(features.max()), dtype=LABEL)
    return [c.result(steps)] + [c.result(final, at) for at in range(1, len(c.shapes))]


_TABLE: dict[Rule, str] = {
    _matmul: "mm bmm matmul addmm baddbmm linear",
    _attention: "scaled_dot_product_attention",
    _convolution: "conv1d conv2d convolution",
    _recurrence: "gru",
}
RULES = by_name(_TABLE)
