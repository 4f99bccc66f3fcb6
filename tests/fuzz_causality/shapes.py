"""Arguments of operations that move elements or make values out of nothing."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from tests.fuzz_causality.draft import Call, Draft, Unfit, Value, call, literal

Chooser = Callable[[Draft, str], Call]


def by_name(table: dict[Chooser, str]) -> dict[str, Chooser]:
    """Operation name -> chooser, from chooser -> space-separated names; a name may end in its overload."""
    return {name: chooser for chooser, names in table.items() for name in names.split()}


def ranked(d: Draft) -> Value:
    """A value with dimensions."""
    return d.pick(lambda t: t.dim() > 0)


def _divisor(d: Draft, size: int) -> int:
    return d.rng.choice([a for a in range(1, size + 1) if size % a == 0] or [1])


def _to_copy(d: Draft, operation: str) -> Call:
    return call(d.pick().ref, dtype=d.any_type() if d.flag() else d.float_type())


def vector(d: Draft) -> Value:
    """A value of one dimension; some features are cut out where there is none."""
    try:
        return d.pick(lambda t: t.dim() == 1)
    except Unfit:
        x = d.pick(lambda t: t.dim() == 2)
        return d.need("select.int", x.ref, d.dim(x.tensor), 0)


def _same(d: Draft, operation: str) -> Call:
    x = d.pick(lambda t: t.dim() < 3) if operation.startswith("t.") else d.pick()
    if operation.startswith(("clone", "contiguous")) and d.flag(0.3):
        return call(x.ref, memory_format={"mf": d.rng.choice(("contiguous_format", "preserve_format"))})
    return call(x.ref)


def _view(d: Draft, operation: str) -> Call:
    x = d.pick()
    sizes = list(x.tensor.shape)
    kind = d.rng.randrange(4)
    if kind == 0 and len(sizes) > 1:
        at = d.rng.randrange(len(sizes) - 1)
        sizes[at : at + 2] = [sizes[at] * sizes[at + 1]]
    elif kind == 1 and sizes:
        at = d.rng.randrange(len(sizes))
        part = _divisor(d, sizes[at])
        sizes[at : at + 1] = [part, sizes[at] // part]
    elif kind == 2:
        d.rng.shuffle(sizes)
    else:
        sizes = [-1]
    if sizes and d.flag(0.2):
        sizes[d.rng.randrange(len(sizes))] = -1
    return call(x.ref, sizes)


def _one_dim(d: Draft, operation: str) -> Call:
    x = d.pick()
    return call(x.ref, d.dim(x.tensor))


def _unsqueeze(d: Draft, operation: str) -> Call:
    x = d.pick()
    return call(x.ref, d.rng.randrange(-x.tensor.dim() - 1, x.tensor.dim() + 1))


def _some_dims(d: Draft, operation: str) -> Call:
    x = d.pick()
    return call(x.ref, d.dims(x.tensor))


def _two_dims(d: Draft, operation: str) -> Call:
    x = d.pick()
    a, b = d.dim(x.tensor), d.dim(x.tensor)
    return call(x.ref, a, max(a, b) if operation.startswith("flatten") and a >= 0 else b)


def _permute(d: Draft, operation: str) -> Call:
    x = d.pick()
    order = d.rng.sample(range(x.tensor.dim()), x.tensor.dim())
    return call(x.ref, [i - len(order) if d.flag(0.3) else i for i in order])


def _movedim(d: Draft, operation: str) -> Call:
    x = d.pick()
    rank = x.tensor.dim()
    count = d.rng.randint(0, rank)
    return call(x.ref, d.rng.sample(range(rank), count), d.rng.sample(range(rank), count))


def _expand(d: Draft, operation: str) -> Call:
    x = d.pick()
    s = d.sizes
    sizes = [d.rng.choice((1, 2, s.seq, s.dim, 0)) if n == 1 else n for n in x.tensor.shape]
    sizes = [n if d.flag(0.8) else -1 for n in sizes]
    return call(x.ref, ([d.rng.choice((1, 2, s.seq))] if d.flag(0.4) else []) + sizes)


def _slice(d: Draft, operation: str) -> Call:
    x, seq = ranked(d), d.sizes.seq
    start = d.rng.choice((None, 0, 1, -1, -2, 2, -100, d.rng.randint(-seq, seq)))
    end = d.rng.choice((None, seq, 100, -1, 2, 2**40, d.rng.randint(-seq, seq)))
    return call(x.ref, d.dim(x.tensor), start, end, *([d.rng.choice((1, 2, 3))] if d.flag(0.4) else []))


def _select(d: Draft, operation: str) -> Call:
    x = ranked(d)
    return call(x.ref, d.dim(x.tensor), d.rng.randint(-2, 3))


def _narrow(d: Draft, operation: str) -> Call:
    x = ranked(d)
    return call(x.ref, d.dim(x.tensor), d.rng.randint(-2, 3), d.rng.randint(0, 3))


def _join(d: Draft, operation: str) -> Call:
    x = d.pick()
    stacked, rank = operation.startswith("stack"), x.tensor.dim()

    def fits(t: Tensor) -> bool:
        return t.shape == x.tensor.shape if stacked else t.dim() == rank

    parts = [x] + [d.pick(fits) for _ in range(d.rng.randint(1, 3))]
    d.rng.shuffle(parts)
    return call([part.ref for part in parts], d.dim(x.tensor))


def _split(d: Draft, operation: str) -> Call:
    x = ranked(d)
    return call(x.ref, d.rng.randint(1, 4), d.dim(x.tensor))


def _split_with_sizes(d: Draft, operation: str) -> Call:
    x = ranked(d)
    dim = d.dim(x.tensor)
    size, sizes = x.tensor.shape[dim], [0] if d.flag(0.2) else []
    while sum(sizes) < size:
        sizes.append(d.rng.randint(1, size - sum(sizes)))
    return call(x.ref, sizes, dim)


def _unflatten(d: Draft, operation: str) -> Call:
    x = ranked(d)
    dim = d.dim(x.tensor)
    part = _divisor(d, x.tensor.shape[dim])
    return call(x.ref, dim, [part, -1 if d.flag(0.3) else x.tensor.shape[dim] // part])


def _repeat(d: Draft, operation: str) -> Call:
    x = d.pick()
    return call(x.ref, [d.rng.choice((1, 1, 2)) for _ in range(x.tensor.dim() + d.rng.randint(0, 1))])


def _repeat_interleave(d: Draft, operation: str) -> Call:
    x = d.pick()
    return call(x.ref, d.rng.randint(0 if d.flag(0.1) else 1, 3), *([d.dim(x.tensor)] if d.flag(0.7) else []))


def _roll(d: Draft, operation: str) -> Call:
    x = d.pick()
    dims = d.dims(x.tensor) if d.flag(0.8) else []
    return call(x.ref, [d.rng.randint(-4, 4) for _ in dims or [0]], dims)


def _pad(d: Draft, operation: str) -> Call:
    x = d.pick()
    pads = [d.rng.choice((0, 0, 1, 2, -1, -2, 1)) for _ in range(2 * d.rng.randint(0, x.tensor.dim()))]
    numbers = (0, 0.0, -0.0, -math.inf, 1.5, math.inf, math.nan, -1e39, 1e-46, 1e-300, 256, 0.5)
    return call(x.ref, pads, *([literal(d.rng.choice(numbers))] if d.flag(0.8) else []))


def _triangle(d: Draft, operation: str) -> Call:
    return call(d.pick(lambda t: t.dim() > 1).ref, d.rng.randint(-3, 3))


def _unfold(d: Draft, operation: str) -> Call:
    x = d.pick()
    dim = d.dim(x.tensor)
    size = x.tensor.shape[dim] if x.tensor.dim() else 1
    return call(x.ref, dim, d.rng.randint(0, min(4, size)), d.rng.randint(1, 3))


def _diagonal(d: Draft, operation: str) -> Call:
    x = d.pick(lambda t: t.dim() > 1)
    return call(x.ref, d.rng.randint(-2, 2), d.dim(x.tensor), d.dim(x.tensor))


def _select_scatter(d: Draft, operation: str) -> Call:
    x = ranked(d)
    dim = d.dim(x.tensor)
    sizes = list(x.tensor.shape)
    del sizes[dim]
    src = d.pick(lambda t: list(t.shape) == sizes)
    return call(x.ref, src.ref, dim, d.rng.randint(-2, 2))


def _slice_scatter(d: Draft, operation: str) -> Call:
    x, seq = ranked(d), d.sizes.seq
    dim, step = d.dim(x.tensor), d.rng.choice((1, 1, 2))
    start, end = d.rng.choice((None, 0, 1, -1, -2, 2)), d.rng.choice((None, seq, -1, 3, 100))
    sizes = list(x.tensor.shape)
    sizes[dim] = len(range(*slice(start, end, step).indices(sizes[dim])))
    if d.flag(0.6):
        whole = d.pick(lambda t: t.shape == x.tensor.shape)
        src = d.need("slice.Tensor", whole.ref, dim, start, end, step)
    else:
        src = d.pick(lambda t: list(t.shape) == sizes)
    return call(x.ref, src.ref, dim, start, end, step)


def _copy(d: Draft, operation: str) -> Call:
    x = d.pick()
    return call(x.ref, d.number(x.tensor) if d.flag(0.1) else d.beside(x).ref)


def _arange(d: Draft, operation: str) -> Call:
    start, step = d.rng.randint(-2, 2), d.rng.choice((1, 2, 0.5))
    if operation.endswith("default"):
        return call(d.rng.randint(0, 8))
    return call(start, start + d.rng.randint(0, 8), *([step] if operation.endswith("step") else []))


def _filled(d: Draft, operation: str) -> Call:
    typed = {"dtype": d.any_type()} if d.flag(0.3) else {}
    number = [d.number()] if "full" in operation else []
    if operation.startswith(("zeros.", "ones.", "full.")):
        return [d.shape(), *number], typed
    shape = [d.shape()] if operation.startswith("new_") else []
    return [d.pick().ref, *shape, *number], typed


def _scalar(d: Draft, operation: str) -> Call:
    return call(d.number(), **({"dtype": d.any_type()} if d.flag(0.3) else {}))


def _eye(d: Draft, operation: str) -> Call:
    return call(d.rng.choice((0, 1, d.sizes.dim, d.sizes.seq)))


def _as_complex(d: Draft, operation: str) -> Call:
    pairs = [v for v in d.pool if v.tensor.is_floating_point() and v.tensor.dim() and v.tensor.shape[-1] == 2]
    if not pairs:
        x = d.pick(lambda t: t.is_floating_point() and t.dim() > 0 and t.dim() < 7)
        return call(d.need("stack.default", [x.ref, x.ref], -1).ref)
    return call(d.rng.choice(pairs).ref)


def _complex_only(d: Draft, operation: str) -> Call:
    try:
        return call(d.pick(lambda t: t.is_complex(), 0.3).ref)
    except Unfit:
        x = d.pick(lambda t: t.dtype.itemsize == 4 and t.is_floating_point())
        return call(d.need("complex.default", x.ref, x.ref).ref)


_TABLE: dict[Chooser, str] = {
    _to_copy: "_to_copy",
    _same: "clone contiguous detach alias lift_fresh_copy t",
    _view: "view reshape _unsafe_view",
    _one_dim: "squeeze.dim unbind",
    _unsqueeze: "unsqueeze",
    _some_dims: "squeeze.dims flip",
    _two_dims: "transpose flatten movedim.int",
    _permute: "permute",
    _movedim: "movedim.intlist",
    _expand: "expand",
    _slice: "slice",
    _select: "select",
    _narrow: "narrow",
    _join: "cat stack",
    _split: "split chunk",
    _split_with_sizes: "split_with_sizes",
    _unflatten: "unflatten",
    _repeat: "repeat",
    _repeat_interleave: "repeat_interleave",
    _roll: "roll",
    _pad: "constant_pad_nd",
    _triangle: "tril triu",
    _unfold: "unfold",
    _diagonal: "diagonal",
    _select_scatter: "select_scatter",
    _slice_scatter: "slice_scatter",
    _copy: "copy",
    _arange: "arange",
    _filled: "full zeros ones full_like zeros_like ones_like new_zeros new_ones new_full",
    _scalar: "scalar_tensor",
    _eye: "eye",
    _as_complex: "view_as_complex",
    _complex_only: "view_as_real _conj",
}
CHOOSERS = by_name(_TABLE)
