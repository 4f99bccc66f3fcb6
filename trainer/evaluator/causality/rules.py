"""One rule per operation: what its result may depend on. TRUSTED.

A rule returns the abstract results, or None when it cannot say; None (and every operation without a
rule) is treated as "each element may depend on every element of every input", which is always sound.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from trainer.evaluator.causality.abstract import (
    LABEL,
    Abstract,
    both,
    constant,
    either,
    expand_mask,
    join,
    masked,
    reduce,
    spread,
    squash,
)
from trainer.evaluator.causality.obligations import Kind, Obligations
from trainer.evaluator.graph import Node, Ref


@dataclass
class Context:
    """One node under analysis: bound arguments (Abstract in place of tensors) and result shapes."""

    node: Node
    args: dict[str, Any]
    inputs: list[Abstract]
    shapes: list[tuple[int, ...]]
    dtypes: list[torch.dtype]
    obligations: Obligations
    used_zero: bool = field(default=False)

    def require(self, kind: Kind, *values: Any) -> None:
        """Oblige the run to check the values; numbers and absent values need no check."""
        for value in values:
            if isinstance(value, Abstract):
                self.obligations.require(value.id, kind, value.const)

    def require_no_signed_zero(self, *values: Any) -> None:
        """The operation sees the sign of a zero of these values."""
        self.require(Kind.NONZERO, *(v for v in values if isinstance(v, Abstract) and v.signed))

    def result(self, dep: Tensor, at: int = 0, zero: Tensor | None = None, neginf: Tensor | None = None) -> Abstract:
        """The abstract value of output `at`, whose sign-of-zero taint follows from the inputs."""
        shape = self.shapes[at]
        dtype = self.dtypes[at]
        return Abstract(
            -1,
            dep.expand(shape),
            expand_mask(zero, shape),
            expand_mask(neginf, shape) if dtype.is_floating_point else None,
            signed=self.used_zero or any(x.signed for x in self.inputs),
            floating=dtype.is_floating_point or dtype.is_complex,
        )


Rule = Callable[[Context], list[Abstract] | None]
_RULES: dict[str, Rule] = {}


def rule(names: str) -> Callable[[Rule], Rule]:
    """Register a rule for space-separated ATen names."""

    def register(function: Rule) -> Rule:
        _RULES.update(dict.fromkeys(names.split(), function))
        return function

    return register


def apply(c: Context) -> list[Abstract] | None:
    """The rule's answer, None where there is no rule or it cannot say."""
    if c.inputs and all(x.const is not None for x in c.inputs):
        return _fold(c)
    found = _RULES.get(c.node.name)
    return None if found is None else found(c)


def mix(c: Context) -> list[Abstract]:
    """Every element may depend on everything: sound for any function of the inputs."""
    top = max((int(x.dep.max()) for x in c.inputs if x.dep.numel()), default=-1)
    if any(x.signed for x in c.inputs):
        c.require_no_signed_zero(*c.inputs)
    return [c.result(torch.full((), top, dtype=LABEL), at) for at in range(len(c.shapes))]


def _fold(c: Context) -> list[Abstract]:
    values = {x.id: x.const for x in c.inputs}
    with torch.no_grad():
        return [constant(-1, value) for _, value in c.node.run(values)]


# ---------------------------------------------------------------------------
# Creation and movement
# ---------------------------------------------------------------------------


@rule("zeros_like ones_like full_like new_zeros new_ones new_full")
def _creation(c: Context) -> list[Abstract]:
    default = 0 if "zeros" in c.node.name else 1
    value = torch.full((), c.args.get("fill_value", default), dtype=c.dtypes[0])
    return [constant(-1, value.expand(c.shapes[0]))]


_RESHAPES = frozenset({"view", "_unsafe_view", "reshape"})


