"""An exported program in admitted operations: what is folded, left out, taken apart; what is refused, and by which name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from trainer.evaluator.model import ops
from trainer.export.capture import MODES
from trainer.export.refusals import NotExportable, Why

VOCAB, DIM = 16, 8


class Model(torch.nn.Module):
    """Embedded tokens through a function; `w` [DIM, DIM] and `ema` are there for it."""

    def __init__(self, core: Callable[[Any, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = torch.nn.Embedding(VOCAB, DIM)
        self.w = torch.nn.Parameter(torch.randn(DIM, DIM))
        self.register_buffer("ema", torch.zeros(DIM))
        self.core = core

    def forward(self, idx: torch.Tensor) -> torch.Tensor:
        return self.core(self, self.embed(idx))


def written(core: Callable[[Any, torch.Tensor], torch.Tensor]) -> tuple[list[str], dict[str, torch.Tensor]]:
    """Names of the operations, and the tensors, of one model."""
    with torch.no_grad():
        recorded = MODES["functional"](Model(core).eval(), torch.zeros(2, 4, dtype=torch.int64))
        document, tensors = recorded.document()
    return [node["op"].removeprefix("aten.") for node in document["nodes"]], tensors


def refused(core: Callable[[Any, torch.Tensor], torch.Tensor]) -> tuple[Why, str]:
    with pytest.raises(NotExportable) as caught:
        written(core)
    return caught.value.why, caught.value.op


def test_what_is_admitted_stays_whole() -> None:
    assert written(lambda m, x: F.linear(F.rms_norm(x, (DIM,)), m.w))[0] == [
        "embedding.default", "rms_norm.default", "linear.default",
    ]  # fmt: skip


def test_what_nothing_reads_is_left_out_even_if_nobody_admits_it() -> None:
    def core(m: Any, x: torch.Tensor) -> torch.Tensor:
        torch.linalg.svdvals(x)
        m.last = x.cumsum(0)
        return x

    assert written(core)[0] == ["embedding.default"]


def test_constants_of_operations_that_nobody_admits_become_weights() -> None:
    names, tensors = written(lambda m, x: x @ torch.linalg.matrix_exp(m.w))
    assert names == ["embedding.default", "matmul.default"]
    torch.testing.assert_close(tensors["w1"], torch.linalg.matrix_exp(Model(lambda m, x: x).w.detach()))


def test_constants_of_admitted_operations_are_the_evaluators_to_fold() -> None:
    names, tensors = written(lambda m, x: x @ m.w.exp())
    assert "exp.default" in names
    assert any(torch.equal(tensor, Model(lambda m, x: x).w) for tensor in tensors.values())


def test_of_uninitialised_memory_there_is_none() -> None:
    names, _ = written(lambda m, x: torch.empty_like(x) + x)
    assert "full.default" in names
    assert not [name for name in names if name.startswith("empty")]


def test_everything_that_is_written_is_admitted() -> None:
    names, _ = written(lambda m, x: F.prelu(F.pad(x, (1, -1)).atan2(x + 2), torch.ones(1)).nan_to_num())
    assert {f"aten.{name}" for name in names} <= set(ops.allowed())


def test_a_buffer_of_statistics_is_left_out_and_one_that_reaches_the_logits_refuses() -> None:
    def writes(m: Any, x: torch.Tensor) -> torch.Tensor:
        m.ema.mul_(0.9).add_(x.mean((0, 1)))
        return x

    assert written(writes)[0] == ["embedding.default"]
    assert refused(lambda m, x: writes(m, x) + m.ema)[0] is Why.MUTATION


@pytest.mark.parametrize(
    ("core", "why", "op"),
    [
        (lambda m, x: x + torch.rand_like(x), Why.RANDOM, "rand_like"),
        (lambda m, x: F.dropout(x, 0.5, training=True), Why.RANDOM, "native_dropout"),
        (lambda m, x: torch.linalg.svdvals(x)[..., None].expand(x.shape), Why.UNSUPPORTED_OP, "linalg_svdvals"),
        (lambda m, x: (x, x), Why.SIGNATURE, ""),
        (lambda m, x: m.w, Why.OTHER, ""),
    ],
)
def test_a_refusal_names_what_it_is_for(core: Callable[..., torch.Tensor], why: Why, op: str) -> None:
    if why is Why.OTHER:
        assert written(core)[0] == []  # constant logits: for the evaluator to refuse
        return
    assert refused(core) == (why, op)


def test_dropout_that_drops_nothing_is_nothing() -> None:
    assert "rand_like.default" not in written(lambda m, x: F.dropout(x, 0.5, training=False))[0]


def test_an_operation_of_ones_own_is_taken_for_what_it_is_made_of() -> None:
    name = "glovebox_test::twice"
    twice = torch.library.custom_op(name, lambda x: x.tanh() * 2, mutates_args=(), schema="(Tensor x) -> Tensor")
    twice.register_fake(torch.empty_like)
    assert written(lambda m, x: twice(x))[0] == ["embedding.default", "tanh.default", "mul.Tensor"]


def test_a_chain_of_constants_may_be_longer_than_python_can_recurse() -> None:
    def core(m: Any, x: torch.Tensor) -> torch.Tensor:
        chain = m.w[0]
        for _ in range(1200):
            chain = chain * 0.999
        return x * torch.special.i0(chain)  # nobody admits it: all of the chain is computed here

    names, _ = written(core)
    assert names == ["embedding.default", "mul.Tensor"]
