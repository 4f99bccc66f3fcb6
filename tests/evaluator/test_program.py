"""What runs is what was reasoned about: every value is compared with the dry run's before anything reads it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.evaluator.build import Build
from trainer.evaluator.causality import prove
from trainer.evaluator.model import program
from trainer.evaluator.model.graph import Node
from trainer.evaluator.model.program import Program
from trainer.wire.refusal import Reason, Refused

T, V = 8, 16


def looked_up(b: Build, rows: Any, constant: Any) -> Any:
    """A table [V, 2, T] asked with an index of T and one of no dimensions: [T, T], where torch infers [T]."""
    return b.op("index.Tensor", b.ids["tokens"], [rows, constant])


def bench() -> Build:
    return Build(
        T,
        V,
        1,
        tokens=torch.arange(V).float().view(V, 1, 1).expand(V, 2, T).contiguous(),
        zero=torch.zeros((), dtype=torch.int64),
        eight=torch.arange(T),
        table=torch.randn(V, V),
    )


def peek(b: Build) -> Any:
    """One row's own tokens, one place ahead, through a column that only the real value has."""
    column = b.op("select.int", looked_up(b, b.op("select.int", b.idx, 0, 0), b.ids["zero"]), -1, 0)
    ahead = b.op("unsqueeze.default", b.op("roll.default", column, [-1], []), -1)
    spread = b.op("expand.default", b.op("unsqueeze.default", ahead, 0), [1, T, V])
    return b.op("add.Tensor", b.op("embedding.default", b.ids["table"], b.idx), spread)


def constant_peek(b: Build) -> Any:
    """The same while folding."""
    column = b.op("select.int", looked_up(b, b.ids["eight"], b.ids["zero"]), -1, 0)
    return b.op("add.Tensor", b.op("embedding.default", b.ids["table"], b.idx), column)


@pytest.mark.parametrize("graph", [peek, constant_peek])
def test_the_known_trap_is_refused_before_anything_runs(graph: Callable[[Build], Any]) -> None:
    b = bench()
    with pytest.raises(Refused) as caught:
        b.program(graph(b))
    assert caught.value.reason in (Reason.BAD_ARGUMENT, Reason.OUTPUT_SHAPE)


def test_without_the_rule_the_pass_ends_at_the_first_value_that_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "_refuse_traps", lambda *_: None)
    b = bench()
    prog = b.program(peek(b))
    with pytest.raises(Refused) as caught:
        prog(torch.zeros(1, T, dtype=torch.int64))
    assert caught.value.reason is Reason.SHAPE_MISMATCH


def test_without_the_rule_folding_ends_there_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "_refuse_traps", lambda *_: None)
    b = bench()
    with pytest.raises(Refused) as caught:
        b.program(constant_peek(b))
    assert caught.value.reason is Reason.SHAPE_MISMATCH


def test_without_both_the_score_is_forged(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: this is what was kept at 0.293."""
    monkeypatch.setattr(program, "_refuse_traps", lambda *_: None)
    monkeypatch.setattr(Program, "_same", lambda *_: None)
    b = bench()
    prog = b.program(peek(b))
    assert prove(prog).proved
    one, two = torch.zeros(1, T, dtype=torch.int64), torch.zeros(1, T, dtype=torch.int64)
    two[0, -1] = 5
    assert not torch.equal(prog(one)[0, : T - 1], prog(two)[0, : T - 1])


@pytest.mark.parametrize("wrong", [torch.zeros(1, T, 1), torch.zeros(1, T, dtype=torch.float64)])
def test_shape_and_type_of_every_value_are_compared(monkeypatch: pytest.MonkeyPatch, wrong: torch.Tensor) -> None:
    b = bench()
    x = b.op("_to_copy.default", b.idx, dtype={"d": "float32"})
    prog = b.program(b.logits(b.op("neg.default", x)))
    real = Node.run
    monkeypatch.setattr(Node, "run", lambda node, values: ((i, wrong) for i, _ in real(node, values)))
    with pytest.raises(Refused) as caught:
        prog(torch.zeros(1, T, dtype=torch.int64))
    assert caught.value.reason is Reason.SHAPE_MISMATCH


def test_the_tokens_themselves_are_compared() -> None:
    b = bench()
    prog = b.program(b.op("embedding.default", b.ids["table"], b.idx))
    assert prog(torch.zeros(1, T, dtype=torch.int64)).shape == (1, T, V)
    for other in (torch.zeros(2, T, dtype=torch.int64), torch.zeros(1, T, dtype=torch.int32)):
        with pytest.raises(Refused) as caught:
            prog(other)
        assert caught.value.reason is Reason.SHAPE_MISMATCH


@pytest.mark.parametrize("op", ["sum.dim_IntList", "amax.default", "softmax.int", "cumsum.default", "sort.default"])
def test_nothing_of_no_size_makes_the_prover_raise(op: str) -> None:
    rest = {
        "sum.dim_IntList": [[1]],
        "amax.default": [[0]],
        "softmax.int": [1],
        "cumsum.default": [1],
        "sort.default": [1],
    }[op]
    b = bench()
    empty = b.op("slice.Tensor", b.op("_to_copy.default", b.idx, dtype={"d": "float32"}), 1, 0, 0)  # [1, 0]
    value = b.op(op, empty, *rest, n=2 if op.startswith("sort") else 1)
    total = b.op("expand.default", b.op("sum.default", value), [1, T])
    prog = b.program(b.logits(b.op("add.Tensor", total, b.op("_to_copy.default", b.idx, dtype={"d": "float32"}))))
    assert prove(prog).proved in (True, False)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("of the GPU"), RuntimeError("something else")])
def test_a_gpu_that_is_full_while_constants_are_folded_is_named_as_that(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def full(*_: Any) -> None:
        raise error

    monkeypatch.setattr(program, "_fold", full)
    b = bench()
    with pytest.raises(torch.OutOfMemoryError if isinstance(error, torch.OutOfMemoryError) else Refused):
        b.program(b.op("embedding.default", b.ids["table"], b.idx))
