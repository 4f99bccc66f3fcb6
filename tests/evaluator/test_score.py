"""Nats from logits: as exact as float64, for whatever logits, and no logits make more of them than there is."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.evaluator import score
from trainer.wire.refusal import Reason, Refused

F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64
WITHIN = 1e-6  # nats


def exact(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The same in float64 throughout."""
    z = logits.double()
    z = z - z.amax(-1, keepdim=True)
    return z.exp().sum(-1).log() - z.gather(-1, targets.unsqueeze(-1)).squeeze(-1)


def error(logits: torch.Tensor, seed: int = 0) -> float:
    """The largest difference from `exact`, for the likeliest target, the unlikeliest and one drawn."""
    drawn = torch.randint(0, logits.shape[-1], logits.shape[:-1], generator=torch.Generator().manual_seed(seed))
    kinds = (logits.argmax(-1), logits.argmin(-1), drawn)
    return max(float((score.nats(logits, t) - exact(logits, t)).abs().max()) for t in kinds)


def made(kind: str, vocab: int, scale: float, offset: float, dtype: torch.dtype, seed: int) -> torch.Tensor:
    """Logits [2, 3, vocab]."""
    draw = torch.Generator().manual_seed(seed)
    z = torch.randn(2, 3, vocab, generator=draw, dtype=F64)
    if kind == "peaky":
        z[..., seed % vocab] += 20
    if kind == "outliers":  # flat, with one far above and one far below
        z = torch.zeros_like(z)
        z[..., 0], z[..., -1] = 30, -30
    if kind == "capped":  # as upstream's softcap leaves them
        z = 15 * torch.tanh(z)
    return (z * scale + offset).to(dtype)


KINDS = st.sampled_from(["normal", "peaky", "outliers", "capped"])
SEEDS = st.integers(0, 2**31)


@pytest.mark.parametrize("dtype", [F32, BF16, F16, F64])
@pytest.mark.parametrize("vocab", [2, 256, 8192, 65_536])
def test_a_models_logits_are_scored_as_exactly_as_in_float64(dtype: torch.dtype, vocab: int) -> None:
    for seed, kind in enumerate(("normal", "peaky", "outliers", "capped")):
        assert error(made(kind, vocab, 1.0, 0.0, dtype, seed)) < WITHIN


@settings(max_examples=80)
@given(
    KINDS,
    st.sampled_from([2, 17, 1024, 8192]),
    st.sampled_from([1e-30, 0.01, 1.0, 10.0, 1e4, 1e30]),
    st.sampled_from([0.0, 1e4, -1e4, 1e20, -1e20]),
    st.sampled_from([F32, BF16, F64]),
    SEEDS,
)
def test_hostile_logits_are_scored_as_exactly(
    kind: str, vocab: int, scale: float, offset: float, dtype: torch.dtype, seed: int
) -> None:
    logits = made(kind, vocab, scale, offset, dtype, seed)
    found, expected = (f(logits, logits.argmin(-1)) for f in (score.nats, exact))
    assert float(((found - expected).abs() - 1e-12 * expected.abs()).max()) < WITHIN  # beyond 1e6 nats by digits
    assert error(logits.clamp(logits.amax() - 1e5)) < WITHIN


def two_levels(top: float, rest: float, vocab: int) -> torch.Tensor:
    """One token above all others, and these equal: float32 errs by the same for each of them."""
    logits = torch.full((1, 1, vocab), rest)
    logits[..., 0] = top
    return logits


@settings(max_examples=100)
@given(st.floats(0, 8), st.floats(0, 20))
def test_a_vocabulary_that_rounds_all_the_same_way_is_scored_as_exactly(top: float, gap: float) -> None:
    assert error(two_levels(top, top - gap, 8192)) < WITHIN


def test_the_worst_that_was_found_of_that_kind_is_within() -> None:
    assert 1e-7 < error(two_levels(2.2065281867980957, -5.824460029602051, 8192)) < WITHIN


