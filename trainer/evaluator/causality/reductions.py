"""Causality rules of reductions, softmax, norms, scans and sorting. TRUSTED."""

from __future__ import annotations

from typing import Any

from trainer.evaluator.causality.abstract import Abstract, join, reduce, spread
from trainer.evaluator.causality.context import Context, Rule, by_name


def _dims(value: Any, rank: int) -> list[int]:
    if value is None or value == []:
        return list(range(rank))
    return sorted({x % rank for x in (value if isinstance(value, list) else [value])}) if rank else []


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


def _softmax(c: Context) -> list[Abstract]:
    x = c.args["self"]
    dep = spread(x.dep, _dims(c.args["dim"], x.dep.dim()))
    gone = x.known_neginf()
    if gone is not None:
        c.used_zero = True
    return [c.result(dep, neginf=gone)] if "log" in c.node.name else [c.result(dep, zero=gone)]


def _scan(c: Context) -> list[Abstract]:
    x = c.args["self"]
    if c.node.name in ("cummax", "cummin"):
        c.require_no_signed_zero(x)
    dep = x.dep.contiguous().cummax(c.args["dim"]).values if x.dep.dim() else x.dep
    return [c.result(dep, at) for at in range(len(c.shapes))]


def _sorting(c: Context) -> list[Abstract]:
    x = c.args["self"]
    c.require_no_signed_zero(x)
    kept = reduce(x.dep, _dims(c.args.get("dim", -1), x.dep.dim()))
    return [c.result(kept, at) for at in range(len(c.shapes))]


def _norm(c: Context) -> list[Abstract]:
    x = c.args["input"]
    count = len(c.args["normalized_shape"])
    dims = list(range(x.dep.dim() - count, x.dep.dim()))
    affine = [v.dep for k in ("weight", "bias") if isinstance(v := c.args.get(k), Abstract)]
    kept = reduce(x.dep, dims)
    out = [c.result(join(c.shapes[0], kept.expand(x.shape), *affine))]
    return out + [c.result(kept, at) for at in range(1, len(c.shapes))]


_TABLE: dict[Rule, str] = {
    _reduction: (
        "sum mean amax amin max min var std var_mean prod any all argmax argmin linalg_vector_norm logsumexp "
        "count_nonzero"
    ),
    _softmax: "_softmax softmax _log_softmax log_softmax",
    _scan: "cumsum cumprod cummax cummin logcumsumexp",
    _sorting: "sort argsort topk",
    _norm: "rms_norm layer_norm native_layer_norm",
}
RULES = by_name(_TABLE)
