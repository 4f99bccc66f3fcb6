"""Causality rules of operations that move elements and compute nothing. TRUSTED."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from trainer.evaluator.causality.abstract import Abstract, as_abstract, either
from trainer.evaluator.causality.context import Context, Rule, by_name
from trainer.evaluator.model.arguments import Ref

_RESHAPES = frozenset({"view", "_unsafe_view", "reshape"})


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
        return lift(lambda x: x.const if x is index else _or_false(masks[x.id], x))

    deps = lift(lambda x: x.const if x is index else x.dep)
    zeros, neginfs, lows = mask(Abstract.known_zero), mask(Abstract.known_neginf), mask(Abstract.known_low)
    endless = any(x.endless for x in c.inputs)
    every = zip(deps, range(len(deps)), zeros, neginfs, lows, strict=True)
    return [replace(c.result(*found), endless=endless) for found in every]


def _or_false(mask: Tensor | None, like: Abstract) -> Tensor:
    return torch.zeros((), dtype=torch.bool).expand(like.shape) if mask is None else mask.expand(like.shape)


def _copy(c: Context) -> list[Abstract]:
    src = as_abstract(c.args["src"])
    return [c.result(src.dep, zero=src.known_zero(), neginf=src.known_neginf(), low=src.known_low())]


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


def _triangle(c: Context) -> list[Abstract]:
    x = c.args["self"]
    keep = c.node.op(torch.ones(x.shape[-2:], dtype=torch.uint8), c.args.get("diagonal", 0)).bool()
    dep = torch.where(keep, x.dep, -1)
    return [c.result(dep, zero=either((~keep).expand(x.shape), x.known_zero()))]


def _view_as_real(c: Context) -> list[Abstract]:
    return [c.result(c.args["self"].dep.unsqueeze(-1))]


def _view_as_complex(c: Context) -> list[Abstract]:
    return [c.result(c.args["self"].dep.amax(-1))]


_TABLE: dict[Rule, str] = {
    _movement: (
        "view _unsafe_view reshape unsqueeze squeeze transpose permute expand slice select cat stack split "
        "split_with_sizes chunk unbind flatten unflatten repeat roll flip clone detach alias contiguous "
        "diagonal unfold narrow t movedim repeat_interleave select_scatter slice_scatter lift_fresh_copy "
        "index_select"
    ),
    _copy: "copy",
    _pad: "constant_pad_nd",
    _triangle: "tril triu",
    _view_as_real: "view_as_real",
    _view_as_complex: "view_as_complex",
}
RULES = by_name(_TABLE)