@pytest.mark.parametrize("dtype", [F32, BF16, F64])
def test_a_rough_computation_would_be_seen(dtype: torch.dtype) -> None:
    """The control: in half precision, or by logsumexp minus the logit, the same comparison fails."""
    logits = made("normal", 8192, 1.0, 0.0, dtype, 0)
    target = logits.argmax(-1)
    rough = -torch.log_softmax(logits.bfloat16(), -1).double().gather(-1, target.unsqueeze(-1)).squeeze(-1)
    assert float((rough - exact(logits, target)).abs().max()) > WITHIN
    moved = logits + 1e20
    forged = torch.logsumexp(moved, -1).double() - moved.double().gather(-1, target.unsqueeze(-1)).squeeze(-1)
    assert float((forged - exact(moved, target)).abs().max()) > WITHIN


# No logits gain


@settings(max_examples=80)
@given(
    KINDS,
    st.sampled_from([0.01, 1.0, 10.0, 1e4, 1e30]),
    st.sampled_from([0.0, 1e4, 1e20, -1e20]),
    st.sampled_from([F32, BF16, F64]),
    SEEDS,
)
def test_the_shares_of_all_tokens_are_one_in_all(
    kind: str, scale: float, offset: float, dtype: torch.dtype, seed: int
) -> None:
    """Whatever is forged: what one token gains the others lose."""
    vocab = 64
    position = made(kind, vocab, scale, offset, dtype, seed)[:1, :1]
    found = score.nats(position.expand(1, vocab, vocab), torch.arange(vocab).unsqueeze(0))
    assert math.fsum((-found).exp().flatten().tolist()) == pytest.approx(1.0, abs=WITHIN)
    assert float(found.min()) >= -WITHIN


@pytest.mark.parametrize("offset", [1e20, -1e20, 1e30])
@pytest.mark.parametrize("dtype", [F32, BF16, F64])
def test_a_huge_offset_makes_the_prediction_flat_and_gains_nothing(dtype: torch.dtype, offset: float) -> None:
    """Under a careless logsumexp it cancels to zero nats."""
    logits = made("peaky", 1024, 1.0, 0.0, dtype, 0)
    target = logits.argmax(-1)
    honest, moved = score.nats(logits, target), score.nats(logits + offset, target)
    assert torch.allclose(moved, torch.tensor(math.log(1024), dtype=F64), rtol=0, atol=WITHIN)
    assert float(honest.max()) < 0.1 < float(moved.min())


def test_an_offset_that_costs_no_digits_changes_nothing() -> None:
    logits = (made("normal", 1024, 1.0, 0.0, F32, 0) * 1024).round() / 1024  # so that 64 more is exact
    target = logits.argmax(-1)
    assert torch.equal(score.nats(logits, target), score.nats(logits + 64, target))


# No numbers


@pytest.mark.parametrize("dtype", [F32, BF16, F64])
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("at", [5, 0])
def test_a_logit_that_is_no_number_is_refused_wherever_it_is(dtype: torch.dtype, value: float, at: int) -> None:
    logits = made("normal", 16, 1.0, 0.0, dtype, 0)
    score.nats(logits, torch.zeros(2, 3, dtype=torch.int64))
    logits[1, 2, at] = value
    with pytest.raises(Refused) as caught:
        score.nats(logits, torch.zeros(2, 3, dtype=torch.int64))
    assert caught.value.reason is Reason.NOT_FINITE


def test_minus_infinity_is_refused_for_the_target_or_for_all_and_is_no_share_elsewhere() -> None:
    targets = torch.zeros(2, 3, dtype=torch.int64)
    for hidden in (slice(0, 1), slice(None)):
        logits = made("normal", 16, 1.0, 0.0, F32, 0)
        logits[1, 2, hidden] = -math.inf
        with pytest.raises(Refused) as caught:
            score.nats(logits, targets)
        assert caught.value.reason is Reason.NOT_FINITE
    logits = made("normal", 16, 1.0, 0.0, F32, 0)
    logits[..., 8:] = -math.inf
    assert torch.equal(score.nats(logits, targets), score.nats(logits[..., :8], targets))


def test_logits_are_left_as_they_are() -> None:
    for dtype in (F32, F64, BF16):
        logits = made("normal", 16, 1.0, 0.0, dtype, 0)
        before = logits.clone()
        score.nats(logits, torch.zeros(2, 3, dtype=torch.int64))
        assert torch.equal(logits, before)
