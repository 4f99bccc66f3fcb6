"""The audit runs what was scored again: it sees what no proof said, accuses nobody by one pass, and states its bound."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.evaluator.build import Build
from trainer.evaluator import score
from trainer.evaluator.audit import Auditor, audit
from trainer.evaluator.model.program import Program
from trainer.wire.refusal import Reason, Refused

ROWS, B, T, V = 24, 2, 8, 16
F32 = {"d": "float32"}


def rows(seed: int = 0) -> torch.Tensor:
    return torch.randint(0, V, (ROWS, T + 1), generator=torch.Generator().manual_seed(seed))


def build(peek: Callable[[Build], Any]) -> Program:
    """Logits that favour a token by what `peek` gives, [B, T] floats."""
    b = Build(T, V, B, table=torch.randn(V, V), bump=torch.arange(V).float())
    seen = b.op("unsqueeze.default", peek(b), -1)
    return b.program(
        b.op("add.Tensor", b.op("embedding.default", b.ids["table"], b.idx), b.op("mul.Tensor", seen, b.ids["bump"]))
    )


def honest(b: Build) -> Any:
    return b.op("mul.Scalar", b.op("_to_copy.default", b.idx, dtype=F32), 0.0)


def next_token(b: Build) -> Any:
    return b.op("_to_copy.default", b.op("roll.default", b.idx, [-1], [1]), dtype=F32)


def other_row(b: Build) -> Any:
    return b.op("_to_copy.default", b.op("roll.default", b.idx, [1], [0]), dtype=F32)


def at_one_position(b: Build) -> Any:
    """The next token, at position 3 alone."""
    there = b.op("eq.Scalar", b.op("arange.default", T), 3)
    return b.op("mul.Tensor", next_token(b), b.op("_to_copy.default", there, dtype=F32))


def auditor(program: Program, data: torch.Tensor) -> Auditor:
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(1))
    found = score.losses(program, data, order, {}, lambda _: None)
    return Auditor(program, data, found, order)


@pytest.mark.parametrize("peek", [next_token, other_row])
def test_a_look_ahead_or_aside_is_seen_on_scored_batches(peek: Callable[[Build], Any]) -> None:
    with pytest.raises(Refused) as caught:
        auditor(build(peek), rows()).some(ROWS)
    assert caught.value.reason is Reason.NON_CAUSAL


def test_an_honest_model_passes_every_row_and_is_counted() -> None:
    done = auditor(build(honest), rows())
    done.every(0.5)
    assert done.trials == ROWS
    assert done.alone == ROWS // B // 2


def test_a_look_at_one_position_escapes_few_rows_but_not_every_row() -> None:
    """With one cut a row, position 3 is tried on a seventh of the rows: 24 rows miss it in 2.5 % of cases."""
    seen = 0
    for seed in range(20):
        try:
            auditor(build(at_one_position), rows(seed)).every(0.0)
        except Refused:
            seen += 1
    assert seen >= 15


def test_what_is_compared_is_the_score_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph that tells scored rows from others by their neighbours looks ahead only there; random rows missed it."""
    data = rows()
    data[0::2, 0], data[1::2, 0] = 5, 6  # in packing order a row that begins with 6 follows one that begins with 5

    def in_packing_order(b: Build) -> Any:
        first = b.op("slice.Tensor", b.idx, 1, 0, 1)
        sixes = b.op("eq.Scalar", first, 6)
        fives = b.op("roll.default", b.op("eq.Scalar", first, 5), [1], [0])
        here = b.op("_to_copy.default", b.op("logical_and.default", sixes, fives), dtype=F32)
        return b.op("mul.Tensor", next_token(b), here)

    program = build(in_packing_order)
    order = torch.arange(len(data))
    done = Auditor(program, data, score.losses(program, data, order, {}, lambda _: None), order)
    with pytest.raises(Refused) as caught:
        for _ in range(5):
            done.every(0.0)
    assert caught.value.reason is Reason.NON_CAUSAL


class Flaky:
    """A program one pass of which differs from all others."""

    def __init__(self, program: Program, odd: int) -> None:
        self.program, self.odd, self.calls = program, odd, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.program, name)

    def __call__(self, idx: torch.Tensor, watch: Any = None) -> torch.Tensor:
        self.calls += 1
        out = self.program(idx, watch)
        return out + torch.linspace(0, 1e-3, V) if self.calls == self.odd else out


@pytest.mark.parametrize("odd", [*range(1, ROWS // B + 6)])
def test_one_odd_pass_accuses_nobody(odd: int) -> None:
    """Whichever pass it is: one of scoring, or one of the audit."""
    flaky: Any = Flaky(build(honest), odd)
    try:
        done = auditor(flaky, rows())
        done.every(0.0)
    except Refused as refused:
        assert refused.reason is Reason.NONDETERMINISTIC


def test_the_old_call_still_audits_rows_drawn_at_random() -> None:
    assert audit(build(honest), rows(), 6) >= 6
    with pytest.raises(Refused):
        audit(build(next_token), rows(), ROWS)
    with pytest.raises(Refused) as caught:
        audit(build(honest), rows()[:1], 6)
    assert caught.value.reason is Reason.NOT_PROVED
