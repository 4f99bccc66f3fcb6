"""Operations that are written in other words: as public ones, or as plain ones that say the same. UNTRUSTED side.

A rewrite is called with the lowering (lower.py), the operation and its arguments, under a dispatch mode: what it calls
is recorded. `through.emit` records an operation whole that the dispatcher would take apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F

from trainer.evaluator.causality.abstract import LOW
from trainer.export.refusals import NotExportable, Why

aten = torch.ops.aten


class Through(Protocol):
    """Where operations are recorded."""

    def emit(self, func: torch._ops.OpOverload, args: Any, kwargs: dict[str, Any]) -> Any:
        """Record an operation as it is."""

    def known(self, tensor: torch.Tensor, read: Callable[[torch.Tensor], Any] = torch.Tensor.tolist) -> Any:
        """What `read` says of a constant; None if it depends on the tokens."""


class Call(NamedTuple):
    """An operation and what it is given."""

    through: Through
    func: torch._ops.OpOverload
    args: Any
    kwargs: dict[str, Any]

    def named(self) -> dict[str, Any]:
        """Arguments by name, defaults included."""
        return named(self.func, self.args, self.kwargs)

    def first(self, found: Any) -> Any:
        """The result that is meant, beside those that no forward pass reads."""
        count = len(self.func._schema.returns)
        return found if count == 1 else (found,) + (None,) * (count - 1)


Rewrite = Callable[[Call], Any]


def name_of(func: torch._ops.OpOverload) -> str:
    """The name of an operation without namespace and overload."""
    return func._schema.name.partition("::")[2]


def named(func: torch._ops.OpOverload, args: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments by name, defaults included."""
    arguments = func._schema.arguments
    defaults = {a.name: a.default_value for a in arguments if a.has_default_value()}
    return defaults | dict(zip((a.name for a in arguments), args, strict=False)) | kwargs


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


# ---------------------------------------------------------------------------
# Layers that torch takes apart into kernels, or not at all
# ---------------------------------------------------------------------------


