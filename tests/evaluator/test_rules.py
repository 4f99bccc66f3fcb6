"""Rules of single operations, where their labels are not plain: each with the neighbour that must not be proved."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.evaluator.build import Build
from trainer.evaluator.causality import contractions, prove
from trainer.wire.refusal import Reason, Refused

T, VOCAB = 8, 8
Ref = dict[str, int]


def built(**weights: torch.Tensor) -> tuple[Build, Ref]:
    """A graph that begins with embedded tokens [1, T, VOCAB]."""
    torch.manual_seed(0)
    b = Build(seq_len=T, vocab=VOCAB, table=torch.randn(VOCAB, VOCAB), **weights)
    return b, b.op("embedding.default", b.ids["table"], b.idx)


def proved(b: Build, out: Ref) -> bool:
    prog = b.program(out)
    proof = prove(prog)
    prog(torch.randint(0, VOCAB, (1, T)), proof.obligations.watch())
    proof.obligations.discharge()
    return proof.proved


LATER = torch.ones(T, T).bool().triu(1)


def scores(b: Build, x: Ref) -> Ref:
    return b.op("matmul.default", x, b.op("transpose.int", x, -1, -2))


@pytest.mark.parametrize(("kernel", "padding", "cut", "causal"), [(3, 2, T, True), (3, 1, T, False)])
def test_a_convolution_of_an_image_one_wide(kernel: int, padding: int, cut: int, causal: bool) -> None:
    b, x = built(w=torch.randn(VOCAB, 1, kernel, 1))
    image = b.op("unsqueeze.default", b.op("transpose.int", x, 1, 2), -1)
    y = b.op("conv2d.default", image, b.ids["w"], None, [1, 1], [padding, 0], [1, 1], VOCAB)
    y = b.op("slice.Tensor", b.op("squeeze.dim", y, -1), 2, 0, cut)
    assert proved(b, b.op("transpose.int", y, 1, 2)) is causal


@pytest.mark.parametrize(("order", "causal"), [((0, 1), True), ((1, 0), False)])
def test_group_norm_of_tokens_and_of_channels(order: tuple[int, int], causal: bool) -> None:
    b, x = built()
    rows = b.op("view.default", x, [T, VOCAB])
    y = b.op("group_norm.default", rows if causal else b.op("transpose.int", rows, *order), 2)
    y = y if causal else b.op("transpose.int", y, *order)
    assert proved(b, b.op("view.default", y, [1, T, VOCAB])) is causal


@pytest.mark.parametrize(("rank", "causal"), [(3, True), (4, True), (5, True), (3, False)])
def test_attention_of_any_rank(rank: int, causal: bool) -> None:
    b, x = built()
    shape = {3: [1, T, VOCAB], 4: [1, 1, T, VOCAB], 5: [1, 1, 1, T, VOCAB]}[rank]
    q = b.op("view.default", x, shape)
    y = b.op("scaled_dot_product_attention.default", q, q, q, None, 0.0, causal)
    assert proved(b, b.op("view.default", y, [1, T, VOCAB])) is causal


@pytest.mark.parametrize("hidden", [True, False])
def test_a_computed_mask_hides_what_is_known_to_be_minus_infinity(hidden: bool) -> None:
    b, x = built(later=LATER)
    bias = scores(b, x)
    if hidden:
        bias = b.op("masked_fill.Scalar", bias, b.ids["later"], {"f": "-inf"})
    y = b.op("scaled_dot_product_attention.default", x, x, x, bias)
    assert proved(b, y) is hidden


@pytest.mark.parametrize("divide", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_zeros_divided_and_subtracted_stay_zeros(masked: bool, divide: bool) -> None:
    b, x = built()
    one = b.op("square.default", scores(b, x))
    two = b.op("exp.default", b.op("tanh.default", scores(b, x)))
    if masked:
        one, two = (b.op("tril.default", weights) for weights in (one, two))
    if divide:
        one = b.op("div.Tensor", one, b.op("add.Scalar", b.op("sum.dim_IntList", one, [-1], True), 1.0))
    weights = b.op("sub.Tensor", one, two, alpha=0.5)
    assert proved(b, b.op("matmul.default", weights, x)) is masked


def test_a_zero_divided_by_what_comes_later_is_not_silent() -> None:
    """0 / b is NaN where b is zero: whose labels those are stays in the sum."""
    b, x = built()
    weights = b.op("tril.default", scores(b, x))
    future = b.op("add.Scalar", b.op("square.default", b.op("sum.dim_IntList", x, [1], True)), 1.0)
    weights = b.op("div.Tensor", weights, b.op("sum.dim_IntList", future, [-1], True))
    assert not prove(b.program(b.op("matmul.default", weights, x))).proved


@pytest.mark.parametrize(
    ("indices", "values", "causal"),
    [
        ([None, None, torch.arange(VOCAB) % 2 == 0], "number", True),
        ([None, torch.arange(4)], "past", True),
        ([None, torch.arange(4)], "future", False),
        ([None, torch.tensor([0, 1, 2, 0])], "past", False),  # of two writes to one place nobody says which is last
        ([None, torch.tensor([0, 1, 2, -T])], "past", False),
    ],
)
def test_writes_to_places_that_are_known(indices: list[Any], values: str, causal: bool) -> None:
    tensors = {f"i{at}": index for at, index in enumerate(indices) if index is not None}
    b, x = built(number=torch.tensor(1.5), **tensors)
    given = [None if index is None else b.ids[f"i{at}"] for at, index in enumerate(indices)]
    what = {
        "number": lambda: b.ids["number"],
        "past": lambda: b.op("slice.Tensor", x, 1, 0, 4),
        "future": lambda: b.op("slice.Tensor", x, 1, 4, 8),
    }[values]()
    if values == "past" and not causal:
        what = b.op("slice.Tensor", b.op("roll.default", x, [1], [1]), 1, 0, 4)
    assert proved(b, b.op("index_put.default", x, given, what)) is causal


def test_an_angle_sees_the_sign_of_a_zero() -> None:
    """atan2(+0, -1) is pi and atan2(-0, -1) is -pi: a sign that may be of the future is obliged to be of no zero."""
    b, x = built()
    zero = b.op("mul.Tensor", b.op("tril.default", scores(b, x)), b.op("sum.dim_IntList", x, [1, 2], True))
    angle = b.op("atan2.default", zero, b.op("sub.Scalar", b.op("mul.Scalar", zero, 0.0), 1.0))
    prog = b.program(b.op("tril.default", angle))
    proof = prove(prog)
    if proof.proved:
        from trainer.wire.refusal import Refused

        prog(torch.randint(0, VOCAB, (1, T)), proof.obligations.watch())
        with pytest.raises(Refused):
            proof.obligations.discharge()


@pytest.mark.parametrize(("keys", "causal"), [(2, True), (4, False)])
def test_attention_whose_heads_are_positions_sees_its_own(keys: int, causal: bool) -> None:
    """Unequal heads are no positions: which sees which is the kernel's affair."""
    b, x = built()
    q = b.op("view.default", x, [1, T, 4, 2])
    k = b.op("view.default", x, [1, T, 4, 2]) if causal else b.op("view.default", x, [1, T // 2, 8, 2])
    y = b.op("scaled_dot_product_attention.default", q, k, k, None, 0.0, True, enable_gqa=not causal)
    assert prove(b.program(b.op("view.default", y, [1, T, VOCAB]))).proved is causal


@pytest.mark.parametrize(("by_head", "causal"), [(False, True), (True, False)])
def test_a_mask_of_each_head_hides_from_that_head_alone(by_head: bool, causal: bool) -> None:
    hidden = torch.zeros(1, 2, T, T).masked_fill(LATER, float("-inf"))
    if by_head:
        hidden[:, 1] = 0.0
    b, x = built(hidden=hidden)
    q = b.op("transpose.int", b.op("view.default", x, [1, T, 2, 4]), 1, 2)
    y = b.op("scaled_dot_product_attention.default", q, q, q, b.ids["hidden"])
    y = b.op("reshape.default", b.op("transpose.int", y, 1, 2), [1, T, VOCAB])
    assert proved(b, y) is causal


@pytest.mark.parametrize(("first", "second", "causal"), [(0, 0, True), (-1, 1, True), (0, 1, False)])
def test_a_product_of_triangles_is_a_triangle(first: int, second: int, causal: bool) -> None:
    b, x = built()
    one, two = (b.op("tril.default", scores(b, x), at) for at in (first, second))
    assert proved(b, b.op("matmul.default", b.op("matmul.default", one, two), x)) is causal


@pytest.mark.parametrize(("number", "causal"), [((), True), ((0.0,), True), ((1.0,), False)])
def test_a_row_without_keys_is_nothing_if_it_is_made_so(number: tuple[float, ...], causal: bool) -> None:
    """Of NaN a number of its own choice makes weights of what lies ahead."""
    b, x = built(unseen=torch.ones(T, T).tril(-1) == 0)
    weights = b.op("softmax.int", b.op("masked_fill.Scalar", scores(b, x), b.ids["unseen"], {"f": "-inf"}), -1)
    assert proved(b, b.op("matmul.default", b.op("nan_to_num.default", weights, *number), x)) is causal


def test_what_is_taken_from_minus_infinity_need_not_be_finite_where_nobody_looks() -> None:
    b, x = built(unseen=torch.ones(T, T).tril(-1) == 0)
    hidden = b.op("masked_fill.Scalar", scores(b, x), b.ids["unseen"], {"f": "-inf"})
    weights = b.op("exp.default", b.op("sub.Tensor", hidden, b.op("amax.default", hidden, [-1], True)))
    weights = b.op("masked_fill.Scalar", weights, b.ids["unseen"], 0.0)
    assert proved(b, b.op("matmul.default", weights, x))


@pytest.mark.parametrize(("op", "both", "causal"), [("or", True, True), ("or", False, False), ("xor", True, True)])
def test_neither_of_two_masks_shows_what_both_hide(op: str, both: bool, causal: bool) -> None:
    b, x = built(seen=~LATER)
    some = b.op("gt.Scalar", scores(b, x), 0.0)
    cut = b.op("logical_and.default", some, b.ids["seen"])
    mask = b.op(f"bitwise_{op}.Tensor", cut, b.op("logical_and.default", b.op("logical_not.default", some),
                                                   b.ids["seen"]) if both else some)  # fmt: skip
    weights = b.op("where.ScalarOther", mask, scores(b, x), 0.0)
    assert prove(b.program(b.op("matmul.default", weights, x))).proved is causal


@pytest.mark.parametrize("added", [0.0, 0])
def test_a_zero_to_which_zero_is_added_has_no_sign(added: float) -> None:
    """1 / -0 is minus infinity: of what lies ahead, multiplied by nothing."""
    b, x = built(nothing=torch.zeros(T, VOCAB))
    assert proved(b, shown(b, x, b.op("add.Tensor", silenced(b, x), added)))


@pytest.mark.parametrize("op", ["add", "sub"])
def test_a_zero_keeps_its_sign_beside_minus_zero(op: str) -> None:
    b, x = built(nothing=torch.zeros(T, VOCAB))
    with pytest.raises(Refused, match="obligation"):
        proved(b, shown(b, x, b.op(f"{op}.Tensor", silenced(b, x), -0.0 if op == "add" else 0.0)))


def silenced(b: Build, x: Ref) -> Ref:
    return b.op("mul.Tensor", b.op("roll.default", x, [-1], [1]), b.ids["nothing"])


def shown(b: Build, x: Ref, zero: Ref) -> Ref:
    sign = b.op("clamp.default", b.op("reciprocal.default", zero), -1.0, 1.0)
    return b.op("add.Tensor", x, sign)


@pytest.mark.parametrize("nan", [True, False])
def test_a_number_is_false_where_the_run_finds_it_zero(nan: bool) -> None:
    """0 * inf is NaN, and NaN is true."""
    b, x = built(seen=(~LATER).float(), big=torch.full((T, T), float("inf") if nan else 1.0))
    kept = b.op("mul.Tensor", b.op("mul.Tensor", scores(b, x), b.ids["big"]), b.ids["seen"])
    mask = b.op("_to_copy.default", kept, dtype={"d": "bool"})
    y = b.op("matmul.default", b.op("where.ScalarOther", mask, scores(b, x), 0.0), x)
    if nan:
        with pytest.raises(Refused) as refused:
            proved(b, y)
        assert refused.value.reason is Reason.NOT_FINITE
    else:
        assert proved(b, y)


def test_a_sum_of_what_has_no_end_is_nobodys_business() -> None:
    """A log-sum-exp over rows of which the first sees no key: minus infinity plus NaN, and nobody looks."""
    b, x = built(unseen=torch.ones(T, T).tril(-1) == 0, first=(torch.arange(T) == 0).unsqueeze(1))
    hidden = b.op("masked_fill.Scalar", scores(b, x), b.ids["unseen"], {"f": "-inf"})
    most = b.op("amax.default", hidden, [-1], True)
    total = b.op("sum.dim_IntList", b.op("exp.default", b.op("sub.Tensor", hidden, most)), [-1], True)
    told = b.op("add.Tensor", most, b.op("log.default", total))
    assert proved(b, b.op("add.Tensor", x, b.op("masked_fill.Scalar", told, b.ids["first"], 0.0)))


@pytest.mark.parametrize("rows", [1, 4])
def test_triangles_of_many_rows_are_told_as_one(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is above a diagonal is the same of every row: no more is looked at, whatever the limit."""
    monkeypatch.setattr(contractions, "MAX_TERMS", T**3)
    torch.manual_seed(0)
    b = Build(rows=rows, seq_len=T, vocab=VOCAB, table=torch.randn(VOCAB, VOCAB))
    x = b.op("embedding.default", b.ids["table"], b.idx)
    weights = b.op("matmul.default", b.op("tril.default", scores(b, x)), b.op("tril.default", scores(b, x)))
    assert prove(b.program(b.op("matmul.default", weights, x))).proved
