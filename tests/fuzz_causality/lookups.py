"""Arguments of look-ups, scatters and sorting."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from tests.fuzz_causality.draft import Call, Draft, Unfit, Value, call, is_bool, is_index, is_inexact, is_long
from tests.fuzz_causality.shapes import Chooser, by_name, ranked


def _embedding(d: Draft, operation: str) -> Call:
    table = d.pick(lambda t: t.dim() == 2 and is_inexact(t))
    return call(table.ref, d.pick(is_index).ref, *([d.rng.choice((-1, 0, 1))] if d.flag(0.3) else []))


def _index_list(d: Draft, x: Value) -> list[Any]:
    """One entry per leading dimension: none, integers, sometimes a mask."""

    def fits(t: Tensor) -> bool:
        return t.numel() < 200 and (is_index(t) or (is_bool(t) and d.flag(0.1)))

    entries = [d.maybe(0.6, fits) for _ in range(d.rng.randint(1, min(3, max(1, x.tensor.dim()))))]
    if all(entry is None for entry in entries):
        raise Unfit("no index")
    return entries


def _index(d: Draft, operation: str) -> Call:
    x = d.pick()
    return call(x.ref, _index_list(d, x))


def _index_put(d: Draft, operation: str) -> Call:
    x = ranked(d)
    values = d.pick(lambda t: t.dtype == x.tensor.dtype, 0.4)
    return call(x.ref, _index_list(d, x), values.ref)


def _index_select(d: Draft, operation: str) -> Call:
    x = d.pick()
    return call(x.ref, d.dim(x.tensor), d.pick(lambda t: is_index(t) and t.dim() <= 1).ref)


def _index_add(d: Draft, operation: str) -> Call:
    x = ranked(d)
    dim = d.dim(x.tensor)
    source = d.pick(lambda t: t.dim() == x.tensor.dim() and t.dtype == x.tensor.dtype)
    index = d.pick(lambda t: is_index(t) and t.dim() == 1 and t.shape[0] == source.tensor.shape[dim])
    return call(x.ref, dim, index.ref, source.ref)


def _index_like(d: Draft, x: Value) -> Value:
    """Indices of the same rank; the rank is given to the tokens where nothing has it."""
    try:
        return d.pick(lambda t: is_long(t) and t.dim() == x.tensor.dim())
    except Unfit:
        if x.tensor.dim() <= 2:
            raise
        wide = d.need("view.default", d.tokens.ref, [*d.tokens.tensor.shape, *[1] * (x.tensor.dim() - 2)])
        return d.need("remainder.Scalar", wide.ref, d.sizes.rows)


def _gather(d: Draft, operation: str) -> Call:
    x = ranked(d)
    dim, index = d.dim(x.tensor), _index_like(d, x)
    if operation.startswith("gather"):
        return call(x.ref, dim, index.ref)
    return call(x.ref, index.ref, *([dim] if d.flag(0.8) else []))


def _scatter(d: Draft, operation: str) -> Call:
    x = ranked(d)
    dim, index = d.dim(x.tensor), _index_like(d, x)
    if operation.endswith("value"):
        return call(x.ref, dim, index.ref, d.number(x.tensor))
    source = d.pick(lambda t: t.dim() == x.tensor.dim() and t.dtype == x.tensor.dtype)
    return call(x.ref, dim, index.ref, source.ref)


def _topk(d: Draft, operation: str) -> Call:
    x = d.pick()
    return call(x.ref, d.rng.randint(0, 3), d.dim(x.tensor), d.flag(), d.flag(0.8))


def _sort(d: Draft, operation: str) -> Call:
    x = d.pick()
    if operation.endswith("stable"):
        return call(x.ref, stable=d.flag(0.7), dim=d.dim(x.tensor), descending=d.flag())
    return call(x.ref, *([d.dim(x.tensor), d.flag()] if d.flag(0.8) else []))


def _one_hot(d: Draft, operation: str) -> Call:
    return call(d.pick(is_long).ref, d.rng.choice((d.sizes.vocab, d.sizes.vocab, d.sizes.seq, 32)))


_TABLE: dict[Chooser, str] = {
    _embedding: "embedding",
    _index: "index",
    _index_put: "index_put",
    _index_select: "index_select",
    _index_add: "index_add",
    _gather: "gather take_along_dim",
    _scatter: "scatter scatter_add",
    _topk: "topk",
    _sort: "sort argsort",
    _one_hot: "one_hot",
}
CHOOSERS = by_name(_TABLE)
