"""Every honest family exports, scores as in eager mode and is proved causal."""

from __future__ import annotations

import math

import pytest
import torch

from tests.evaluator import zoo
from tests.evaluator.conftest import Load
from trainer.evaluator import audit, score
from trainer.evaluator.causality import prove


def eager_bpb(model: torch.nn.Module, rows: torch.Tensor, token_bytes: torch.Tensor) -> float:
    """Upstream's evaluate_bpb, restated: cross entropy per token, weighted by bytes."""
    nats = total = 0.0
    with torch.no_grad():
        for row in rows.split(2):
            x, y = row[:, :-1], row[:, 1:]
            loss = model(x, y, reduction="none").view(-1)
            counted = token_bytes[y.flatten()]
            nats += float((loss * (counted > 0)).sum())
            total += float(counted.sum())
    return nats / (math.log(2) * total)


def table() -> torch.Tensor:
    return torch.tensor([0 if token % 13 == 0 else token % 5 + 1 for token in range(zoo.VOCAB)])


@pytest.mark.parametrize("name", zoo.FAMILIES)
@pytest.mark.parametrize("autocast", [False, True], ids=["fp32", "bf16"])
def test_honest_models_score_as_in_eager_mode_and_are_proved(name: str, autocast: bool, through_files: Load) -> None:
    model = zoo.FAMILIES[name]().eval()
    rows = torch.randint(0, zoo.VOCAB, (8, zoo.SEQ + 1))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        expected = eager_bpb(model, rows, table())
        prog = through_files(model)
    proof = prove(prog)
    assert proof.proved, proof
    audit.audit(prog, rows, trials=8)
    found = score.score(
        prog, rows, table(), table(), proof.obligations.watch(), lambda _: proof.obligations.discharge()
    )
    assert found.upstream == pytest.approx(expected, rel=2e-4 if autocast else 1e-6)
    assert found.upstream == found.true


@pytest.mark.parametrize("rows", [1, 4])
def test_the_score_does_not_depend_on_the_batch(rows: int, through_files: Load) -> None:
    model = zoo.FAMILIES["sdpa"]().eval()
    data = torch.randint(0, zoo.VOCAB, (8, zoo.SEQ + 1))
    found = score.score(through_files(model, rows=rows), data, table(), table(), {}, lambda _: None)
    assert found.upstream == pytest.approx(eager_bpb(model, data, table()), rel=1e-6)


def test_a_compiled_wrapper_is_unwrapped(through_files: Load) -> None:
    model = zoo.FAMILIES["sdpa"]().eval()
    compiled = torch.compile(model, backend="eager")
    idx = torch.randint(0, zoo.VOCAB, (2, zoo.SEQ))
    assert torch.equal(through_files(compiled)(idx), model(idx))
