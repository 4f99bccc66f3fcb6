"""Calls that torch takes and should not are refused before anything runs, and their nearest neighbours are not."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.evaluator.build import Build
from trainer.evaluator.causality import prove
from trainer.evaluator.model import program, traps
from trainer.wire.refusal import Reason, Refused

VECTOR, SCALAR = torch.zeros(3, dtype=torch.int64), torch.zeros((), dtype=torch.int64)
HALF, FULL = torch.zeros(4, dtype=torch.bfloat16), torch.zeros(4)


@pytest.mark.parametrize(
    ("name", "bound", "refused"),
    [
        ("index", {"indices": [VECTOR, SCALAR]}, True),
        ("index", {"indices": [VECTOR, None, SCALAR]}, True),
        ("index", {"indices": [VECTOR, SCALAR, None]}, True),
        ("index", {"indices": [SCALAR, VECTOR]}, False),
        ("index", {"indices": [SCALAR, SCALAR]}, False),
        ("index", {"indices": [None, VECTOR]}, False),
        ("arange", {"start": 0, "end": 2**31}, True),
        ("arange", {"start": -(2**53), "end": 5 - 2**53}, True),
        ("arange", {"start": 0, "end": 2**31 - 1}, False),
        ("arange", {"end": 1e30}, False),
        ("native_layer_norm", {"input": HALF, "weight": FULL, "bias": None}, True),
        ("native_layer_norm", {"input": HALF, "weight": HALF, "bias": FULL}, True),
        ("native_layer_norm", {"input": HALF, "weight": HALF, "bias": None}, False),
        ("pow", {"self": VECTOR.bool(), "exponent": False}, True),
        ("pow", {"self": VECTOR, "exponent": 2}, False),
        ("div", {"self": VECTOR, "other": VECTOR, "rounding_mode": "trunc"}, True),
        ("div", {"self": VECTOR, "other": VECTOR, "rounding_mode": "floor"}, False),
        ("div", {"self": FULL, "other": VECTOR, "rounding_mode": "trunc"}, False),
        ("linear", {"input": HALF, "weight": HALF, "bias": FULL}, True),
        ("linear", {"input": HALF, "weight": HALF, "bias": HALF}, False),
        ("linear", {"input": HALF, "weight": HALF, "bias": None}, False),
        ("matmul", {"self": FULL.double(), "other": FULL}, True),
        ("matmul", {"self": FULL, "other": FULL}, False),
        ("addmm", {"self": FULL, "mat1": FULL, "mat2": FULL, "beta": 1, "alpha": 2.0}, False),
        ("add", {"self": VECTOR, "other": SCALAR}, False),
    ],
)
def test_calls_that_torch_infers_wrongly_are_refused_and_their_neighbours_are_not(
    name: str, bound: dict[str, Any], refused: bool
) -> None:
    assert (traps.trap(name, bound) is not None) is refused


def _like(*shape: int) -> torch.Tensor:
    return torch.zeros(shape)


Q, K, V = _like(2, 4, 8, 16), _like(2, 4, 6, 16), _like(2, 4, 6, 32)


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        ({}, False),
        ({"key": _like(2, 4, 1, 16)}, True),  # read past its end: the forgery
        ({"key": _like(2, 4, 3, 16)}, True),
        ({"value": _like(2, 4, 1, 32)}, True),
        ({"key": _like(2, 4, 6, 8)}, True),
        ({"key": _like(1, 4, 6, 16), "value": _like(1, 4, 6, 32)}, True),
        ({"key": _like(2, 2, 6, 16), "value": _like(2, 2, 6, 32)}, True),
        ({"key": _like(2, 2, 6, 16), "value": _like(2, 2, 6, 32), "enable_gqa": True}, False),
        ({"key": _like(2, 3, 6, 16), "value": _like(2, 3, 6, 32), "enable_gqa": True}, True),
        ({"key": _like(2, 2, 6, 16), "value": _like(2, 4, 6, 32), "enable_gqa": True}, True),
        ({"attn_mask": _like(8, 6)}, False),
        ({"attn_mask": _like(1, 1, 8, 6)}, False),
        ({"attn_mask": _like(2, 4, 8, 1)}, False),
        ({"attn_mask": _like(6)}, True),
        ({"attn_mask": _like(8, 5)}, True),
        ({"attn_mask": _like(5, 2, 4, 8, 6)}, True),
        ({"query": 1.0}, True),
        ({"query": Q[0], "key": K[0], "value": V[0]}, False),
        ({"query": Q[0, 0], "key": K[0, 0], "value": V[0, 0]}, True),
    ],
)
def test_attention_reads_what_there_is(change: dict[str, Any], refused: bool) -> None:
    bound = {"query": Q, "key": K, "value": V, **change}
    assert (traps.trap("scaled_dot_product_attention", bound) is not None) is refused


H = 5
WEIGHTS = [_like(3 * H, 7), _like(3 * H, H), _like(3 * H), _like(3 * H)]
GRU = {"input": _like(2, 8, 7), "hx": _like(1, 2, H), "params": WEIGHTS, "has_biases": True, "num_layers": 1,
       "dropout": 0.0, "train": False, "bidirectional": False, "batch_first": True}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        ({}, False),
        ({"params": [_like(4, 7), _like(4, H), _like(4), _like(4)]}, True),  # read past the vector of its gates
        ({"params": [*WEIGHTS[:2], _like(2, 1, 3 * H), WEIGHTS[3]]}, True),
        ({"params": WEIGHTS[:2]}, True),
        ({"params": WEIGHTS[:2], "has_biases": False}, False),
        ({"params": [*WEIGHTS[:3], WEIGHTS[3].double()]}, True),
        ({"hx": _like(5, 2, H)}, True),
        ({"hx": _like(1, 3, H)}, True),
        ({"hx": _like(2, H)}, True),
        ({"num_layers": 0}, True),
        ({"num_layers": 2, "hx": _like(2, 2, H)}, True),
        ({"num_layers": 2, "hx": _like(2, 2, H), "params": [*WEIGHTS, _like(15, 5), _like(15, 5), _like(15), _like(15)]},
         False),
        ({"input": 1.0}, True),
    ],
)  # fmt: skip
def test_a_recurrence_has_three_gates(change: dict[str, Any], refused: bool) -> None:
    assert (traps.trap("gru", {**GRU, **change}) is not None) is refused


def short_keys() -> tuple[Build, Any]:
    """A peek by reading past the end of one key: behind it, in memory, lies a bit of the next token."""
    b = Build(
        8, 16, 1, one=torch.full((1, 8, 1, 1), 1.0), keys=torch.tensor([[0.0], [1.0]]).expand(1, 8, 2, 1).contiguous()
    )
    bit = b.op("bitwise_and.Scalar", b.op("roll.default", b.idx, [-1], [1]), 1)
    wide = b.op("view.default", b.op("_to_copy.default", bit, dtype={"d": "float32"}), [1, 8, 1, 1])
    both = b.op("cat.default", [b.op("zeros_like.default", wide), b.op("mul.Scalar", wide, 50.0)], 2)
    key = b.op("slice.Tensor", both, 2, 0, 1)
    seen = b.op("scaled_dot_product_attention.default", b.ids["one"], key, b.ids["keys"], None, 0.0, False, scale=1.0)
    return b, b.logits(b.op("view.default", seen, [1, 8]))


def test_a_key_that_is_read_past_its_end_is_refused() -> None:
    b, logits = short_keys()
    with pytest.raises(Refused) as caught:
        b.program(logits)
    assert caught.value.reason is Reason.BAD_ARGUMENT


def test_without_the_rule_it_shows_the_next_token_and_is_proved(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: the proof alone does not see it."""
    monkeypatch.setattr(program, "_refuse_traps", lambda *_: None)
    b, logits = short_keys()
    prog = b.program(logits)
    assert prove(prog).proved
    one, two = torch.zeros(1, 8, dtype=torch.int64), torch.ones(1, 8, dtype=torch.int64)
    assert not torch.equal(prog(one), prog(two))
