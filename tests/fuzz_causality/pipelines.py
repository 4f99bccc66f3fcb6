"""Well-known structures, honest or laundering, that a random graph starts from and goes on with.

Each takes the draft and the embedded tokens [rows, seq, dim]; what it emits stays in the draft, as far as it came.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from tests.fuzz_causality.draft import Draft, Value, literal

Pipeline = Callable[[Draft, Value], object]


def _scores(d: Draft, x: Value) -> Value:
    return d.need("matmul.default", x.ref, d.need("transpose.int", x.ref, -1, -2).ref)


def attention_by_hand(d: Draft, x: Value) -> object:
    """Scores, a mask added or filled in, softmax, values."""
    scores = _scores(d, x)
    if d.flag():
        scores = d.need("add.Tensor", scores.ref, d.weight("hidden").ref)
    else:
        seen = d.need("logical_not.default", d.weight("visible").ref)
        fill = literal(d.rng.choice((-math.inf, -math.inf, 0.0, -0.0, -1e38, -1e9, -1e9, -1e4, -2e3)))
        scores = d.need("masked_fill.Scalar", scores.ref, seen.ref, fill)
    weights = d.need(d.rng.choice(("softmax.int", "softmax.int", "log_softmax.int")), scores.ref, -1)
    return d.need("matmul.default", weights.ref, x.ref)


def attention(d: Draft, x: Value) -> object:
    """Two heads of the operation for it, with one of its masks."""
    s = d.sizes
    split = d.need("view.default", x.ref, [s.rows, s.seq, 2, s.dim // 2])
    q = d.need("transpose.int", split.ref, 1, 2)
    k = d.need("slice.Tensor", q.ref, 2, 1, s.seq) if d.flag(0.2) else q
    mask = d.rng.choice((None, None, "visible", "hidden", "heads"))
    args = (None, 0.0, d.flag(0.8)) if mask is None else (d.weight(mask).ref, 0.0, False)
    y = d.need("scaled_dot_product_attention.default", q.ref, k.ref, k.ref, *args)
    back = d.need("transpose.int", y.ref, 1, 2)
    return d.need("reshape.default", back.ref, [s.rows, s.seq, s.dim])


def positions_as_heads(d: Draft, x: Value) -> object:
    """Attention over the wrong dimension: positions where heads are expected, or all of them in one."""
    s = d.sizes
    split = d.need("view.default", x.ref, [s.rows, s.seq, 2, s.dim // 2])
    other = d.need("roll.default", split.ref, [1], [1]) if d.flag(0.3) else split
    if d.flag(0.3):
        other = d.need("repeat.default", d.need("slice.Tensor", other.ref, 1, 0, 1).ref, [1, s.seq, 1, 1])
    y = d.need("scaled_dot_product_attention.default", split.ref, other.ref, other.ref, None, 0.0, d.flag())
    return d.need("reshape.default", y.ref, [s.rows, s.seq, s.dim])


def triangles(d: Draft, x: Value) -> object:
    """Products of triangular matrices made of the tokens, and what they silence."""
    scores = _scores(d, x)
    for _ in range(d.rng.choice((1, 1, 2))):
        one, two = (d.need(d.rng.choice(("tril.default", "tril.default", "triu.default")), scores.ref,
                           d.rng.choice((0, 0, -1, 1))) for _ in range(2))  # fmt: skip
        one = d.need("transpose.int", one.ref, -1, -2) if d.flag(0.2) else one
        scores = d.need(d.rng.choice(("matmul.default", "bmm.default")), one.ref, two.ref)
    d.emit(f"{d.rng.choice(('reciprocal', 'isfinite', 'cos', 'neg'))}.default", scores.ref)
    return d.need("matmul.default", scores.ref, x.ref)


def rows_without_keys(d: Draft, x: Value) -> object:
    """Strictly causal attention: the first row is NaN, unless somebody makes numbers of it."""
    scores = d.need("add.Tensor", _scores(d, x).ref, d.weight("unseen").ref)
    if d.flag():
        y = d.need("softmax.int", scores.ref, -1)
    else:
        most = d.need("amax.default", scores.ref, [-1], True) if d.flag() else d.need(
            "max.dim", scores.ref, -1, True)  # fmt: skip
        d.emit(f"{d.rng.choice(('exp', 'isfinite', 'relu', 'neg'))}.default", most.ref)
        y = d.need("exp.default", d.need("sub.Tensor", scores.ref, most.ref).ref)
    if d.flag(0.8):
        number = (0.0, 0.0, -0.0, 1.0, None, math.inf)
        y = d.need("nan_to_num.default", y.ref, *([literal(d.rng.choice(number))] if d.flag(0.8) else []))
    if d.flag(0.3):
        y = d.need("masked_fill.Scalar", y.ref, d.need("logical_not.default", d.weight("visible").ref).ref, 0.0)
    return d.need("matmul.default", y.ref, x.ref)


def masked_attention(d: Draft, x: Value) -> object:
    """A mask computed from the data and cut by a triangle."""
    s = d.sizes
    scores = _scores(d, x)
    seen = d.need("gt.Scalar", scores.ref, 0.0)
    cut = d.need(d.rng.choice(("logical_and.default", "bitwise_and.Tensor")), seen.ref, d.weight("visible").ref)
    q = d.need("unsqueeze.default", x.ref, 1)
    mask = d.need("unsqueeze.default", cut.ref, 1)
    d.need("where.ScalarOther", cut.ref, scores.ref, literal(d.rng.choice((0.0, -math.inf))))
    y = d.need("scaled_dot_product_attention.default", q.ref, q.ref, q.ref, mask.ref)
    return d.need("view.default", y.ref, [s.rows, s.seq, s.dim])


def convolution(d: Draft, x: Value) -> object:
    """Padded on the left, or on one side too many."""
    taps = d.weight(d.rng.choice(("taps", "taps_each")))
    size = taps.tensor.shape[-1] - 1
    first = d.need("transpose.int", x.ref, 1, 2)
    pads = d.rng.choice(([size, 0], [size, 0], [size + 1, -1], [0, size]))
    padded = d.need("constant_pad_nd.default", first.ref, pads, 0.0)
    groups = d.sizes.dim if taps.tensor.shape[1] == 1 else 1
    y = d.need("conv1d.default", padded.ref, taps.ref, None, [1], [0], [1], groups)
    return d.need("transpose.int", y.ref, 1, 2)


def token_shift(d: Draft, x: Value) -> object:
    """The token before, by padding, rolling, slicing or a look-up."""
    kind = d.rng.randrange(4)
    if kind == 0:
        return d.need("constant_pad_nd.default", x.ref, d.rng.choice(([0, 0, 1, -1], [0, 0, -1, 1])), 0.0)
    if kind == 1:
        rolled = d.need("roll.default", x.ref, [d.rng.choice((1, -1))], [1])
        return d.need("mul.Tensor", rolled.ref, d.weight("zeros").ref)
    if kind == 2:
        return d.need("index_select.default", x.ref, 1, d.weight(d.rng.choice(("behind", "ahead", "order"))).ref)
    start = d.need("slice.Tensor", x.ref, 1, 0, 1)
    rest = d.need("slice.Tensor", x.ref, 1, 0, d.sizes.seq - 1)
    return d.need("cat.default", [start.ref, rest.ref], 1)


def recurrence(d: Draft, x: Value) -> object:
    """A GRU, or a decayed running sum turned around."""
    if d.flag():
        bias = d.weight("gru_bias").ref
        params = [d.weight("gru_in").ref, d.weight("gru_state").ref, bias, bias]
        state = d.weight("state").ref
        return d.need("gru.input", x.ref, state, params, True, 1, 0.0, False, False, d.flag(0.8))
    scan = d.rng.choice(("cumsum", "cumprod", "cummax", "cummin", "logcumsumexp")) + ".default"
    turned = d.need("flip.default", x.ref, [1]) if d.flag(0.3) else x
    y = d.need(scan, turned.ref, 1)
    return d.need("flip.default", y.ref, [1]) if turned is not x else y


def silent_zero(d: Draft, x: Value) -> object:
    """0 * future, carried on by operations that keep zeros, shown to one that sees signs or NaN."""
    ahead = d.need("roll.default", x.ref, [-1], [1])
    if d.flag(0.3):
        ahead = d.need("mul.Scalar", ahead.ref, literal(d.rng.choice((1e30, 1e38, -1.0, math.inf))))
    y = d.need("mul.Tensor", ahead.ref, d.weight("zeros").ref)
    keep = ("tanh", "floor", "sin", "neg", "relu", "sqrt", "trunc", "silu", "expm1", "erf", "sign", "abs", "gelu")
    for _ in range(d.rng.randrange(3)):
        y = d.need(f"{d.rng.choice(keep)}.default", y.ref)
    if d.flag(0.3):
        y = d.need(d.rng.choice(("add.Tensor", "add.Tensor", "sub.Tensor")), y.ref, literal(d.rng.choice((0.0, -0.0))))
    shown = d.rng.choice(("reciprocal", "rsqrt", "isfinite", "log", "sigmoid", "logical_not", "cummax", "argsort"))
    return d.emit(f"{shown}.default", y.ref, *([1] if shown in ("cummax", "argsort") else []))


def silent_minimum(d: Draft, x: Value) -> object:
    """-inf + future, then exp, relu or a comparison."""
    scores = _scores(d, x)
    y = d.need("add.Tensor", scores.ref, d.weight("hidden").ref)
    if d.flag(0.4):  # a mask of the tokens beside that of the places
        some = d.need("gt.Scalar", scores.ref, 0.5)
        fill = literal(d.rng.choice((-math.inf, -math.inf, math.inf, math.nan)))
        y = d.need("add.Tensor", y.ref, d.need("masked_fill.Scalar", d.need("mul.Scalar", scores.ref, 0.5).ref, some.ref, fill).ref)  # fmt: skip
    y = d.need("_to_copy.default", y.ref, dtype=d.float_type()) if d.flag(0.4) else y
    shown = d.need(f"{d.rng.choice(('exp', 'exp2', 'sigmoid', 'relu', 'isfinite', 'neg'))}.default", y.ref)
    return d.emit("sum.dim_IntList", shown.ref, [-1])


def complex_zeros(d: Draft, x: Value) -> object:
    """A zero with a sign in the real or imaginary part, seen along a branch cut."""
    ahead = d.need("roll.default", x.ref, [-1], [1])
    zero = d.need("mul.Tensor", ahead.ref, d.weight("zeros").ref)
    parts = [d.rng.choice((zero, x)).ref, zero.ref]
    y = d.need(d.rng.choice(("complex.default", "complex.default", "polar.default")), *d.rng.sample(parts, 2))
    y = d.need("mul.Tensor", y.ref, y.ref) if d.flag(0.4) else y
    y = d.need("_conj.default", y.ref) if d.flag(0.3) else y
    shown = d.emit(f"{d.rng.choice(('log', 'sqrt', 'reciprocal', 'tanh', 'square', 'exp'))}.default", y.ref)
    return d.emit("view_as_real.default", (shown[0] if shown else y).ref)


def complex_products(d: Draft, x: Value) -> object:
    """A complex recurrence as a matrix: what lies ahead is multiplied by a constant zero, or by one that turns it."""
    parts = [x.ref, d.need("mul.Scalar", x.ref, d.rng.choice((0.0, -0.0, 2.0, 1e30))).ref]
    y = d.need("complex.default", *d.rng.sample(parts, 2))
    turns = d.weight("turns")
    if d.flag(0.7):
        y = d.need("matmul.default", turns.ref, y.ref)
    else:
        scores = d.need("matmul.default", y.ref, d.need("transpose.int", y.ref, -1, -2).ref)
        y = d.need("matmul.default", d.need("mul.Tensor", scores.ref, turns.ref).ref, y.ref)
    if d.flag(0.5):
        d.emit(f"{d.rng.choice(('neg', 'sqrt', 'log', 'exp', 'reciprocal', 'abs'))}.default", y.ref)
    return d.emit("view_as_real.default", y.ref)


def sums_of_zeros(d: Draft, x: Value) -> object:
    """Weights of masked attention, or numbers times nothing, summed or mixed; then they silence what lies ahead."""
    s = d.sizes
    if d.flag():
        scores = d.need("add.Tensor", _scores(d, x).ref, d.weight("hidden").ref)
        y = d.need("softmax.int", scores.ref, -1)
        heads = d.need("stack.default", [y.ref, d.need("mul.Scalar", y.ref, -2.0).ref], 1)  # [rows, 2, seq, seq]
        mixed = d.need("sum.dim_IntList", heads.ref, [1]) if d.flag() else d.need("mean.dim", heads.ref, [1])
    else:
        ahead = d.need("mul.Tensor", d.need("roll.default", x.ref, [-1], [1]).ref, d.weight("zeros").ref)
        y = d.need(d.rng.choice(("matmul.default", "linear.default")), ahead.ref, d.weight("square").ref)
        return d.emit(f"{d.rng.choice(('reciprocal', 'isfinite', 'rsqrt', 'exp', 'cos', 'neg'))}.default", y.ref)
    d.emit("reciprocal.default", mixed.ref)
    y = d.need("matmul.default", mixed.ref, x.ref)
    return d.need("view.default", y.ref, [s.rows, s.seq, s.dim])


def complex_minimum(d: Draft, x: Value) -> object:
    """A real minus infinity meets a complex number: its imaginary part is still there."""
    hidden = d.need("expand.default", d.need("unsqueeze.default", d.weight("hidden").ref, 0).ref,
                    [d.sizes.rows, d.sizes.seq, d.sizes.seq])  # fmt: skip
    scores = _scores(d, x)
    y = d.need(f"{d.rng.choice(('add', 'sub', 'mul'))}.Tensor", hidden.ref,
               d.need("complex.default", scores.ref, scores.ref).ref)  # fmt: skip
    return d.emit("view_as_real.default", y.ref)


def doubled_targets(d: Draft, x: Value) -> object:
    """Scatters where several sources meet in one target, and sums of them."""
    places = d.weight(d.rng.choice(("doubles", "places")))
    base = d.need("zeros_like.default", x.ref) if d.flag(0.7) else x
    name = d.rng.choice(("scatter.src", "scatter_add.default"))
    d.emit(name, base.ref, d.rng.choice((0, 1, 2, -1)) if d.flag(0.3) else 1, places.ref, x.ref)
    order = d.weight(d.rng.choice(("order", "ahead", "behind")))
    d.emit("index_add.default", base.ref, 1, order.ref, x.ref)
    return d.emit("index_put.default", base.ref, [None, order.ref], x.ref)


def overflowing_integers(d: Draft, x: Value) -> object:
    """Tokens in too small a type, their products, and what is left of them."""
    small = d.need("_to_copy.default", d.tokens.ref, dtype={"d": d.rng.choice(("int8", "uint8", "int16", "int32"))})
    factor = d.rng.choice((64, 127, -128, 2**15, 2**31, 2**62, 0))
    y = d.need("mul.Scalar", small.ref, factor)
    y = d.need("mul.Tensor", y.ref, d.rng.choice((small, d.tokens)).ref)
    d.emit(f"{d.rng.choice(('abs', 'neg', 'sign', 'bitwise_not', 'logical_not'))}.default", y.ref)
    d.emit("mul.Tensor", y.ref, d.weight("nothing").ref)
    return d.emit("_to_copy.default", y.ref, dtype=d.any_type())


def promotion(d: Draft, x: Value) -> object:
    """One token's value without dimensions against tensors of other types."""
    low = d.need("_to_copy.default", x.ref, dtype=d.float_type())
    one = d.need("select.int", d.need("select.int", d.tokens.ref, 0, 0).ref, 0, d.rng.choice((0, -1)))
    one = d.need("_to_copy.default", one.ref, dtype=d.any_type()) if d.flag(0.6) else one
    name = d.rng.choice(("mul.Tensor", "add.Tensor", "sub.Tensor", "maximum.default", "pow.Tensor_Tensor", "eq.Tensor"))
    d.emit(name, low.ref, one.ref)
    d.emit("mul.Tensor", low.ref, d.weight("nothing").ref)
    return d.emit("mul.Tensor", low.ref, d.weight("number").ref)


