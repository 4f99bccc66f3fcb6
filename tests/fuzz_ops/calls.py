"""A whole call of an operation, from a seed: likely arguments, then a few of them made odd."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from tests.fuzz_ops import contraction, movement, reduction
from tests.fuzz_ops.draw import Draw
from tests.fuzz_ops.rules import refs
from tests.fuzz_ops.tensors import Tensors
from trainer.evaluator.model.arguments import fits

Maker = Callable[[Draw, str], dict[str, Any]]
_MAKERS: dict[Maker, str] = {
    movement.viewed: "view reshape _unsafe_view",
    movement.unsqueeze: "unsqueeze",
    movement.two_dims: "transpose.int diagonal flatten.using_ints movedim.int",
    movement.permuted: "permute movedim.intlist",
    movement.expand: "expand",
    movement.sliced: "slice select select_scatter slice_scatter",
    movement.joined: "cat stack",
    movement.cut: "split split_with_sizes chunk unbind unflatten",
    movement.repeated: "repeat repeat_interleave roll",
    movement.padded: "constant_pad_nd",
    movement.unfold: "unfold",
    movement.copied: "copy",
    movement.pairs: "view_as_complex",
    movement.matrix: "t",
    movement.ranged: "arange",
    movement.created: "full full_like zeros ones new_zeros new_ones new_full eye",
    contraction.product: "mm bmm mv dot outer addmm baddbmm",
    contraction.matmul: "matmul",
    contraction.linear: "linear",
    contraction.convolution: "conv1d conv2d convolution",
    contraction.padding_by_name: "conv1d.padding",
    contraction.attention: "scaled_dot_product_attention",
    contraction.normalised: "rms_norm layer_norm native_layer_norm",
    contraction.grouped: "group_norm",
    contraction.gru: "gru",
    reduction.bits: """
        bitwise_and bitwise_or bitwise_xor bitwise_not bitwise_left_shift bitwise_right_shift
        __and__ __or__ __xor__ __lshift__ __rshift__""",
    reduction.bits_by_number: """
        bitwise_and.Scalar bitwise_or.Scalar bitwise_xor.Scalar bitwise_left_shift.Tensor_Scalar
        bitwise_right_shift.Tensor_Scalar __and__.Scalar __or__.Scalar __xor__.Scalar __lshift__.Scalar
        __rshift__.Scalar""",
    reduction.alike: "lerp clamp.Tensor",
    reduction.turned: "_conj view_as_real",
    reduction.filled: "masked_fill",
    reduction.parts: "complex polar",
    reduction.halved: "glu",
    reduction.embedding: "embedding",
    reduction.indexed: "index index_put",
    reduction.selected: "index_select index_add",
    reduction.gathered: "gather scatter scatter_add",
    reduction.along: "take_along_dim",
    reduction.largest: "topk",
    reduction.classes: "one_hot",
    reduction.transformed: "fft_rfft fft_irfft",
}
_BY_NAME = {name: maker for maker, names in _MAKERS.items() for name in names.split()}
_BASE = ("self", "input", "query", "tensors", "weight")  # whose rank bounds a dimension


@dataclass(frozen=True)
class Call:
    """An operation's arguments; `before` are the same but for one of equal hash, to be run first."""

    args: list[Any]
    kwargs: dict[str, Any]
    before: tuple[list[Any], dict[str, Any]] | None = None


def make(op: torch._ops.OpOverload, seed: int, made: Tensors) -> Call:
    """The call of `op` that belongs to this seed."""
    d = Draw(random.Random(seed), made)
    name, overload = op._schema.name.removeprefix("aten::"), op._overloadname
    several = sum("Tensor" in str(a.real_type) for a in op._schema.arguments) > 1 or name == "where"
    usual = reduction.pointwise if several else reduction.one
    maker = _BY_NAME.get(f"{name}.{overload}") or _BY_NAME.get(name) or usual
    named = _fill(d, op, maker(d, name))
    if d.often(0.08):
        argument = d.rng.choice(op._schema.arguments)
        named[argument.name] = d.kind(str(argument.real_type), wild=True)
    args, kwargs = _placed(d, op, named)
    if d.often(0.85):
        return Call(args, kwargs)
    twin = {key: _equal(d, value) for key, value in named.items()}
    return Call(args, kwargs, _placed(d, op, twin))


def _fill(d: Draw, op: torch._ops.OpOverload, likely: dict[str, Any]) -> dict[str, Any]:
    named: dict[str, Any] = {}
    base = next((likely[name] for name in _BASE if name in likely), None)
    base = base[0] if isinstance(base, list) else base
    rank = base.dim() if isinstance(base, torch.Tensor) else 2
    for argument in op._schema.arguments:
        kind, name = str(argument.real_type), argument.name
        if name in likely and fits(refs(likely[name]), kind):
            named[name] = likely[name]
            if kind == "Tensor" and d.often(0.03):
                named[name] = d.number()
        elif not argument.has_default_value() or d.often(0.5):
            named[name] = d.named(name, kind, rank)
        if argument.has_default_value() and d.often(0.15):
            named.pop(name, None)
    return named


def _placed(d: Draw, op: torch._ops.OpOverload, named: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Positional as long as none is left out, the rest by keyword; now and then sooner by keyword."""
    args: list[Any] = []
    rest = dict(named)
    for argument in op._schema.arguments:
        if argument.kwarg_only or argument.name not in rest or d.often(0.03):
            break
        args.append(rest.pop(argument.name))
    return args, rest


def _equal(d: Draw, value: Any) -> Any:
    """A value that Python takes for the same and torch does not."""
    if isinstance(value, list):
        return [_equal(d, x) for x in value]
    if isinstance(value, (bool, int, float)) and d.often(0.7):
        same = [x for x in (0, 0.0, -0.0, False, 1, 1.0, True, 2, 2.0, 64, 64.0, -1, -1.0) if x == value]
        return d.rng.choice(same or [value])
    return value
