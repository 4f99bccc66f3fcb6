"""What is far below the rest of a softmax: hidden by a finite mask, if the run finds it so; and how it was tried to look."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tests.evaluator.build import Build
from trainer.evaluator.causality import prove
from trainer.evaluator.causality.obligations import Gap, Obligations
from trainer.wire.refusal import Reason, Refused

T, VOCAB = 8, 16
F32 = {"d": "float32"}
Ref = dict[str, int]


def literal(value: float) -> Any:
    return value if math.isfinite(value) else {"f": str(value)}


def attention(fill: float, spread: float = 1.0, how: str = "fill") -> Any:
    """Scores of embedded tokens, later ones masked by `fill`, softmax, values; `spread` scales the scores."""
    torch.manual_seed(0)
    later = torch.ones(T, T).triu(1)
    b = Build(
        seq_len=T,
        vocab=VOCAB,
        table=torch.randn(VOCAB, VOCAB) * spread,
        later=later.bool(),
        bias=later * fill,
        one=later,
    )
    x = b.op("embedding.default", b.ids["table"], b.idx)
    scores = b.op("matmul.default", x, b.op("transpose.int", x, -1, -2))
    scores = b.op("mul.Scalar", scores, -1.0)  # of itself a token sees least
    if how == "fill":
        scores = b.op("masked_fill.Scalar", scores, b.ids["later"], literal(fill))
    elif how == "add":
        scores = b.op("add.Tensor", scores, b.ids["bias"])
    else:  # exp by hand
        scores = b.op("masked_fill.Scalar", scores, b.ids["later"], literal(fill))
        weights = b.op("exp.default", scores)
        weights = b.op("div.Tensor", weights, b.op("sum.dim_IntList", weights, [-1], True))
        return b.program(b.op("matmul.default", weights, x))
    return b.program(b.op("matmul.default", b.op("softmax.int", scores, -1), x))


def run(prog: Any, idx: torch.Tensor) -> torch.Tensor:
    proof = prove(prog)
    assert proof.proved
    logits = prog(idx, proof.obligations.watch())
    proof.obligations.discharge()
    return logits


IDX = torch.arange(T).reshape(1, T)


@pytest.mark.parametrize("how", ["fill", "add", "exp"])
@pytest.mark.parametrize("fill", [-1e4, -1e9, -3e38])
def test_a_finite_mask_hides_as_minus_infinity_does(how: str, fill: float) -> None:
    hidden = run(attention(-math.inf, 0.5, "fill" if how == "add" else how), IDX)
    assert torch.equal(run(attention(fill, 0.5, how), IDX), hidden)


@pytest.mark.parametrize("how", ["fill", "add"])
def test_a_mask_that_does_not_reach_below_the_scores_is_refused(how: str) -> None:
    with pytest.raises(Refused) as caught:
        run(attention(-2e3, 30.0, how), IDX)  # scores of thousands, of both signs
    assert caught.value.reason is Reason.NOT_FINITE


def test_little_that_is_not_low_is_no_mask() -> None:
    assert not prove(attention(-900.0)).proved


def test_a_softmax_of_half_precision_is_not_relied_on() -> None:
    b = Build(seq_len=T, vocab=VOCAB, table=torch.randn(VOCAB, VOCAB).half(), later=torch.ones(T, T).bool().triu(1))
    x = b.op("embedding.default", b.ids["table"], b.idx)
    scores = b.op("mul.Tensor", b.op("unsqueeze.default", x, 2), b.op("unsqueeze.default", x, 1))
    scores = b.op("masked_fill.Scalar", b.op("sum.dim_IntList", scores, [-1]), b.ids["later"], -1e4)
    weights = b.op("softmax.int", scores, -1)
    assert not prove(b.program(b.op("matmul.default", weights, x))).proved


# The next token through the sum of a softmax whose faint element is exactly zero


def exp(x: torch.Tensor) -> torch.Tensor:
    """As a softmax computes it of a difference below -18."""
    return torch.where(x < -18, torch.softmax(torch.stack([x, torch.zeros_like(x)]), 0)[0], x.double().exp().float())


FAINT = torch.tensor([-103.2])  # exp is 2**-149


def chain(generator: torch.Generator) -> list[float] | None:
    """Addends that grow, each so chosen that the sum so far still tells 2**-149 from nothing."""
    without, with_, found = torch.zeros(1), exp(FAINT), list[float]()
    while float(with_) < 0.05:
        start = float(torch.log(torch.maximum(without, with_).double()))
        tried = (start + torch.rand(60_000, generator=generator) * 2 + 0.5).float()
        tried = tried[tried < 0]
        told = ((without + exp(tried)) != (with_ + exp(tried))).nonzero().flatten()
        if not len(told):
            return None
        found.append(float(tried[told[0]]))
        without, with_ = without + exp(tried[told[0]]), with_ + exp(tried[told[0]])
    return found


def telling_column() -> torch.Tensor:
    """A column whose softmax is zero in front, and whose last element says whether exp was zero there too."""
    for seed in range(50):
        generator = torch.Generator().manual_seed(seed)
        if (links := chain(generator)) is None:
            continue
        count = 20_000
        base = torch.tensor([float(FAINT), *links]).unsqueeze(1).expand(-1, count)
        last = (torch.rand(2, count, generator=generator) * -3).float()
        x = torch.cat([base, last, torch.zeros(3, count)])
        other = x.clone()
        other[0] = -500.0
        y, z = torch.softmax(x, 0), torch.softmax(other, 0)
        told = ((y[-1] != z[-1]) & (y[0] == 0)).nonzero().flatten()
        if len(told):
            return x[:, told[0]].clone()
    raise AssertionError("no such column on this processor")


WIDE = 32  # columns: a kernel takes fewer in another way


def forged() -> Any:
    """A bit of every next token, as faint or fainter in front of such a column, read from its end."""
    column = telling_column()
    x = column.unsqueeze(1).repeat(1, WIDE)
    other = x.clone()
    other[0] = -500.0
    told, untold = torch.softmax(x, 0)[-1, 0], torch.softmax(other, 0)[-1, 0]
    assert told != untold
    b = Build(
        seq_len=WIDE, vocab=VOCAB, low=torch.full((1, WIDE), -1000.0),
        up=torch.full((1, WIDE), 1000.0 + float(column[0])),
        rest=column[1:].unsqueeze(1).expand(-1, WIDE).contiguous(), off=untold.reshape(1),
    )  # fmt: skip
    bits = b.op("bitwise_and.Scalar", b.op("roll.default", b.idx, [-1], [1]), 1)
    drop = b.op("mul.Scalar", b.op("sub.Scalar", b.op("_to_copy.default", bits, dtype=F32), 1.0), 400.0)
    faint = b.op("add.Tensor", b.op("add.Tensor", b.ids["low"], drop), b.ids["up"])
    weights = b.op("_softmax.default", b.op("cat.default", [faint, b.ids["rest"]], 0), 0, False)
    last = b.op("select.int", weights, 0, len(column) - 1)
    back = b.op("mul.Scalar", b.op("sub.Tensor", last, b.ids["off"]), 1.0 / float(told - untold))
    return b.program(b.logits(b.op("view.default", back, [1, WIDE])))


def test_a_bit_of_the_future_in_a_sum_is_refused_and_was_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """What came of it: 0.0 nats a token, proved. The positive control is the same without the gap."""
    prog, idx = forged(), torch.randint(0, VOCAB, (1, WIDE))
    with pytest.raises(Refused) as caught:
        run(prog, idx)
    assert caught.value.reason is Reason.NOT_FINITE
    monkeypatch.setattr(Obligations, "require_gap", lambda *_: None)
    assert torch.equal(run(prog, idx)[0, :, 0], (idx.roll(-1, 1) & 1)[0].float())


@pytest.mark.parametrize(
    ("low", "rest", "held"),
    [
        (-256.0, 0.0, True), (-255.9, 0.0, False), (-math.inf, 0.0, True), (0.0, -math.inf, False),
        (math.nan, 0.0, False), (-300.0, math.nan, False), (1e10, 1e10, False), (-1e38, -1e37, True),
    ],
)  # fmt: skip
def test_how_far_is_far_enough(low: float, rest: float, held: bool) -> None:
    found = Obligations()
    found.require_gap(7, torch.tensor([True, False]), Gap(-1, torch.float32))
    ((check,),) = found.take().values()
    assert bool(check(torch.tensor([[low, rest]]))) is held
    assert (
        bool(
            check(
                torch.tensor(
                    [
                        [
                            low,
                            rest,
                        ]
                    ]
                    * 3
                )
            )
        )
        is held
    )


def test_a_row_without_anything_low_needs_no_gap() -> None:
    found = Obligations()
    found.require_gap(7, torch.tensor([[False, False], [True, False]]), Gap(1, torch.float32))
    ((check,),) = found.take().values()
    assert bool(check(torch.tensor([[1.0, 1.0], [-400.0, 0.0]])))
    assert not found.take()