@rule(
    "view _unsafe_view reshape unsqueeze squeeze transpose permute expand slice select cat stack split"
    " split_with_sizes chunk unbind flatten unflatten repeat roll flip clone detach alias contiguous diagonal"
    " unfold narrow t movedim repeat_interleave select_scatter slice_scatter lift_fresh_copy index_select"
)
def _movement(c: Context) -> list[Abstract] | None:
    """Elements move and nothing is computed: run the operation on the labels and on the masks."""
    if c.node.name == "index_select" and c.args["index"].const is None:
        return None
    op = torch.ops.aten.reshape.default if c.node.name in _RESHAPES else c.node.op
    by_id = {x.id: x for x in c.inputs}

    def lift(pick: Callable[[Abstract], Tensor]) -> list[Tensor]:
        def swap(value: Any) -> Any:
            if isinstance(value, Ref):
                return pick(by_id[value.id])
            return [swap(x) for x in value] if isinstance(value, list) else value

        kwargs = {k: swap(v) for k, v in c.node.kwargs.items() if k not in ("memory_format", "dtype")}
        result = op(*[swap(x) for x in c.node.args], **kwargs)
        return list(result) if c.node.many else [result]

    index = c.args.get("index") if c.node.name == "index_select" else None

    def mask(known: Callable[[Abstract], Tensor | None]) -> list[Tensor] | list[None]:
        masks = {x.id: known(x) for x in c.inputs}
        if all(m is None for m in masks.values()):
            return [None] * len(c.shapes)
        return lift(lambda x: x.const if x is index else _or_false(masks[x.id], x))  # type: ignore[return-value,arg-type]

    deps = lift(lambda x: x.const if x is index else x.dep)  # type: ignore[return-value,arg-type]
    zeros, neginfs = mask(Abstract.known_zero), mask(Abstract.known_neginf)
    return [c.result(d, i, z, n) for i, (d, z, n) in enumerate(zip(deps, zeros, neginfs, strict=True))]


def _or_false(mask: Tensor | None, like: Abstract) -> Tensor:
    return torch.zeros((), dtype=torch.bool).expand(like.shape) if mask is None else mask.expand(like.shape)


@rule("copy")
def _copy(c: Context) -> list[Abstract]:
    src = c.args["src"]
    return [c.result(src.dep, zero=src.known_zero(), neginf=src.known_neginf())]


@rule("constant_pad_nd")
def _pad(c: Context) -> list[Abstract]:
    x, pads, value = c.args["self"], c.args["pad"], c.args.get("value", 0)
    pad = torch.nn.functional.pad
    zero, neginf = x.known_zero(), x.known_neginf()
    if value == 0:
        zero = pad(_or_false(zero, x), pads, value=True)
    elif zero is not None:
        zero = pad(zero.expand(x.shape), pads, value=False)
    if value == -math.inf:
        neginf = pad(_or_false(neginf, x), pads, value=True)
    elif neginf is not None:
        neginf = pad(neginf.expand(x.shape), pads, value=False)
    return [c.result(pad(x.dep, pads, value=-1), zero=zero, neginf=neginf)]


@rule("tril triu")
def _triangle(c: Context) -> list[Abstract]:
    x = c.args["self"]
    keep = c.node.op(torch.ones(x.shape[-2:], dtype=torch.uint8), c.args.get("diagonal", 0)).bool()
    dep = torch.where(keep, x.dep, -1)
    return [c.result(dep, zero=either(~keep.expand(x.shape), x.known_zero()))]


@rule("view_as_real")
def _view_as_real(c: Context) -> list[Abstract]:
    return [c.result(c.args["self"].dep.unsqueeze(-1))]


@rule("view_as_complex")
def _view_as_complex(c: Context) -> list[Abstract]:
    return [c.result(c.args["self"].dep.amax(-1))]


# ---------------------------------------------------------------------------
# Pointwise
# ---------------------------------------------------------------------------

