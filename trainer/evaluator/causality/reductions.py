"""Causality rules of reductions, softmax, norms, scans and sorting. TRUSTED."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from trainer.evaluator.causality.abstract import LABEL, Abstract, either, every, join, masked, reduce, spread
from trainer.evaluator.causality.context import Context, Rule, by_name
from trainer.evaluator.causality.obligations import Gap


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
    nothing = every(x.known_zero(), dims) if c.node.name in ("sum", "mean") else None  # a sum of zeros
    endless = c.node.name in ("amax", "max") and every(x.known_neginf(), dims) is not None  # the largest of -inf
    out = []
    for at, shape in enumerate(c.shapes):
        same = len(shape) == x.dep.dim()
        zero = nothing if nothing is None or same else nothing.squeeze(dims)
        out.append(replace(c.result(kept if same else kept.squeeze(dims), at, zero=zero), endless=endless))
    return out


def _softmax(c: Context) -> list[Abstract]:
    """What is exp(-inf) adds nothing, and so does what the run finds far enough below the largest of the others.

    That its own result is zero is not enough: exp(x - max) may be 2**-149, which no result shows and a sum of numbers
    that grow by less than two bits each does. Below -GAP it is zero, whatever the order of the sum.
    """
    x = c.args["self"]
    dims = _dims(c.args["dim"], x.dep.dim())
    gone, faint = x.known_neginf(), x.known_low()
    if faint is not None and dims and "log" not in c.node.name and c.dtypes[0] in (torch.float32, torch.bfloat16):
        faint = faint.expand(x.shape)
        c.require_zero(faint)
        c.obligations.require_gap(x.id, faint, Gap(dims[0], c.dtypes[0]))
        c.used_zero = True
        dep = spread(masked(x.dep, faint, torch.full((), -1, dtype=LABEL)), dims)
        return [c.result(dep, zero=either(faint, gone))]
    if gone is not None:
        c.used_zero = True
    dep = spread(x.dep, dims)
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


def _group_norm(c: Context) -> list[Abstract] | None:
    """By rows and groups of channels; statistics are per row and group."""
    x = c.args["input"]
    groups = c.args["num_groups"]
    if x.dep.dim() < 2 or groups < 1 or x.shape[1] % groups:
        return None
    rows = x.dep.reshape(x.shape[0], groups, -1).amax(-1)
    each = rows.repeat_interleave(x.shape[1] // groups, 1).reshape(x.shape[0], x.shape[1], *[1] * (x.dep.dim() - 2))
    column = [1, x.shape[1], *[1] * (x.dep.dim() - 2)]
    affine = [v.dep.reshape(column) for k in ("weight", "bias") if isinstance(v := c.args.get(k), Abstract)]
    return [c.result(join(c.shapes[0], each, *affine))]


_TABLE: dict[Rule, str] = {
    _reduction: (
        "sum mean amax amin max min var std var_mean prod any all argmax argmin linalg_vector_norm logsumexp "
        "count_nonzero"
    ),
    _softmax: "_softmax softmax _log_softmax log_softmax",
    _scan: "cumsum cumprod cummax cummin logcumsumexp",
    _sorting: "sort argsort topk",
    _norm: "rms_norm layer_norm native_layer_norm",
    _group_norm: "group_norm",
}
RULES = by_name(_TABLE)
