"""Arguments of matrix products, attention, convolution, recurrence, norms, reductions and scans."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from tests.fuzz_causality.draft import Call, Draft, Unfit, Value, broadcasts, call, is_bool, is_float, literal
from tests.fuzz_causality.shapes import Chooser, by_name, ranked, vector


def _inner(t: Tensor) -> int:
    """Size of the dimension that the right operand of a product contracts."""
    return t.shape[-2] if t.dim() > 1 else t.shape[0]


def _linear(d: Draft, operation: str) -> Call:
    x = ranked(d)
    weight = d.pick(
        lambda t: t.dim() in (1, 2) and t.shape[-1] == x.tensor.shape[-1] and t.dtype == x.tensor.dtype, 0.3
    )
    bias = d.maybe(0.4, lambda t: t.dim() == 1 and t.shape[0] == weight.tensor.shape[0] and t.dtype == x.tensor.dtype)
    return call(x.ref, weight.ref, *([bias] if bias else []))


def _product(d: Draft, operation: str) -> Call:
    if operation.startswith(("mv", "dot")):
        return _with_vector(d, operation)
    rank = {"mm": (2, 2), "bmm": (3, 3)}.get(operation.split(".", maxsplit=1)[0])

    def left(t: Tensor) -> bool:
        return t.dim() == rank[0] if rank else t.dim() > 0

    a = d.pick(left)
    size, dtype = a.tensor.shape[-1], a.tensor.dtype

    def right(t: Tensor) -> bool:
        return (t.dim() == rank[1] if rank else t.dim() > 0) and _inner(t) == size and t.dtype == dtype

    try:
        return call(a.ref, d.pick(right, 0.4).ref)
    except Unfit:
        return call(a.ref, d.need("transpose.int", a.ref, -1, -2).ref)


def _with_vector(d: Draft, operation: str) -> Call:
    v = vector(d)

    def fits(t: Tensor) -> bool:
        rank = 2 if operation.startswith("mv") else 1
        return t.dim() == rank and t.shape[-1] == v.tensor.shape[0] and t.dtype == v.tensor.dtype

    return call(d.pick(fits, 0.4).ref, v.ref)


def _added_product(d: Draft, operation: str) -> Call:
    rank = 2 if operation.startswith("addmm") else 3
    a = d.pick(lambda t: t.dim() == rank)
    b = d.pick(lambda t: t.dim() == rank and t.shape[-2] == a.tensor.shape[-1] and t.dtype == a.tensor.dtype)
    shape = [*a.tensor.shape[:-1], b.tensor.shape[-1]]
    base = d.pick(lambda t: t.dtype == a.tensor.dtype and t.dim() <= rank and broadcasts(t.shape, shape))
    scales = {"beta": d.rng.choice((0, 1, 2.0, -1, 0.0)), "alpha": d.rng.choice((1, 1.0, 2.0, 0, 1e20, True))}
    return call(base.ref, a.ref, b.ref, **(scales if d.flag(0.4) else {}))


def _outer(d: Draft, operation: str) -> Call:
    return call(vector(d).ref, vector(d).ref)


def _channels_first(d: Draft, operation: str) -> Value:
    """A float value whose last dimension but one is as long as a kernel is wide."""
    x = d.pick(lambda t: is_float(t) and t.dim() in (2, 3))
    if x.tensor.shape[-2] != d.sizes.dim and x.tensor.shape[-1] == d.sizes.dim:
        return d.need("transpose.int", x.ref, -1, -2)
    return x


def _convolution(d: Draft, operation: str) -> Call:
    x = _channels_first(d, operation)
    own = d.named.get(d.rng.choice(("taps", "taps", "taps_each")))
    if own is not None and own.tensor.dtype == x.tensor.dtype and d.flag(0.8):
        weight = own
    else:
        weight = d.pick(lambda t: t.dim() == 3 and t.dtype == x.tensor.dtype, 0.2)
    groups = d.sizes.dim if weight.tensor.shape[1] == 1 else d.rng.choice((1, 1, 1, 2))
    bias = d.maybe(0.3, lambda t: t.dim() == 1 and t.shape[0] == weight.tensor.shape[0] and t.dtype == x.tensor.dtype)
    stride, padding, dilation = d.rng.choice((1, 1, 2)), d.rng.choice((0, 1, 2, 3)), d.rng.choice((1, 1, 2))
    if operation.endswith("padding"):
        return call(x.ref, weight.ref, bias, [1], d.rng.choice(("same", "valid")), [dilation], groups)
    turned = [d.flag(0.15), [0]] if operation.startswith("convolution") else []
    return call(x.ref, weight.ref, bias, [stride], [padding], [dilation], *turned, groups)


def _convolution_2d(d: Draft, operation: str) -> Call:
    kernel = d.weight("taps_flat")
    x = d.pick(lambda t: is_float(t) and t.dim() in (3, 4) and t.shape[-3] == kernel.tensor.shape[1])
    return call(x.ref, kernel.ref, None, [d.rng.choice((1, 2))], [d.rng.choice((0, 1))])


def _attention(d: Draft, operation: str) -> Call:
    q = d.pick(lambda t: is_float(t) and t.dim() == 4)

    def fits(t: Tensor) -> bool:
        return t.dim() == 4 and t.dtype == q.tensor.dtype and t.shape[-1] == q.tensor.shape[-1]

    k = d.pick(fits)
    v = d.pick(lambda t: fits(t) and t.shape[-2] == k.tensor.shape[-2])
    shape = [*q.tensor.shape[:-1], k.tensor.shape[-2]]
    mask, causal = None, d.flag(0.4)
    if not causal:
        mask = d.maybe(
            0.8, lambda t: (is_bool(t) or t.dtype == q.tensor.dtype) and t.dim() > 0 and broadcasts(t.shape, shape), 0.3
        )
    options: dict[str, Any] = {}
    if d.flag(0.3):
        options["scale"] = literal(d.rng.choice((None, 1.0, 0.1, 0.0, -1.0, 1e6, 1e8, math.inf, 1e-30)))
    if d.flag(0.2):
        options["enable_gqa"] = True
    return call(q.ref, k.ref, v.ref, mask, 0.0, causal, **options)


def _gru(d: Draft, operation: str) -> Call:
    x = d.pick(lambda t: is_float(t) and t.dim() == 3 and t.shape[-1] == d.sizes.dim)
    bias = d.weight("gru_bias").ref
    params = [d.weight("gru_in").ref, d.weight("gru_state").ref, bias, bias]
    return call(x.ref, d.weight("state").ref, params, True, 1, 0.0, False, False, d.flag(0.7))


def _transform(d: Draft, operation: str) -> Call:
    x = ranked(d)
    return call(x.ref, d.rng.choice((None, None, 4)), d.dim(x.tensor))


def _norm(d: Draft, operation: str) -> Call:
    x = d.pick(lambda t: is_float(t) and t.dim() > 0)
    sizes = list(x.tensor.shape[x.tensor.dim() - d.rng.randint(1, x.tensor.dim()) :])
    weight = d.maybe(0.5, lambda t: list(t.shape) == sizes and t.dtype == x.tensor.dtype)
    if operation.startswith("rms_norm"):
        return call(x.ref, sizes, weight, d.rng.choice((None, 1e-5, 0.0, -1.0)))
    bias = d.maybe(0.3, lambda t: list(t.shape) == sizes and t.dtype == x.tensor.dtype)
    return call(x.ref, sizes, weight, bias, d.rng.choice((1e-5, 0.0, 1.0)))


def _group_norm(d: Draft, operation: str) -> Call:
    x = d.pick(lambda t: is_float(t) and t.dim() > 1)
    groups = d.rng.choice((1, 2, x.tensor.shape[1] or 1))
    return call(x.ref, groups)


def _softmax(d: Draft, operation: str) -> Call:
    x = d.pick(is_float if d.flag(0.8) else None)
    if operation.startswith("_"):
        return call(x.ref, d.dim(x.tensor), False)
    return call(x.ref, d.dim(x.tensor), *([d.float_type()] if d.flag(0.2) else []))


def _reduce_dims(d: Draft, operation: str) -> Call:
    """Over a list of dimensions, all of them where it is absent or empty."""
    x = d.pick()
    dims = d.dims(x.tensor) if d.flag(0.9) or operation.startswith(("logsumexp", "amax", "amin")) else None
    typed = {"dtype": d.float_type()} if operation.startswith(("sum", "mean")) and d.flag(0.2) else {}
    return call(x.ref, dims, d.flag(), **typed)


def _reduce_one(d: Draft, operation: str) -> Call:
    x = d.pick()
    return call(x.ref, d.dim(x.tensor), d.flag())


def _reduce_all(d: Draft, operation: str) -> Call:
    return call(d.pick().ref)


def _spread(d: Draft, operation: str) -> Call:
    x = d.pick(is_float)
    dims = d.dims(x.tensor) if d.flag(0.9) else None
    return call(x.ref, dims, correction=d.rng.choice((0, 1, None, 2, 0.5)), keepdim=d.flag())


def _arg_extreme(d: Draft, operation: str) -> Call:
    x = d.pick()
    return call(x.ref, d.dim(x.tensor) if d.flag(0.8) else None, d.flag())


def _vector_norm(d: Draft, operation: str) -> Call:
    x = d.pick(is_float)
    order = d.rng.choice((2, 1, 0, 0.5, -1, -2, math.inf, -math.inf, 3))
    return call(x.ref, literal(order), d.dims(x.tensor) if d.flag(0.8) else None, d.flag())


def _count(d: Draft, operation: str) -> Call:
    x = d.pick()
    return call(x.ref, d.dims(x.tensor))


def _scan(d: Draft, operation: str) -> Call:
    x = d.pick()
    return call(x.ref, d.dim(x.tensor))


_TABLE: dict[Chooser, str] = {
    _linear: "linear",
    _product: "mm bmm matmul mv dot",
    _added_product: "addmm baddbmm",
    _outer: "outer",
    _convolution: "conv1d convolution",
    _convolution_2d: "conv2d",
    _attention: "scaled_dot_product_attention",
    _gru: "gru",
    _transform: "fft_rfft fft_irfft",
    _norm: "rms_norm layer_norm native_layer_norm",
    _group_norm: "group_norm",
    _softmax: "_softmax _log_softmax softmax log_softmax",
    _reduce_dims: "logsumexp amax amin sum mean",
    _reduce_all: "sum.default mean.default",
    _reduce_one: "max min prod any all",
    _spread: "var std var_mean",
    _arg_extreme: "argmax argmin",
    _vector_norm: "linalg_vector_norm",
    _count: "count_nonzero",
    _scan: "cumsum cumprod cummax cummin logcumsumexp",
}
CHOOSERS = by_name(_TABLE)
