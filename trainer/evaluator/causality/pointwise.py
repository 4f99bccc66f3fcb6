"""Causality rules of pointwise operations, where known zeros and infinities are used. TRUSTED."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from trainer.evaluator.causality.abstract import (
    LABEL,
    Abstract,
    as_abstract,
    both,
    either,
    expand_mask,
    join,
    masked,
    squash,
)
from trainer.evaluator.causality.context import Context, Rule, by_name
from trainer.evaluator.causality.obligations import Kind

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
_WIDE = frozenset({torch.float32, torch.bfloat16, torch.float64})  # types whose zero is not merely something small
_NOBODY = torch.full((), -1, dtype=LABEL)
_NEGINF_TO_ZERO = frozenset({"exp", "exp2", "sigmoid", "relu"})


def _pointwise(c: Context) -> list[Abstract]:
    name = c.node.name
    if name == "outer":
        return [c.result(join(c.shapes[0], c.args["self"].dep.unsqueeze(-1), c.args["vec2"].dep))]
    dep = join(c.shapes[0], *(x.dep for x in c.inputs))
    zero = neginf = low = None
    if len(c.inputs) == 1:
        x = c.inputs[0]
        if name in ("exp", "relu") and (faint := x.known_low()) is not None and c.dtypes[0] in _WIDE:
            # exp of very little is nothing, if the run finds it so: then it is the constant zero, whatever it came of.
            faint = faint.expand(c.shapes[0])
            c.require_zero(faint)
            zero = either(faint, expand_mask(x.known_neginf(), faint.shape))
            zero = either(zero, x.known_zero()) if name == "relu" else zero
            return [c.result(masked(dep, faint, _NOBODY), zero=zero)]
        if name in _ZERO_STAYS:
            zero = x.known_zero()
        if name in _NEGINF_TO_ZERO:
            zero = either(zero, x.known_neginf())
        if name == "nan_to_num" and not c.args.get("nan") and not x.dtype.is_complex:
            zero = x.known_zero()  # of a complex number one part may be NaN
        if name == "_to_copy":
            neginf, low = x.known_neginf(), x.known_low()
            if neginf is not None and c.dtypes[0] is torch.float16:
                zero, neginf = None, None
            if zero is not None and x.floating and c.dtypes[0] is torch.bool:  # NaN is true: the run has to find none
                c.obligations.require_zero(x.id, zero)
                return [replace(c.result(dep), zero=zero.expand(c.shapes[0]))]
    return [c.result(dep, at, zero, neginf, low) for at in range(len(c.shapes))]


def _product(c: Context) -> list[Abstract]:
    shape = c.shapes[0]
    tensors = list(c.inputs)
    dep = join(shape, *(x.dep for x in tensors))
    scalar = c.args.get("other")
    if len(tensors) == 1:
        if not isinstance(scalar, int | float) or not math.isfinite(scalar):
            return [c.result(dep)]
        scaled = scalar > 0 and c.node.name == "mul"
        neginf, low = (tensors[0].known_neginf(), tensors[0].known_low()) if scaled else (None, None)
        return [c.result(dep, zero=tensors[0].known_zero(), neginf=neginf, low=low)]
    a, b = tensors[0], tensors[-1]
    za, zb = a.known_zero(), b.known_zero()
    if (za is None and zb is None) or not c.stays_finite(a, b):
        return [c.result(dep)]
    if c.node.name == "logical_and" and (a.floating or b.floating):
        return [c.result(dep)]  # a zero that is NaN at run time counts as true
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


def _sum(c: Context) -> list[Abstract]:
    shape = c.shapes[0]
    a, b = c.args["self"], c.args["other"]
    dep = join(shape, *(x.dep for x in c.inputs))
    if isinstance(a, Abstract) and _adds_nothing(c, b):  # -0 + 0 is +0
        return [c.result(dep, 0, a.known_zero(), a.known_neginf(), a.known_low(), unsigned=not a.dtype.is_complex)]
    zero, low = _sum_of_zeros(c, a, b), _sum_of_low(c, a, b)
    plain = isinstance(a, Abstract) and not c.dtypes[0].is_complex  # -inf + (c+di) is (-inf)+di
    if c.args.get("alpha", 1) != 1 or not plain or not c.stays_finite(*c.inputs):
        return [c.result(dep, zero=zero, low=low)]
    na = a.known_neginf()
    nb = b.known_neginf() if isinstance(b, Abstract) and c.node.name == "add" else None
    if isinstance(b, Abstract) and b.endless:
        return [c.result(dep, zero=zero, low=low)]  # and what comes of it may never be looked at
    if na is None and nb is None:
        return [c.result(dep, zero=zero, low=low)]
    if not isinstance(b, Abstract):
        return [c.result(dep, neginf=na if math.isfinite(b) else None)]
    na, nb = expand_mask(na, shape), expand_mask(nb, shape)
    # -inf + y is -inf unless y is +inf or NaN, -inf - y unless it is -inf or NaN.
    kind = Kind.BELOW if c.node.name == "add" else Kind.FINITE
    for known, other in ((na, b), (nb, a)):
        if known is not None:
            c.require(kind, other)
    da, db = a.dep.expand(shape), b.dep.expand(shape)
    dep = masked(masked(dep, na, da), nb, db)
    return [c.result(dep, neginf=either(na, nb))]


def _adds_nothing(c: Context, b: Any) -> bool:
    plain = c.node.name == "add" and isinstance(b, int | float) and c.args.get("alpha", 1) == 1
    return plain and b == 0 and math.copysign(1.0, b) > 0


def _sum_of_zeros(c: Context, a: Any, b: Any) -> Tensor | None:
    """Where both are zero or NaN so is the sum; which of the two, and its sign, are of the labels of both."""
    if not (isinstance(a, Abstract) and isinstance(b, Abstract)) or not math.isfinite(c.args.get("alpha", 1)):
        return None
    shape = c.shapes[0]
    return both(expand_mask(a.known_zero(), shape), expand_mask(b.known_zero(), shape))


def _sum_of_low(c: Context, a: Any, b: Any) -> Tensor | None:
    """A guess: very little plus or minus whatever else there is."""
    shape = c.shapes[0]
    one = a.known_low() if isinstance(a, Abstract) else None
    two = b.known_low() if isinstance(b, Abstract) and c.node.name == "add" else None
    return either(expand_mask(one, shape), expand_mask(two, shape))


def _union(c: Context) -> list[Abstract]:
    """Neither: false, or no bit of it, wherever both are. Of numbers that may be NaN nothing is known (context.py)."""
    a, b = (as_abstract(c.args[name]) for name in ("self", "other"))
    zero = both(expand_mask(a.known_zero(), c.shapes[0]), expand_mask(b.known_zero(), c.shapes[0]))
    return [c.result(join(c.shapes[0], a.dep, b.dep), zero=zero)]


def _rsub(c: Context) -> list[Abstract]:
    return [c.result(join(c.shapes[0], *(x.dep for x in c.inputs)))]


def _quotient(c: Context) -> list[Abstract]:
    a, b = c.args["self"], c.args["other"]
    dep = join(c.shapes[0], *(x.dep for x in c.inputs))
    if isinstance(b, Abstract):
        c.require_no_signed_zero(b)
        # 0 / b is a zero, or NaN where b is 0 or NaN: of the labels of both, sign and all.
        plain = isinstance(a, Abstract) and c.node.name == "div" and c.args.get("rounding_mode") is None
        return [c.result(dep, zero=a.known_zero() if plain else None)]
    if c.node.name != "div" or not (math.isfinite(b) and b != 0):
        return [c.result(dep)]
    plain = c.args.get("rounding_mode") is None
    neginf, low = (a.known_neginf(), a.known_low()) if plain and b > 0 else (None, None)
    return [c.result(dep, zero=a.known_zero(), neginf=neginf, low=low)]


def _inverse(c: Context) -> list[Abstract]:
    c.require_no_signed_zero(*c.inputs)
    return [c.result(c.inputs[0].dep)]


def _angle(c: Context) -> list[Abstract]:
    """atan2 tells +0 from -0, of both."""
    c.require_no_signed_zero(*c.inputs)
    return [c.result(join(c.shapes[0], *(x.dep for x in c.inputs)))]


def _addcdiv(c: Context) -> list[Abstract]:
    c.require_no_signed_zero(c.args["tensor2"])
    return [c.result(join(c.shapes[0], *(x.dep for x in c.inputs)))]


def _power(c: Context) -> list[Abstract]:
    base, exponent = c.args["self"], c.args["exponent"]
    dep = join(c.shapes[0], *(x.dep for x in c.inputs))
    if isinstance(exponent, Abstract) or exponent < 0:
        c.require_no_signed_zero(base)
        return [c.result(dep)]
    # A tiny exponent may be rounded to zero on the way, and 0 ** 0 is 1.
    return [c.result(dep, zero=base.known_zero() if exponent >= 2**-10 else None)]


def _choice(c: Context) -> list[Abstract]:
    shape = c.shapes[0]
    if c.node.name == "where":
        cond, yes, no = c.args["condition"], c.args["self"], c.args["other"]
    else:
        cond, yes, no = c.args["mask"], c.args["value"], c.args["self"]
    cond, yes, no = as_abstract(cond), as_abstract(yes), as_abstract(no)
    if cond.const is not None:
        pick = cond.const.bool().expand(shape)
        zero = _pick(pick, yes.known_zero(), no.known_zero())
        neginf = _pick(pick, yes.known_neginf(), no.known_neginf())
        low = _pick(pick, yes.known_low(), no.known_low())
        dep = torch.where(squash(pick), squash(yes.dep), squash(no.dep)).expand(shape)
        return [c.result(dep, zero=zero, neginf=neginf, low=low)]
    never = expand_mask(cond.known_zero(), shape)
    dep = masked(join(shape, cond.dep, yes.dep, no.dep), never, join(shape, cond.dep, no.dep))
    zero = _pick_unknown(never, yes.known_zero(), no.known_zero(), shape)
    neginf = _pick_unknown(never, yes.known_neginf(), no.known_neginf(), shape)
    low = _pick_unknown(never, yes.known_low(), no.known_low(), shape)
    return [c.result(dep, zero=zero, neginf=neginf, low=low)]


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


def _glu(c: Context) -> list[Abstract]:
    first, second = c.args["self"].dep.chunk(2, c.args.get("dim", -1))
    return [c.result(join(c.shapes[0], first, second))]


_TABLE: dict[Rule, str] = {
    _pointwise: (
        "_to_copy neg abs sign square sqrt exp exp2 expm1 log log1p log2 sin cos tanh sigmoid erf relu relu6 "
        "gelu silu mish elu leaky_relu softplus hardtanh hardswish log_sigmoid log_sigmoid_forward threshold "
        "clamp clamp_min clamp_max minimum maximum floor round trunc ceil lerp addcmul eq ne lt le gt ge "
        "logical_not bitwise_not bitwise_left_shift bitwise_right_shift "
        "__lshift__ __rshift__ isfinite nan_to_num polar complex dropout _conj outer "
        "tan asin acos atan sinh cosh asinh acosh atanh erfc"
    ),
    _product: "mul logical_and bitwise_and __and__",
    _sum: "add sub",
    _union: "logical_or bitwise_or bitwise_xor __or__ __xor__",
    _rsub: "rsub",
    _quotient: "div floor_divide remainder fmod",
    _inverse: "reciprocal rsqrt",
    _angle: "atan2",
    _addcdiv: "addcdiv",
    _power: "pow",
    _choice: "where masked_fill",
    _glu: "glu",
}
RULES = by_name(_TABLE)