def expanded_lookup(d: Draft, x: Value) -> object:
    """Gathers from and scatters into views of stride zero."""
    s = d.sizes
    wide = d.need("unsqueeze.default", d.need("_to_copy.default", d.tokens.ref, dtype={"d": "float32"}).ref, -1)
    wide = d.need("expand.default", wide.ref, [s.rows, s.seq, s.dim])
    places = d.weight(d.rng.choice(("doubles", "places")))
    d.emit("gather.default", wide.ref, d.rng.choice((1, 1, 2)), places.ref)
    index = d.need("remainder.Scalar", d.need("unsqueeze.default", d.tokens.ref, -1).ref, s.seq)
    index = d.need("expand.default", index.ref, [s.rows, s.seq, s.dim])
    d.emit("take_along_dim.default", x.ref, index.ref, 1)
    return d.emit("gather.default", x.ref, 1, index.ref)


def looked_up_twice(d: Draft, x: Value) -> object:
    """Tokens and a constant without dimensions as indices together: their result's shape is easily got wrong."""
    row = d.need("select.int", d.tokens.ref, 0, 0)
    index = d.need("remainder.Scalar", row.ref, 2)
    pair = [index.ref, d.weight("first").ref]
    return d.emit("index.Tensor", d.weight("taps_flat").ref, pair if d.flag(0.8) else pair[::-1])