_ZERO_STAYS = frozenset(
    [
        "neg",
        "abs",
        "sign",
        "square",
        "sqrt",
        "sin",
        "tanh",
        "relu",
        "gelu",
        "silu",
        "floor",
        "round",
        "trunc",
        "ceil",
        "erf",
        "relu6",
        "leaky_relu",
        "elu",
        "mish",
        "hardswish",
        "expm1",
        "log1p",
        "_to_copy",
    ]
)
_NEGINF_TO_ZERO = frozenset({"exp", "exp2", "sigmoid", "relu"})


@rule(
    "_to_copy neg abs sign square sqrt exp exp2 expm1 log log1p log2 sin cos tanh sigmoid erf relu relu6 gelu"
    " silu mish elu leaky_relu softplus hardtanh hardswish log_sigmoid log_sigmoid_forward threshold clamp"
    " clamp_min clamp_max minimum maximum floor round trunc ceil lerp addcmul eq ne lt le gt ge logical_or"
    " logical_not bitwise_or bitwise_xor bitwise_not bitwise_left_shift bitwise_right_shift __or__ __xor__"
    " __lshift__ __rshift__ isfinite polar complex dropout _conj outer"
)
def _pointwise(c: Context) -> list[Abstract]:
    name = c.node.name
    if name == "outer":
        return [c.result(join(c.shapes[0], c.args["self"].dep.unsqueeze(-1), c.args["vec2"].dep))]
    dep = join(c.shapes[0], *(x.dep for x in c.inputs))
    zero = neginf = None
    if len(c.inputs) == 1:
        x = c.inputs[0]
        if name in _ZERO_STAYS:
            zero = x.known_zero()
        if name in _NEGINF_TO_ZERO:
            zero = either(zero, x.known_neginf())
        if name == "_to_copy":
            neginf = x.known_neginf()
            if neginf is not None and c.dtypes[0] is torch.float16:
                zero, neginf = None, None
    return [c.result(dep, at, zero, neginf) for at in range(len(c.shapes))]


@rule("mul logical_and bitwise_and __and__")
def _product(c: Context) -> list[Abstract]:
    shape = c.shapes[0]
    tensors = list(c.inputs)
    dep = join(shape, *(x.dep for x in tensors))
    scalar = c.args.get("other")
    if len(tensors) == 1:
        if not isinstance(scalar, int | float) or not math.isfinite(scalar):
            return [c.result(dep)]
        neginf = tensors[0].known_neginf() if scalar > 0 and c.node.name == "mul" else None
        return [c.result(dep, zero=tensors[0].known_zero(), neginf=neginf)]
    a, b = tensors[0], tensors[-1]
    za, zb = a.known_zero(), b.known_zero()
    if za is None and zb is None:
        return [c.result(dep)]
    c.used_zero = True
    if za is not None:
        c.require(Kind.FINITE, b)
    if zb is not None:
        c.require(Kind.FINITE, a)
    da, db = a.dep.expand(shape), b.dep.expand(shape)
    za, zb = expand_mask(za, shape), expand_mask(zb, shape)
    dep = masked(dep, za, da)
    dep = masked(dep, zb, db)
    dep = masked(dep, both(za, zb), torch.minimum(squash(da), squash(db)))
    return [c.result(dep, zero=either(za, zb))]


@rule("add sub")
def _sum(c: Context) -> list[Abstract]:
    shape = c.shapes[0]
    a, b = c.args["self"], c.args["other"]
    dep = join(shape, *(x.dep for x in c.inputs))
    if c.args.get("alpha", 1) != 1:
        return [c.result(dep)]
    na = a.known_neginf()
    nb = b.known_neginf() if isinstance(b, Abstract) and c.node.name == "add" else None
    if na is None and nb is None:
        return [c.result(dep)]
    if not isinstance(b, Abstract):
        return [c.result(dep, neginf=na if math.isfinite(b) else None)]
    na, nb = expand_mask(na, shape), expand_mask(nb, shape)
    # -inf + y is -inf only for finite y; where both are -inf so is the sum, whatever else.
    for known, other, other_known in ((na, b, nb), (nb, a, na)):
        if known is not None:
            if other_known is not None:
                return [c.result(dep)]
            c.require(Kind.FINITE, other)
    da, db = a.dep.expand(shape), b.dep.expand(shape)
    dep = masked(masked(dep, na, da), nb, db)
    return [c.result(dep, neginf=either(na, nb))]


