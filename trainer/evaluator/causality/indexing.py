"""Causality rules of look-ups by index. TRUSTED."""

from __future__ import annotations

import torch

from trainer.evaluator.causality.abstract import LABEL, Abstract, join, reduce
from trainer.evaluator.causality.context import Context, Rule, by_name


def _embedding(c: Context) -> list[Abstract] | None:
    if c.args["weight"].const is None:
        return None
    return [c.result(c.args["indices"].dep.unsqueeze(-1))]


def _one_hot(c: Context) -> list[Abstract]:
    return [c.result(c.args["self"].dep.unsqueeze(-1))]


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


def _index_put(c: Context) -> list[Abstract] | None:
    """Written where constants say; of two writes to one place it is not said which comes last."""
    x, values, indices = c.args["self"], c.args["values"], c.args["indices"]
    if any(index is not None and index.const is None for index in indices) or x.dep.dim() == 0:
        return None
    where = [None if index is None else index.const for index in indices]
    put, shape = torch.ops.aten.index_put.default, x.shape
    times = put(torch.zeros(shape, dtype=LABEL), where, torch.ones((), dtype=LABEL), True)
    if bool((times > 1).any()):
        return None
    labels = put(torch.full(shape, -1, dtype=LABEL), where, values.dep.contiguous())
    return [c.result(torch.where(times > 0, labels, x.dep))]


def _gather(c: Context) -> list[Abstract] | None:
    x = c.args["self"]
    index = c.args["index"] if c.node.name == "gather" else c.args["indices"]
    dim = c.args.get("dim")
    if dim is None or x.dep.dim() != index.dep.dim() or not x.dep.dim():
        return None
    dim %= x.dep.dim()
    if any(i != dim and a != b for i, (a, b) in enumerate(zip(x.shape, index.shape, strict=True))):
        return None
    if index.const is not None:  # take_along_dim wraps what is out of bounds: whatever it does, labels go with it
        where = (dim, index.const) if c.node.name == "gather" else (index.const, dim)
        return [c.result(c.node.op(x.dep.contiguous(), *where))]
    return [c.result(join(c.shapes[0], reduce(x.dep, [dim]), index.dep))]


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


_TABLE: dict[Rule, str] = {
    _embedding: "embedding",
    _one_hot: "one_hot",
    _index: "index",
    _gather: "gather take_along_dim",
    _scatter: "scatter scatter_add",
    _index_put: "index_put",
}
RULES = by_name(_TABLE)