def ranks(d: Draft, x: Value) -> object:
    """Values and indices of operations with two results, and the indices used again."""
    name = d.rng.choice(("topk.default", "sort.default", "cummax.default", "max.dim", "sort.stable", "min.dim"))
    dim = d.rng.choice((1, 1, 2, -1))
    args = {"topk.default": [2, dim], "sort.stable": []}.get(name, [dim])
    kwargs = {"stable": True, "dim": dim} if name == "sort.stable" else {}
    values = d.emit(name, x.ref, *args, **kwargs)
    if len(values) == 2 and values[1].tensor.dim() == 3:
        d.emit("gather.default", x.ref, dim, values[1].ref)
        d.emit("scatter.src", x.ref, dim, values[1].ref, values[0].ref)
    return values


def chosen(d: Draft, x: Value) -> object:
    """Masks of data and constants through logic and `where`."""
    ahead = d.need("roll.default", x.ref, [-1], [1])
    data = d.need(d.rng.choice(("gt.Scalar", "ne.Scalar", "lt.Scalar")), d.rng.choice((x, ahead)).ref, 0.0)
    fixed = d.need("_to_copy.default", d.weight("zeros").ref, dtype={"d": "bool"})
    names = ("logical_and.default", "logical_or.default", "bitwise_and.Tensor", "bitwise_xor.Tensor", "__and__.Tensor")
    mask = d.need(d.rng.choice(names), data.ref, fixed.ref)
    if d.flag(0.3):
        cut = d.need("logical_and.default", d.need("lt.Scalar", ahead.ref, 0.5).ref, fixed.ref)
        mask = d.need(d.rng.choice((*names[1:2], *names[3:4], "bitwise_or.Tensor")), mask.ref, cut.ref)
    d.emit("masked_fill.Scalar", d.rng.choice((x, ahead)).ref, mask.ref, literal(d.rng.choice((0.0, -math.inf, 1.0))))
    return d.emit("where.self", mask.ref, ahead.ref, x.ref)