@rule("rsub")
def _rsub(c: Context) -> list[Abstract]:
    return [c.result(join(c.shapes[0], *(x.dep for x in c.inputs)))]


@rule("div floor_divide remainder fmod")
def _quotient(c: Context) -> list[Abstract]:
    a, b = c.args["self"], c.args["other"]
    dep = join(c.shapes[0], *(x.dep for x in c.inputs))
    if isinstance(b, Abstract):
        c.require_no_signed_zero(b)
        return [c.result(dep)]
    if c.node.name != "div" or not (math.isfinite(b) and b != 0):
        return [c.result(dep)]
    plain = c.args.get("rounding_mode") is None
    return [c.result(dep, zero=a.known_zero(), neginf=a.known_neginf() if plain and b > 0 else None)]


@rule("reciprocal rsqrt")
def _inverse(c: Context) -> list[Abstract]:
    c.require_no_signed_zero(*c.inputs)
    return [c.result(c.inputs[0].dep)]


@rule("addcdiv")
def _addcdiv(c: Context) -> list[Abstract]:
    c.require_no_signed_zero(c.args["tensor2"])
    return [c.result(join(c.shapes[0], *(x.dep for x in c.inputs)))]


@rule("pow")
def _power(c: Context) -> list[Abstract]:
    base, exponent = c.args["self"], c.args["exponent"]
    dep = join(c.shapes[0], *(x.dep for x in c.inputs))
    if isinstance(exponent, Abstract) or exponent < 0:
        c.require_no_signed_zero(base)
        return [c.result(dep)]
    return [c.result(dep, zero=base.known_zero() if exponent > 0 else None)]


@rule("where masked_fill")
def _choice(c: Context) -> list[Abstract]:
    shape = c.shapes[0]
    if c.node.name == "where":
        cond, yes, no = c.args["condition"], c.args["self"], c.args["other"]
    else:
        cond, yes, no = c.args["mask"], c.args["value"], c.args["self"]
    yes, no = _as_abstract(yes), _as_abstract(no)
    if cond.const is not None:
        pick = cond.const.bool().expand(shape)
        zero = _pick(pick, yes.known_zero(), no.known_zero())
        neginf = _pick(pick, yes.known_neginf(), no.known_neginf())
        dep = torch.where(squash(pick), squash(yes.dep), squash(no.dep)).expand(shape)
        return [c.result(dep, zero=zero, neginf=neginf)]
    never = expand_mask(cond.known_zero(), shape)
    dep = masked(join(shape, cond.dep, yes.dep, no.dep), never, join(shape, cond.dep, no.dep))
    zero = _pick_unknown(never, yes.known_zero(), no.known_zero(), shape)
    neginf = _pick_unknown(never, yes.known_neginf(), no.known_neginf(), shape)
    return [c.result(dep, zero=zero, neginf=neginf)]


def _as_abstract(value: Any) -> Abstract:
    return value if isinstance(value, Abstract) else constant(-1, torch.tensor(float(value)))


def _pick(pick: Tensor, yes: Tensor | None, no: Tensor | None) -> Tensor | None:
    if yes is None and no is None:
        return None
    false = torch.zeros((), dtype=torch.bool)
    return torch.where(pick, false if yes is None else yes, false if no is None else no)


def _pick_unknown(never: Tensor | None, yes: Tensor | None, no: Tensor | None, shape: Any) -> Tensor | None:
    if no is None:
        return None
    no = no.expand(shape)
    return either(both(no, expand_mask(yes, shape)), both(no, never))


@rule("glu")
def _glu(c: Context) -> list[Abstract]:
    first, second = c.args["self"].dep.chunk(2, c.args.get("dim", -1))
    return [c.result(join(c.shapes[0], first, second))]


