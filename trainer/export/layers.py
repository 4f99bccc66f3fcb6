"""Layers that torch takes apart into kernels, or not at all, in plain operations. UNTRUSTED side."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F

from trainer.export.calls import Call, Rewrite
from trainer.export.refusals import NotExportable, Why

aten = torch.ops.aten


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


def _counts(call: Call) -> Any:
    """How often each number is there, of as many as were asked for: that none is larger is confirmed of every batch."""
    given = call.named()
    x, least = given["self"], given["minlength"]
    if given["weights"] is not None or not least or call.through.known(x, lambda _: True) is not None:
        return NotImplemented
    torch._assert_async((x < least).all())
    return (x.unsqueeze(1) == torch.arange(least, device=x.device)).sum(0)


def _searchsorted(call: Call) -> Any:
    """As `bucketize`, where the boundaries are one row for all."""
    given = call.named()
    bounds, x = given["sorted_sequence"], given["self"]
    if bounds.dim() != 1 or given["sorter"] is not None or not isinstance(x, torch.Tensor):
        return NotImplemented
    right = given["right"] or given["side"] == "right"
    return torch.bucketize(x, bounds, right=right, out_int32=given["out_int32"])


def _kth(call: Call) -> Any:
    """By sorting: of as many in the middle as there are, the lower one."""
    given = call.named()
    x, dim, keep = given["self"], given["dim"], given["keepdim"]
    if not x.dim():
        return NotImplemented
    at = given["k"] - 1 if "k" in given else (x.shape[dim] - 1) // 2
    found = torch.sort(x, dim=dim, stable=True)
    values, places = (y.narrow(dim, at, 1) for y in found)
    return (values, places) if keep else (values.squeeze(dim), places.squeeze(dim))


def _scatter_reduce(call: Call) -> Any:
    """Sums and means, with or without what was there."""
    given = call.named()
    x, dim, index, src = (given[name] for name in ("self", "dim", "index", "src"))
    if given["reduce"] not in ("sum", "mean") or (given["reduce"] == "mean" and not x.is_floating_point()):
        return NotImplemented  # a mean of integers is one
    base = x if given["include_self"] else x.scatter(dim, index, 0)
    total = base.scatter_add(dim, index, src)
    if given["reduce"] == "sum":
        return total
    ones = torch.ones_like(src)
    count = (torch.ones_like(x) if given["include_self"] else torch.zeros_like(x)).scatter_add(dim, index, ones)
    return total / count.clamp(min=1)


def _transposed(call: Call) -> Any:
    """A transposed convolution of stride one: an ordinary one, with what it is multiplied by turned around."""
    given = call.named()
    x, weight, groups = given["input"], given["weight"], given["groups"]
    turned = given.get("transposed", True) and set(given["stride"]) == {1} and not any(given["output_padding"])
    if not turned or weight.dim() not in (3, 4):
        return NotImplemented
    count = weight.dim() - 2
    dilation, cut = (list(given[name]) * (count // len(given[name])) for name in ("dilation", "padding"))
    padding = [d * (size - 1) - p for size, d, p in zip(weight.shape[2:], dilation, cut, strict=True)]
    if min(padding) < 0:
        return NotImplemented
    weight = weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1).flip([*range(2, 2 + count)])
    conv = F.conv1d if weight.dim() == 3 else F.conv2d
    return conv(x, weight, given["bias"], 1, padding, dilation, groups)


def _leaky(call: Call) -> Any:
    """A random slope, as it is evaluated: the middle of the range."""
    given = call.named()
    if given["training"]:
        return NotImplemented
    return call.first(F.leaky_relu(given["self"], (given["lower"] + given["upper"]) / 2))


def _embedding_bag(call: Call) -> Any:
    """Bags of one size: a sum, mean or maximum over looked-up rows."""
    given = call.named()
    indices, offsets, weight = given["indices"], given["offsets"], given["weight"]
    bags = offsets.shape[0] - int(bool(given["include_last_offset"]))
    each = given["per_sample_weights"]
    if given.get("padding_idx", -1) >= 0 or indices.shape[0] % bags or (each is not None and given["mode"] != 0):
        return NotImplemented
    size = indices.shape[0] // bags
    known = call.through.known(offsets)
    if known is None or known != list(range(0, indices.shape[0] + size, size))[: len(known)]:
        return NotImplemented
    rows = call.through.emit(aten.embedding.default, [weight, indices], {}).unflatten(0, (bags, size))
    if each is not None:
        rows = rows * each.view(bags, size, 1)
    found = (rows.sum(1), rows.mean(1), rows.amax(1))[given["mode"]]
    return found, None, None, None


def _solve_triangular(call: Call) -> Any:
    """By halves: what is solved first is put into the rest. So no row of a solution sees more than it is made of."""
    given = call.named()
    a, b, lower = given["self"], given["B"], not given["upper"]
    if not given["left"]:  # x a = b
        a, b, lower = a.mT, b.mT, not lower
    b = b.expand(*torch.broadcast_shapes(a.shape[:-2], b.shape[:-2]), *b.shape[-2:])
    found = _solved(a, b, lower=lower, unit=given["unitriangular"])
    return found if given["left"] else found.mT


def _solved(a: torch.Tensor, b: torch.Tensor, *, lower: bool, unit: bool) -> torch.Tensor:
    size = a.shape[-1]
    if size < 2:
        return b if unit or not size else b / a
    parts = [(0, size // 2), (size // 2, size - size // 2)]
    first, second = parts if lower else parts[::-1]
    one = _solved(_block(a, first, first), b.narrow(-2, *first), lower=lower, unit=unit)
    rest = b.narrow(-2, *second) - _block(a, second, first) @ one
    two = _solved(_block(a, second, second), rest, lower=lower, unit=unit)
    return torch.cat([one, two] if lower else [two, one], -2)


def _block(a: torch.Tensor, rows: tuple[int, int], columns: tuple[int, int]) -> torch.Tensor:
    return a.narrow(-2, *rows).narrow(-1, *columns)


TABLE: dict[Rewrite, tuple[str, ...]] = {
    _solve_triangular: ("linalg_solve_triangular.default",),
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
    _counts: ("bincount.default",),
    _bucketize: ("bucketize.Tensor",),
    _searchsorted: ("searchsorted.Tensor",),
    _kth: ("kthvalue.default", "median.dim"),
    _scatter_reduce: ("scatter_reduce.two",),
    _transposed: ("convolution.default", "conv_transpose1d.default", "conv_transpose2d.input"),
    _leaky: ("rrelu.default", "rrelu_with_noise.default", "rrelu_with_noise_functional.default"),
    _embedding_bag: ("_embedding_bag.default", "_embedding_bag_forward_only.default"),
}