def truths(d: Draft, x: Value) -> object:
    """Numbers times nothing as truths: of NaN it is true."""
    ahead = d.need("roll.default", x.ref, [-1], [1])
    y = d.need("mul.Tensor", ahead.ref, d.weight("zeros").ref)
    if d.flag():
        y = d.need(f"{d.rng.choice(('sqrt', 'log1p', 'neg'))}.default", y.ref)
    else:
        y = d.need("div.Tensor", y.ref, d.rng.choice((ahead, x, y)).ref)
    seen = d.need("_to_copy.default", y.ref, dtype={"d": "bool"})
    d.emit("logical_not.default", seen.ref)
    return d.emit("where.self", seen.ref, ahead.ref, x.ref)


def flipped(d: Draft, x: Value) -> object:
    """Turned around, worked on, turned back; views that mix positions and features."""
    y = d.need("flip.default", x.ref, d.rng.choice(([1], [1, 2], [0], [-2])))
    y = d.need("transpose.int", y.ref, 1, 2)
    y = d.need("reshape.default", y.ref, list(x.tensor.shape))
    return d.emit("flip.default", y.ref, [1])


def narrow_products(d: Draft, x: Value) -> object:
    """Products in bfloat16, with a contraction that fills no vector register."""
    low = d.need("_to_copy.default", x.ref, dtype={"d": "bfloat16"})
    weight = d.need("_to_copy.default", d.weight("wide").ref, dtype={"d": "bfloat16"})
    return d.emit("linear.default", low.ref, weight.ref)


PIPELINES: tuple[Pipeline, ...] = (
    attention_by_hand, attention, positions_as_heads, triangles, rows_without_keys, masked_attention, convolution, token_shift, recurrence, silent_zero, silent_minimum,
    complex_zeros, complex_products, complex_minimum, sums_of_zeros, doubled_targets, overflowing_integers, promotion, expanded_lookup, looked_up_twice, ranks, chosen, truths, flipped,
    narrow_products,
)  # fmt: skip