# ---------------------------------------------------------------------------
# Reductions, normalisations, scans, sorting
# ---------------------------------------------------------------------------


def _dims(value: Any, rank: int) -> list[int]:
    if value is None or value == []:
        return list(range(rank))
    return sorted({x % rank for x in (value if isinstance(value, list) else [value])}) if rank else []


@rule(
    "sum mean amax amin max min var std var_mean prod any all argmax argmin linalg_vector_norm logsumexp count_nonzero"
)
def _reduction(c: Context) -> list[Abstract]:
    x = c.args["self"]
    if c.node.name in ("argmax", "argmin", "max", "min"):
        c.require_no_signed_zero(x)
    dims = _dims(c.args.get("dim"), x.dep.dim())
    kept = reduce(x.dep, dims)
    kept = kept.expand([1 if i in dims else s for i, s in enumerate(x.shape)])
    out = []
    for at, shape in enumerate(c.shapes):
        out.append(c.result(kept if len(shape) == x.dep.dim() else kept.squeeze(dims), at))
    return out


@rule("_softmax softmax _log_softmax log_softmax")
def _softmax(c: Context) -> list[Abstract]:
    x = c.args["self"]
    dep = spread(x.dep, _dims(c.args["dim"], x.dep.dim()))
    gone = x.known_neginf()
    if gone is not None:
        c.used_zero = True
    return [c.result(dep, neginf=gone)] if "log" in c.node.name else [c.result(dep, zero=gone)]


@rule("cumsum cumprod cummax cummin logcumsumexp")
def _scan(c: Context) -> list[Abstract]:
    x = c.args["self"]
    if c.node.name in ("cummax", "cummin"):
        c.require_no_signed_zero(x)
    dep = x.dep.contiguous().cummax(c.args["dim"]).values if x.dep.dim() else x.dep
    return [c.result(dep, at) for at in range(len(c.shapes))]


@rule("sort argsort topk")
def _sorting(c: Context) -> list[Abstract]:
    x = c.args["self"]
    c.require_no_signed_zero(x)
    kept = reduce(x.dep, _dims(c.args.get("dim", -1), x.dep.dim()))
    return [c.result(kept, at) for at in range(len(c.shapes))]


@rule("rms_norm layer_norm native_layer_norm")
def _norm(c: Context) -> list[Abstract]:
    x = c.args["input"]
    count = len(c.args["normalized_shape"])
    dims = list(range(x.dep.dim() - count, x.dep.dim()))
    affine = [v.dep for k in ("weight", "bias") if isinstance(v := c.args.get(k), Abstract)]
    kept = reduce(x.dep, dims)
    out = [c.result(join(c.shapes[0], kept.expand(x.shape), *affine))]
    return out + [c.result(kept, at) for at in range(1, len(c.shapes))]


# ---------------------------------------------------------------------------
# Indexing
# ---------------------------------------------------------------------------


@rule("embedding")
def _embedding(c: Context) -> list[Abstract] | None:
    if c.args["weight"].const is None:
        return None
    return [c.result(c.args["indices"].dep.unsqueeze(-1))]


@rule("one_hot")
def _one_hot(c: Context) -> list[Abstract]:
    return [c.result(c.args["self"].dep.unsqueeze(-1))]


@rule("index")
def _index(c: Context) -> list[Abstract] | None:
    x, indices = c.args["self"], c.args["indices"]
    given = [at for at, index in enumerate(indices) if index is not None]
    tensors = [indices[at] for at in given]
    if all(index.const is not None for index in tensors):
        return [c.result(c.node.op(x.dep, [None if i is None else i.const for i in indices]))]
    if x.const is None or any(not isinstance(i, Abstract) or i.floating for i in tensors):
        return None
    shape = torch.broadcast_shapes(*(index.shape for index in tensors))
    adjacent = given == list(range(given[0], given[-1] + 1))
    front = given[0] if adjacent else 0
    back = len(c.shapes[0]) - front - len(shape)
    if back < 0:
        return None
    dep = join(shape, *(index.dep for index in tensors))
    return [c.result(dep.reshape((1,) * front + tuple(shape) + (1,) * back))]


