"""The allow-list of ATen operations a handed-over graph may use. TRUSTED.

Admission rule: functional (no in-place, no out=), deterministic (no random numbers), initialised memory
only (no empty*), bounds-checked, and an output shape that follows from input shapes alone. Left out on
purpose: as_strided, set_, resize_, from_file, empty*, _unsafe_index, view.dtype, random and backend ops,
lstm (its CPU kernel reads weights out of bounds without checking their shapes), native_group_norm (believes what it is
told of rows and channels, and reads weights without their strides), and every namespace but aten.
"""

from __future__ import annotations

from functools import cache

import torch

_ALLOWED = {
    "shape and movement": """
        _to_copy.default clone.default detach.default alias.default view.default reshape.default
        _unsafe_view.default unsqueeze.default squeeze.dim squeeze.dims transpose.int permute.default
        expand.default slice.Tensor select.int cat.default stack.default split.Tensor
        split_with_sizes.default chunk.default unbind.int flatten.using_ints unflatten.int repeat.default
        roll.default flip.default constant_pad_nd.default tril.default triu.default unfold.default
        narrow.int t.default movedim.int movedim.intlist repeat_interleave.self_int select_scatter.default
        slice_scatter.default contiguous.default copy.default diagonal.default lift_fresh_copy.default
        view_as_complex.default view_as_real.default _conj.default""",
    "creation": """
        arange.default arange.start arange.start_step full.default full_like.default zeros.default
        ones.default zeros_like.default ones_like.default new_zeros.default new_ones.default
        new_full.default scalar_tensor.default eye.default""",
    "pointwise": """
        add.Tensor add.Scalar sub.Tensor sub.Scalar rsub.Scalar rsub.Tensor mul.Tensor mul.Scalar div.Tensor
        div.Scalar div.Tensor_mode neg.default abs.default sign.default square.default pow.Tensor_Scalar
        pow.Tensor_Tensor pow.Scalar sqrt.default rsqrt.default reciprocal.default exp.default
        exp2.default expm1.default log.default log1p.default log2.default sin.default cos.default
        tanh.default sigmoid.default erf.default relu.default relu6.default gelu.default silu.default
        mish.default elu.default leaky_relu.default softplus.default hardtanh.default hardswish.default
        log_sigmoid.default log_sigmoid_forward.default threshold.default clamp.default clamp.Tensor
        clamp_min.default clamp_max.default minimum.default maximum.default where.self where.ScalarOther
        where.ScalarSelf where.Scalar floor.default round.default trunc.default ceil.default
        remainder.Scalar remainder.Tensor floor_divide.default floor_divide.Scalar fmod.Scalar
        lerp.Scalar lerp.Tensor addcmul.default addcdiv.default masked_fill.Scalar masked_fill.Tensor
        eq.Tensor eq.Scalar ne.Tensor ne.Scalar lt.Tensor lt.Scalar le.Tensor le.Scalar gt.Tensor
        gt.Scalar ge.Tensor ge.Scalar logical_and.default logical_or.default logical_not.default
        bitwise_and.Tensor bitwise_and.Scalar bitwise_or.Tensor bitwise_or.Scalar bitwise_xor.Tensor
        bitwise_xor.Scalar bitwise_not.default bitwise_left_shift.Tensor bitwise_left_shift.Tensor_Scalar
        bitwise_right_shift.Tensor bitwise_right_shift.Tensor_Scalar __and__.Tensor __and__.Scalar
        __or__.Tensor __or__.Scalar __xor__.Tensor __xor__.Scalar __lshift__.Tensor __lshift__.Scalar
        __rshift__.Tensor __rshift__.Scalar isfinite.default polar.default complex.default glu.default
        dropout.default tan.default asin.default acos.default atan.default sinh.default cosh.default
        asinh.default acosh.default atanh.default erfc.default atan2.default nan_to_num.default""",
    "contraction": """
        linear.default mm.default bmm.default matmul.default addmm.default baddbmm.default mv.default
        dot.default outer.default conv1d.default conv1d.padding conv2d.default convolution.default
        scaled_dot_product_attention.default""",
    "normalisation and reduction": """
        rms_norm.default layer_norm.default group_norm.default native_layer_norm.default
        _softmax.default softmax.int _log_softmax.default log_softmax.int
        logsumexp.default sum.default sum.dim_IntList mean.default mean.dim amax.default amin.default
        max.dim min.dim var.correction std.correction var_mean.correction prod.dim_int any.dim all.dim
        argmax.default argmin.default linalg_vector_norm.default count_nonzero.dim_IntList
        cumsum.default cumprod.default cummax.default cummin.default logcumsumexp.default""",
    "indexing and sorting": """
        embedding.default index.Tensor index_select.default gather.default scatter.src scatter.value
        scatter_add.default index_add.default index_put.default topk.default sort.default sort.stable
        argsort.default argsort.stable one_hot.default take_along_dim.default""",
    "recurrence and transforms": "gru.input fft_rfft.default fft_irfft.default",
}

# Arguments that must keep their harmless value: name -> values that pass.
PINNED_ARGUMENTS: dict[str, tuple[object, ...]] = {
    "dropout_p": (0, 0.0),
    "train": (False,),
    "dropout": (0, 0.0),
    "accumulate": (False,),  # accumulation order on CUDA is not deterministic
}


_VIEWS = frozenset(
    {
        *("view", "_unsafe_view", "unsqueeze", "squeeze", "transpose", "permute", "expand", "slice", "select", "t"),
        *("detach", "alias", "split", "split_with_sizes", "chunk", "unbind", "diagonal", "movedim", "unfold"),
    }
)
_SCATTERED = frozenset({"scatter", "scatter_add", "index_add", "index_put", "sort", "argsort", "topk"})
SCATTERED_COST = 64  # elements of a pointwise operation that take as long as one of these, and more


def cost(name: str) -> int:
    """What an element that the operation reads or writes counts: nothing if it only looks at memory otherwise."""
    return 0 if name in _VIEWS else SCATTERED_COST if name in _SCATTERED else 1


@cache
def allowed() -> dict[str, torch._ops.OpOverload]:
    """`aten.name.overload` -> operation, for every admitted operation this torch has."""
    out = {}
    for group in _ALLOWED.values():
        for entry in group.split():
            name, overload = entry.split(".")
            packet = getattr(torch.ops.aten, name, None)
            if packet is not None and overload in packet.overloads():
                out[f"aten.{entry}"] = getattr(packet, overload)
    return out


def names(group: str) -> frozenset[str]:
    """The admitted operations of a group ("pointwise", "contraction", ...), without overloads."""
    return frozenset(entry.partition(".")[0] for entry in _ALLOWED[group].split())


@cache
def unary() -> tuple[torch._ops.OpOverload, ...]:
    """The admitted pointwise operations that one floating operand is enough for."""
    pointwise = [allowed()[f"aten.{entry}"] for entry in _ALLOWED["pointwise"].split()]
    return tuple(op for op in pointwise if _needs_one(op) and op.name() not in _NEED_MORE)


_NEED_MORE = frozenset({"aten::bitwise_not", "aten::clamp", "aten::clamp.Tensor"})  # integers, a bound


def _needs_one(op: torch._ops.OpOverload) -> bool:
    first, *rest = op._schema.arguments
    return str(first.real_type) == "Tensor" and all(argument.has_default_value() for argument in rest)
