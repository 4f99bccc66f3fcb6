"""Operations that take functions, by plain ones: attention written out, scans and loops unrolled. UNTRUSTED side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._higher_order_ops.associative_scan import generic_associative_scan
from torch._higher_order_ops.flex_attention import math_attention

Function = Callable[..., Any]


def _flex_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    score_mod: Function,
    block_mask: tuple[Any, ...],
    scale: float,
    options: dict[str, Any],
    score_mod_others: tuple[Any, ...] = (),
    mask_mod_others: tuple[Any, ...] = (),
) -> Any:
    """Every score, bent and masked by the same functions: what its kernel skips is masked here."""
    return math_attention(query, key, value, score_mod, block_mask, scale, options, score_mod_others, mask_mod_others)


def _scan(combine: Function, init: Sequence[Any], xs: Sequence[Any], more: Sequence[Any] = ()) -> Any:
    """A loop over dimension 0; the carried state, then what each step gave."""
    carried, given = list(init), []
    for step in range(xs[0].shape[0]):
        found = combine(*carried, *(x[step] for x in xs), *more)
        carried = list(found[: len(init)])
        given.append(found[len(init) :])
    return (*carried, *(torch.stack(list(column)) for column in zip(*given, strict=True)))


def _associative_scan(combine: Function, xs: Sequence[Any], more: Sequence[Any] = ()) -> Any:
    """By halves, as torch does it where there is no kernel; dimension 0."""
    return tuple(generic_associative_scan(lambda *leaves: combine(*leaves, *more), list(xs)))


def _map(function: Function, xs: Sequence[Any], more: Sequence[Any] = ()) -> Any:
    """Once for each element of dimension 0."""
    each = [function(*(x[at] for x in xs), *more) for at in range(xs[0].shape[0])]
    return tuple(torch.stack(list(column)) for column in zip(*each, strict=True))


def _cond(condition: Any, yes: Function, no: Function, operands: Sequence[Any] = ()) -> Any:
    """One branch: the condition must not depend on the tokens, or reading it is refused."""
    return yes(*operands) if bool(condition) else no(*operands)


PLAIN: dict[str, Function] = {
    "flex_attention": _flex_attention,
    "scan": _scan,
    "associative_scan": _associative_scan,
    "map_impl": _map,
    "cond": _cond,
}