@rule("gather take_along_dim")
def _gather(c: Context) -> list[Abstract] | None:
    x = c.args["self"]
    index = c.args["index"] if c.node.name == "gather" else c.args["indices"]
    dim = c.args.get("dim")
    if dim is None or x.dep.dim() != index.dep.dim() or not x.dep.dim():
        return None
    dim %= x.dep.dim()
    if any(i != dim and a != b for i, (a, b) in enumerate(zip(x.shape, index.shape, strict=True))):
        return None
    if index.const is not None:
        return [c.result(torch.gather(x.dep.contiguous(), dim, index.const))]
    return [c.result(join(c.shapes[0], reduce(x.dep, [dim]), index.dep))]


@rule("scatter scatter_add")
def _scatter(c: Context) -> list[Abstract] | None:
    x, index, src = c.args["self"], c.args["index"], c.args.get("src")
    if not x.dep.dim() or x.dep.dim() != index.dep.dim():
        return None
    dim = c.args["dim"] % x.dep.dim()
    sources = [index] + ([src] if isinstance(src, Abstract) else [])
    sizes = [[s for i, s in enumerate(v.shape) if i != dim] for v in (x, *sources)]
    if any(size != sizes[0] for size in sizes):
        return None
    return [c.result(join(c.shapes[0], x.dep, *(reduce(v.dep, [dim]) for v in sources)))]


# ---------------------------------------------------------------------------
# Contractions
# ---------------------------------------------------------------------------


@rule("mm bmm matmul addmm baddbmm linear")
def _matmul(c: Context) -> list[Abstract] | None:
    args, extra = c.args, []
    if c.node.name == "linear":
        a, b = args["input"], args["weight"]
        if b.const is None or b.dep.dim() != 2:
            return None
        extra = [args["bias"].dep] if isinstance(args.get("bias"), Abstract) else []
        if squash(a.dep).shape[-1] == 1:  # all features alike: the weight's zeros change nothing
            return [c.result(join(c.shapes[0], reduce(a.dep, [a.dep.dim() - 1]), *extra))]
        b = Abstract(b.id, b.dep.T, const=b.const.T)
    elif c.node.name in ("addmm", "baddbmm"):
        a, b = (args["mat1"], args["mat2"]) if c.node.name == "addmm" else (args["batch1"], args["batch2"])
        extra = [args["self"].dep]
    else:
        a, b = args["self"], args.get("mat2", args.get("other"))
    if a.dep.dim() < 2 or b.dep.dim() < 2:
        return None
    return [c.result(join(c.shapes[0], _contract(c, a, b), *extra))]


def _contract(c: Context, a: Abstract, b: Abstract) -> Tensor:
    """Labels of a @ b, [..., i, j]. A known zero of a silences the element of b it meets, and vice versa."""
    bounds = [torch.maximum(reduce(a.dep, [a.dep.dim() - 1]), reduce(b.dep, [b.dep.dim() - 2]))]
    za, zb = a.known_zero(), b.known_zero()
    if za is not None and _varies(b.dep, -2):
        silenced = _silence(za, squash(b.dep).amax(-1).unsqueeze(-2))
        bounds.append(torch.maximum(reduce(a.dep, [a.dep.dim() - 1]), silenced.unsqueeze(-1)))
    if zb is not None and _varies(a.dep, -1):
        silenced = _silence(zb.mT, squash(a.dep).amax(-2).unsqueeze(-2))
        bounds.append(torch.maximum(reduce(b.dep, [b.dep.dim() - 2]), silenced.unsqueeze(-2)))
    if len(bounds) > 1:
        c.used_zero = True
        c.require(Kind.FINITE, a, b)
    shape = c.shapes[0]
    out = bounds[0].expand(shape)
    for bound in bounds[1:]:
        out = torch.minimum(squash(out), squash(bound)).expand(shape)
    return out