def _gates(given: dict[str, Any], hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return (
        F.linear(given["input"], given["w_ih"], given["b_ih"]),
        F.linear(hidden, given["w_hh"], given["b_hh"]),
    )


def _lstm_cell(call: Call) -> Any:
    given = call.named()
    hidden, cell = given["hx"]
    one, two = _gates(given, hidden)
    enter, forget, new, leave = (one + two).chunk(4, -1)
    cell = torch.sigmoid(forget) * cell + torch.sigmoid(enter) * torch.tanh(new)
    return torch.sigmoid(leave) * torch.tanh(cell), cell


def _gru_cell(call: Call) -> Any:
    given = call.named()
    return _updated(*_gates(given, given["hx"]), given["hx"])


def _updated(one: torch.Tensor, two: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    (reset, update, new), (reset_h, update_h, new_h) = one.chunk(3, -1), two.chunk(3, -1)
    new = torch.tanh(new + torch.sigmoid(reset + reset_h) * new_h)
    return new + torch.sigmoid(update + update_h) * (hidden - new)


def _fused_lstm_cell(call: Call) -> Any:
    """What CUDA makes of a cell once both products are there."""
    given = call.named()
    one, two = _biased(given)
    enter, forget, new, leave = (one + two).chunk(4, -1)
    cell = torch.sigmoid(forget) * given["cx"] + torch.sigmoid(enter) * torch.tanh(new)
    return torch.sigmoid(leave) * torch.tanh(cell), cell, None


def _fused_gru_cell(call: Call) -> Any:
    given = call.named()
    one, two = _biased(given)
    return _updated(one, two, given["hx"]), None


def _biased(given: dict[str, Any]) -> Iterator[torch.Tensor]:
    for side in ("input", "hidden"):
        gates, bias = given[f"{side}_gates"], given[f"{side}_bias"]
        yield gates if bias is None else gates + bias


def _extreme(call: Call) -> Any:
    """The largest or smallest of everything, or of two."""
    most = "max" in call.func._schema.name
    if len(call.args) > 1:
        return (torch.maximum if most else torch.minimum)(*call.args)
    return (torch.amax if most else torch.amin)(call.args[0], list(range(call.args[0].dim())))


def _batch_norm(call: Call) -> Any:
    """As it is evaluated: by the statistics that were kept, which are constants."""
    given = call.named()
    if given.get("training"):
        return NotImplemented
    x, mean, var = given["input"], given["running_mean"], given["running_var"]
    shape = [-1] + [1] * (x.dim() - 2)
    scale = torch.rsqrt(var.float() + given["eps"])
    if given["weight"] is not None:
        scale = scale * given["weight"]
    found = (x.float() - mean.float().view(shape)) * scale.view(shape)
    if given["bias"] is not None:
        found = found + given["bias"].view(shape)
    return call.first(found.to(x.dtype))


def _trilinear(call: Call) -> Any:
    """A product of three, each spread over the dimensions that it lacks (nn.Bilinear)."""
    given = call.named()
    parts = [given["i1"], given["i2"], given["i3"]]
    for at, spread in enumerate(("expand1", "expand2", "expand3")):
        for dim in sorted(given[spread]):
            parts[at] = parts[at].unsqueeze(dim)
    return (parts[0] * parts[1] * parts[2]).sum(given["sumdim"])


def _windows(call: Call, fill: float) -> torch.Tensor:
    """[..., windows along each pooled dimension, elements of a window]."""
    given, count = call.named(), 1 if "1d" in call.func._schema.name else 2

    def each(key: str, default: Any) -> list[int]:
        entries = list(given.get(key) or default)
        return entries * (count // len(entries))

    if given.get("ceil_mode") or set(each("dilation", [1])) != {1}:
        raise NotExportable(Why.UNSUPPORTED_OP, "pooling with ceil_mode or dilation")
    sizes = each("kernel_size", [])
    sides = [side for padding in reversed(each("padding", [0])) for side in (padding, padding)]
    x: torch.Tensor = given["self"]
    x = aten.constant_pad_nd(x, sides, fill) if any(sides) else x
    for size, step in zip(sizes, each("stride", sizes), strict=True):
        x = x.unfold(-count, size, step)
    return x.flatten(-count) if count > 1 else x


def _average_pool(call: Call) -> Any:
    given = call.named()
    padded = any(given.get("padding") or [0])
    if given.get("divisor_override") is not None or (padded and not given.get("count_include_pad", True)):
        return NotImplemented
    return _windows(call, 0.0).mean(-1)


def _max_pool(call: Call) -> Any:
    found = _windows(call, -math.inf).amax(-1)
    return call.first(found)


def _bucketize(call: Call) -> Any:
    """How many boundaries lie below (or, to the right, not above) a value."""
    given = call.named()
    x, bounds = given["self"].unsqueeze(-1), given["boundaries"]
    below = (bounds <= x) if given["right"] else (bounds < x)
    return below.sum(-1, dtype=torch.int32 if given["out_int32"] else torch.int64)


def _embedding_bag(call: Call) -> Any:
    """Bags of one size: a sum, mean or maximum over looked-up rows."""
    given = call.named()
    indices, offsets, weight = given["indices"], given["offsets"], given["weight"]
    bags = offsets.shape[0] - int(bool(given["include_last_offset"]))
    if given["per_sample_weights"] is not None or given.get("padding_idx", -1) >= 0 or indices.shape[0] % bags:
        return NotImplemented
    size = indices.shape[0] // bags
    known = call.through.known(offsets)
    if known is None or known != list(range(0, indices.shape[0] + size, size))[: len(known)]:
        return NotImplemented
    rows = call.through.emit(aten.embedding.default, [weight, indices], {}).unflatten(0, (bags, size))
    found = (rows.sum(1), rows.mean(1), rows.amax(1))[given["mode"]]
    return found, None, None, None


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
    _empty: (
        *("empty.memory_format", "empty_like.default", "new_empty.default"),
        *("empty_strided.default", "new_empty_strided.default", "empty_permuted.default"),
    ),
    _itself: ("lift_fresh.default",),
    _reshape: ("view.default", "_unsafe_view.default"),
    _lstm_cell: ("lstm_cell.default",),
    _gru_cell: ("gru_cell.default",),
    _fused_lstm_cell: ("_thnn_fused_lstm_cell.default",),
    _fused_gru_cell: ("_thnn_fused_gru_cell.default",),
    _extreme: ("max.default", "min.default", "max.other", "min.other"),
    _batch_norm: (
        *("_native_batch_norm_legit_no_training.default", "_native_batch_norm_legit.default", "batch_norm.default"),
        *("native_batch_norm.default", "cudnn_batch_norm.default", "_batch_norm_no_update.default"),
    ),
    _trilinear: ("_trilinear.default",),
    _average_pool: ("avg_pool1d.default", "avg_pool2d.default"),
    _max_pool: ("max_pool1d.default", "max_pool2d.default", "max_pool2d_with_indices.default"),
    _bucketize: ("bucketize.Tensor",),
    _embedding_bag: ("_embedding_bag.default", "_embedding_bag_forward_only.default"),
}
REWRITES: dict[str, Rewrite] = {f"aten.{name}": rewrite for rewrite, names in _TABLE.items() for name in names}
