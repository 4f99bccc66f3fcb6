"""Calls that torch 2.13 takes and should not: what it infers is not what it does, or it leaves its operands. TRUSTED.

A proof speaks of operations as functions of their operands, and of shapes as they are inferred. Each rule here stands
for a call where one of the two was found to be wrong: by random calls (`make fuzz-ops`), by random graphs, or by people
who were asked to forge a score. They are applied in the dry run, before anything is computed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

MAX_ARANGE = 1 << 31
_GATES = 3  # of a GRU: reset, update, new


def trap(name: str, bound: dict[str, Any]) -> str | None:
    """Why a call is refused; None for all others.

    `name` is the ATen name without overload, `bound` the arguments by schema name with tensors, fake or real, in place
    of references.
    """
    rule = _RULES.get(name)
    return rule(bound) if rule else None


def _index(bound: dict[str, Any]) -> str | None:
    """The inferred shape is taken from the last index alone if that has no dimensions."""
    given = [index for index in bound["indices"] if isinstance(index, Tensor)]
    wrong = bool(given) and given[-1].dim() == 0 and any(index.dim() for index in given)
    return "an index of no dimensions after one with some" if wrong else None


def _arange(bound: dict[str, Any]) -> str | None:
    """The kernel counts in float64, the inference in integers."""
    large = any(type(value) is int and abs(value) >= MAX_ARANGE for value in bound.values())
    return "numbers beyond 2**31" if large else None


def _native_norm(bound: dict[str, Any]) -> str | None:
    """Mean and deviation of a half precision input are float32 if the weight is; inferred is the input's type."""
    types = {value.dtype for key in ("input", "weight", "bias") if isinstance(value := bound.get(key), Tensor)}
    return "weights of another type" if len(types) > 1 else None


def _product(bound: dict[str, Any]) -> str | None:
    """Where nothing is multiplied, or the bias is of one row, operands of several types pass; inferred is another."""
    types = {value.dtype for value in bound.values() if isinstance(value, Tensor)}
    return "operands of several types" if len(types) > 1 else None


def _pow(bound: dict[str, Any]) -> str | None:
    """A truth value to a truth value is one, for the kernel alone."""
    return "powers of booleans" if torch.bool in {getattr(v, "dtype", None) for v in bound.values()} else None


def _div(bound: dict[str, Any]) -> str | None:
    """The least integer divided by -1 ends the process (SIGFPE)."""
    tensors = [value for value in bound.values() if isinstance(value, Tensor)]
    whole = tensors and not any(value.is_floating_point() or value.is_complex() for value in tensors)
    return "truncated division of integers" if whole and bound.get("rounding_mode") == "trunc" else None


def _attention(bound: dict[str, Any]) -> str | None:
    """The kernel takes the number of keys from the values and reads so many, whatever there is.

    So keys of one were read past their end: the next token of every row was found there.
    """
    q, k, v = (bound[name] for name in ("query", "key", "value"))
    if not all(isinstance(x, Tensor) and x.dim() == q.dim() >= 3 for x in (q, k, v)):
        return "query, key and value of different or too few dimensions"
    heads, groups = q.shape[-3], k.shape[-3]
    grouped = bool(bound.get("enable_gqa")) and groups and heads % groups == 0
    fits = (
        k.shape[:-1] == v.shape[:-1]
        and q.shape[-1] == k.shape[-1]
        and q.shape[:-3] == k.shape[:-3]
        and (heads == groups or grouped)
    )
    mask = bound.get("attn_mask")
    if fits and isinstance(mask, Tensor):
        whole = (*q.shape[:-1], k.shape[-2])
        sizes = zip(reversed(mask.shape), reversed(whole), strict=False)
        fits = 2 <= mask.dim() <= len(whole) and all(size in (1, full) for size, full in sizes)
    return None if fits else "query, key, value and mask do not fit"


def _gru(bound: dict[str, Any]) -> str | None:
    """The kernel splits the gates in three and reads all three, however many there are."""
    x, hx, params = bound["input"], bound["hx"], bound["params"]
    each = 4 if bound["has_biases"] else 2
    directions = 2 if bound["bidirectional"] else 1
    sets = bound["num_layers"] * directions
    if not all(isinstance(v, Tensor) for v in (x, hx, *params)) or x.dim() != 3 or hx.dim() != 3 or sets < 1:
        return "input, state or weights"
    if len({v.dtype for v in (x, hx, *params)}) > 1:
        return "operands of several types"
    hidden, batch = hx.shape[-1], x.shape[0 if bound["batch_first"] else 1]
    if hx.shape[:2] != (sets, batch) or len(params) != sets * each or not hidden:
        return "state, or number of weights"
    for at in range(sets):
        width = x.shape[-1] if at < directions else hidden * directions
        w_ih, w_hh, *biases = params[at * each : (at + 1) * each]
        gates = _GATES * hidden
        if w_ih.shape != (gates, width) or w_hh.shape != (gates, hidden) or any(b.shape != (gates,) for b in biases):
            return "weights of another shape"
    return None


_RULES: dict[str, Callable[[dict[str, Any]], str | None]] = {
    "index": _index,
    "arange": _arange,
    "native_layer_norm": _native_norm,
    "pow": _pow,
    "div": _div,
    "scaled_dot_product_attention": _attention,
    "gru": _gru,
    **dict.fromkeys(
        ("linear", "mm", "bmm", "matmul", "addmm", "baddbmm", "mv", "dot", "conv1d", "conv2d", "convolution"), _product
    ),
}
