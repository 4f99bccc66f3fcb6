"""What people write in a forward pass is handed over, proved and scored as in eager mode; what is not says why."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.evaluator import zoo
from tests.evaluator.constructs import CONSTRUCTS, REFUSED, UNPROVED
from tests.evaluator.test_families import eager_bpb, table
from trainer import hand_over
from trainer.evaluator import audit, score
from trainer.evaluator.causality import prove
from trainer.evaluator.checks import Checks
from trainer.evaluator.model import graph, program, weights
from trainer.export.capture import Batch
from trainer.export.refusals import NotExportable

CPU = torch.device("cpu")
_NO_BF16 = {"nn.LSTM"}  # not in eager mode either
# One type each, by turns: either is exported in the same ways.
CASES = [(name, at % 2 == 1 and name not in _NO_BF16) for at, name in enumerate(CONSTRUCTS)]


def tokens() -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randint(0, zoo.VOCAB, (8, zoo.SEQ + 1))


def handed_over(model: torch.nn.Module, folder: Path) -> program.Program:
    """Traced with the first rows: the others are as new to the graph as validation data."""
    rows = tokens()[:2]
    hand_over.hand_over(model, folder, rows=2, seq_len=zoo.SEQ, vocab=zoo.VOCAB, batch=Batch(rows[:, :-1], rows[:, 1:]))
    parsed = graph.parse((folder / "graph.json").read_bytes(), CPU)
    tensors = weights.load(folder / "weights.safetensors", 1 << 30, CPU)
    with torch.autocast("cpu", enabled=False):  # an evaluator knows nothing of it
        return program.prepare(
            parsed, tensors, rows=2, seq_len=zoo.SEQ, vocab=zoo.VOCAB, device=CPU, limits=program.Limits()
        )


@pytest.mark.parametrize(
    ("name", "autocast"), CASES, ids=[f"{name} {'bf16' if half else 'fp32'}" for name, half in CASES]
)
def test_it_scores_as_in_eager_mode_and_is_proved(name: str, autocast: bool, tmp_path: Path) -> None:
    model, rows = CONSTRUCTS[name]().eval(), tokens()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        expected = eager_bpb(model, rows, table())
        prog = handed_over(model, tmp_path)
        assert eager_bpb(model, rows, table()) == expected  # nothing of the model was changed
    proof = prove(prog)
    assert proof.proved, proof
    audit.audit(prog, rows, trials=8)
    checks = Checks(prog)

    def discharge(_: int) -> None:
        proof.obligations.discharge()
        checks.discharge()

    found = score.score(prog, rows, table(), table(), checks.beside(proof.obligations.watch()), discharge)
    assert found.upstream == pytest.approx(expected, rel=2e-4 if autocast else 1e-6)


@pytest.mark.parametrize("name", UNPROVED)
def test_it_is_handed_over_and_not_proved(name: str, tmp_path: Path) -> None:
    prog = handed_over(UNPROVED[name]().eval(), tmp_path)
    assert torch.isfinite(prog(tokens()[:2, :-1])).all()
    assert not prove(prog).proved


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_with_a_reason_that_names_the_operation(name: str, tmp_path: Path) -> None:
    build, why, op = REFUSED[name]
    with pytest.raises(NotExportable) as caught:
        handed_over(build().eval(), tmp_path)
    assert (str(caught.value.why), caught.value.op) == (why, op)