def _varies(dep: Tensor, dim: int) -> bool:
    return squash(dep).shape[dim] > 1


def _silence(zero: Tensor, labels: Tensor) -> Tensor:
    """max over k of labels[..., 1, k] where not zero[..., i, k]: [..., i]."""
    return torch.where(squash(zero), -1, labels).amax(-1)


@rule("scaled_dot_product_attention")
def _attention(c: Context) -> list[Abstract] | None:
    q, k, v, mask = c.args["query"], c.args["key"], c.args["value"], c.args.get("attn_mask")
    if c.dtypes[0] is torch.float16 or q.dep.dim() != 4 or k.dep.dim() != 4:
        return None
    heads, last = q.dep.dim() - 3, q.dep.dim() - 1
    queries = reduce(q.dep, [heads, last]).squeeze(-1)  # [b, 1, queries]
    keys = torch.maximum(reduce(k.dep, [heads, last]), reduce(v.dep, [heads, last])).squeeze(-1)
    visible = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool)
    if c.args.get("is_causal"):
        visible = visible.tril()
    if mask is not None:
        if mask.dep.dim() < 2:
            return None
        hidden = mask.known_neginf() if mask.floating else mask.known_zero()
        if hidden is not None:
            seen = squash(~hidden)
            seen = seen.any(-3, keepdim=True) if seen.dim() >= 3 else seen
            visible = visible & seen
        weight = squash(mask.dep).amax(-1)  # [..., queries or 1]
        weight = weight.amax(-2, keepdim=True) if weight.dim() >= 2 else weight
        queries = torch.maximum(queries, weight)
    if not bool(visible.all()):
        c.used_zero = True
        c.require(Kind.BOUNDED, q, k)
        c.require(Kind.FINITE, v)
        if mask is not None and mask.floating and mask.const is None:
            return None  # a computed additive mask could itself be +inf or NaN
    labels = squash(keys).unsqueeze(-2)  # [b, 1, 1, keys]
    reach = torch.where(visible, labels, -1).amax(-1)
    return [c.result(torch.maximum(queries, reach).unsqueeze(-1))]


@rule("conv1d convolution")
def _convolution(c: Context) -> list[Abstract] | None:
    x, weight = c.args["input"], c.args["weight"]
    if x.dep.dim() != 3 or weight.const is None or c.args.get("transposed"):
        return None
    one = lambda value: value[0] if isinstance(value, list) else value  # noqa: E731
    stride, dilation = one(c.args.get("stride", 1)), one(c.args.get("dilation", 1))
    taps = (weight.shape[-1] - 1) * dilation + 1
    padding = one(c.args.get("padding", 0))
    if isinstance(padding, str):
        total = taps - 1 if padding == "same" else 0
        left, right = total // 2, total - total // 2
    else:
        left = right = padding
    dep = reduce(x.dep, [1]).expand(x.shape[0], 1, x.shape[2])
    dep = torch.nn.functional.pad(dep, (left, right), value=-1)
    windows = dep.unfold(-1, taps, stride)[..., ::dilation]
    bias = [b.dep.unsqueeze(-1)] if isinstance(b := c.args.get("bias"), Abstract) else []
    return [c.result(join(c.shapes[0], windows.amax(-1), *bias))]


@rule("gru lstm")
def _recurrence(c: Context) -> list[Abstract] | None:
    hidden = c.args["hx"] if isinstance(c.args["hx"], list) else [c.args["hx"]]
    fixed = all(v.const is not None for v in [*hidden, *c.args["params"]])
    if not fixed or c.args["bidirectional"] or not c.args["batch_first"] or c.args["input"].dep.dim() != 3:
        return None
    features = c.args["input"].dep.amax(-1, keepdim=True)
    steps = features.cummax(1).values
    final = torch.full((), int(features.max()), dtype=LABEL)
    return [c.result(steps)] + [c.result(final, at) for at in range(1, len(c.shapes))]
