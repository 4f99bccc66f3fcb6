"""Operations that are written in other words: as public ones, or as plain ones that say the same. UNTRUSTED side.

A rewrite is called with the lowering (lower.py), the operation and its arguments, under a dispatch mode: what it calls
is recorded. `through.emit` records an operation whole that the dispatcher would take apart.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from trainer.evaluator.causality.abstract import LOW
from trainer.export import layers
from trainer.export.calls import Call, Rewrite
from trainer.export.refusals import NotExportable, Why

aten = torch.ops.aten


# ---------------------------------------------------------------------------
# Attention and norms, as backends call them
# ---------------------------------------------------------------------------


def _attention(call: Call) -> Any:
    """As the public operation that every backend implements; what it returns besides is read by no forward pass."""
    given = call.named()
    if given.get("dropout_p", 0.0) or given.get("dropout_mask") is not None:
        raise NotExportable(Why.UNSUPPORTED_OP, "attention with dropout")
    mask = given.get("attn_mask", given.get("attn_bias"))
    q, k, v = (given[name] for name in ("query", "key", "value"))
    if _means_otherwise(str(call.func), bool(given.get("is_causal")), q, k, mask):
        raise NotExportable(Why.UNSUPPORTED_OP, f"{call.func} called as the public operation never calls it")
    grouped = given.get("enable_gqa") or (q.dim() > 3 and q.shape[-3] != k.shape[-3])  # backends have no word for it
    if q.dtype is torch.float16:  # its scores may overflow, so that nothing can be said of what a mask hides
        q, k, v = q.float(), k.float(), v.float()
        mask = mask.float() if mask is not None and mask.is_floating_point() else mask
    if mask is not None and mask.is_floating_point() and call.through.known(mask, _is_low):
        found = _written_out(q, k, v, mask, given.get("scale"), bool(grouped))
    else:
        more = {"scale": given.get("scale"), **({"enable_gqa": True} if grouped else {})}
        public = [q, k, v, mask, 0.0, bool(given.get("is_causal"))]
        found = call.through.emit(aten.scaled_dot_product_attention.default, public, more)
    return call.first(found.to(given["query"].dtype))


def _is_low(mask: torch.Tensor) -> bool:
    """Whether a mask hides by very negative numbers (-1e9) and not by minus infinity."""
    shown = bool((mask != -math.inf).any(-1).all())  # of a row without keys attention makes zeros, a softmax NaN
    return shown and bool(((mask <= -LOW) & torch.isfinite(mask)).any())


def _written_out(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor, scale: float | None, grouped: bool
) -> torch.Tensor:
    """In plain operations: that a key behind such a mask has no weight is seen at run time, and only of weights."""
    if grouped:
        k, v = (x.repeat_interleave(q.shape[-3] // x.shape[-3], -3) for x in (k, v))
    scores = q.float() @ k.float().mT * (q.shape[-1] ** -0.5 if scale is None else scale) + mask.float()
    return (torch.softmax(scores, -1) @ v.float()).to(q.dtype)


def _means_otherwise(name: str, causal: bool, q: torch.Tensor, k: torch.Tensor, mask: torch.Tensor | None) -> bool:
    """Whether a backend's kernel, called by hand, says something else with the same words.

    The plain one adds a boolean mask as 0 and 1; flash kernels align a causal mask of unequal lengths at the end.
    """
    of_booleans = mask is not None and mask.dtype is torch.bool
    unequal = "flash_attention.default" in name and causal and q.shape[-2] != k.shape[-2]
    return ("_math" in name and of_booleans) or unequal


def _group_norm(call: Call) -> Any:
    """As the public operation, which looks at its input and at the layout of its weights."""
    given = call.named()
    public = [given["input"], given["group"], given["weight"], given["bias"], given["eps"]]
    return call.first(call.through.emit(aten.group_norm.default, public, {}))


def _fused_norm(call: Call) -> Any:
    return call.through.emit(aten.rms_norm.default, call.args, call.kwargs), None


def _added_product(call: Call) -> Any:
    """What is added may be a mask of minus infinity, which no product may have for an operand."""
    given = call.named()
    added, factor = given["beta"], given["alpha"]
    found = torch.bmm(given["batch1"], given["batch2"])
    found = found if factor == 1 else found * factor
    if added == 0:
        return found
    return found + (given["self"] if added == 1 else given["self"] * added)


def _with_vector(call: Call) -> Any:
    """A vector as a matrix of one row or column: the proof knows rows and columns."""
    one, two = call.args
    if min(one.dim(), two.dim()) > 1 or one.dim() == two.dim():
        return NotImplemented
    return (one @ two.unsqueeze(-1)).squeeze(-1) if two.dim() == 1 else (one.unsqueeze(-2) @ two).squeeze(-2)


def _ranked(call: Call) -> Any:
    """By numbers without a sign of zero, which some kernels rank by; the values are those that were ranked."""
    x, *rest = call.args
    if not (x.is_floating_point() and x.dim()) or call.through.known(x, lambda _: True) is not None:
        return call.through.emit(call.func, call.args, call.kwargs)
    found = call.through.emit(call.func, [x + 0.0, *rest], call.kwargs)
    return (x.gather(call.named()["dim"], found[1]), found[1]) if isinstance(found, tuple | list) else found


# ---------------------------------------------------------------------------
# Memory and layout
# ---------------------------------------------------------------------------


def _empty(call: Call) -> Any:
    """Zeros: stale memory is not for reading, and whoever writes before reading sees no difference."""
    given = call.named()
    like = given.get("self")
    size = given["size"] if "size" in given else given["self"].shape
    dtype = given.get("dtype") or (like.dtype if like is not None else torch.get_default_dtype())
    device = given.get("device") or (like.device if like is not None else None)
    return torch.full(list(size), False if dtype is torch.bool else 0, dtype=dtype, device=device)


def _itself(call: Call) -> Any:
    return call.args[0]


def _reshape(call: Call) -> Any:
    """A view of the trace may not be one at run time: other kernels leave other strides."""
    return call.through.emit(aten.reshape.default, call.args, call.kwargs)


_BACKENDS = (
    *("attention_math", "flash_attention", "flash_attention_for_cpu", "efficient_attention"),
    *("cudnn_attention", "fused_attention_overrideable"),
)
_TABLE: dict[Rewrite, tuple[str, ...]] = {
    _attention: (
        "scaled_dot_product_attention.default",
        *(f"_scaled_dot_product_{backend}.default" for backend in _BACKENDS),
    ),
    _group_norm: ("native_group_norm.default",),
    _fused_norm: ("_fused_rms_norm.default",),
    _added_product: ("baddbmm.default",),
    _with_vector: ("matmul.default", "mv.default"),
    _ranked: ("topk.default", "sort.default", "sort.stable", "argsort.default", "argsort.stable"),
    _empty: (
        *("empty.memory_format", "empty_like.default", "new_empty.default"),
        *("empty_strided.default", "new_empty_strided.default", "empty_permuted.default"),
    ),
    _itself: ("lift_fresh.default",),
    _reshape: ("view.default", "_unsafe_view.default"),
}
REWRITES: dict[str, Rewrite] = {
    f"aten.{name}": rewrite for rewrite, names in (*_TABLE.items(), *layers.TABLE.items()) for name in names
}
