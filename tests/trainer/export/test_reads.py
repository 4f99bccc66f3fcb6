"""A branch on tokens is confirmed for every row, a number of parameters is what it is, a number of tokens is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from trainer import hand_over
from trainer.evaluator.checks import Checks
from trainer.evaluator.model import graph, program, weights
from trainer.export.capture import Batch
from trainer.export.refusals import NotExportable, Why
from trainer.wire.refusal import Reason, Refused

VOCAB, DIM, T = 16, 16, 4
CPU = torch.device("cpu")
Core = Callable[[Any, torch.Tensor, torch.Tensor], torch.Tensor]


class Model(torch.nn.Module):
    def __init__(self, core: Core) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = torch.nn.Embedding(VOCAB, DIM)
        self.scale = torch.nn.Parameter(torch.tensor(0.5))
        self.core = core

    def forward(self, idx: torch.Tensor) -> torch.Tensor:
        return self.core(self, self.embed(idx), idx)


def loaded(core: Core, folder: Path, traced: torch.Tensor) -> program.Program:
    batch = Batch(traced, traced)
    hand_over.hand_over(Model(core).eval(), folder, rows=len(traced), seq_len=T, batch=batch)
    parsed = graph.parse((folder / "graph.json").read_bytes(), CPU)
    tensors = weights.load(folder / "weights.safetensors", 1 << 20, CPU)
    return program.prepare(
        parsed, tensors, rows=len(traced), seq_len=T, vocab=VOCAB, device=CPU, limits=program.Limits()
    )


def run(prog: program.Program, idx: torch.Tensor) -> torch.Tensor:
    checks = Checks(prog)
    logits = prog(idx, checks.beside({}))
    checks.discharge()
    return logits


def branches(m: Any, x: torch.Tensor, idx: torch.Tensor) -> torch.Tensor:
    return x * 2 if (idx == 3).any() else x


ONES = torch.ones(2, T, dtype=torch.int64)


def test_a_branch_that_goes_the_same_way_is_scored_and_another_refused(tmp_path: Path) -> None:
    prog = loaded(branches, tmp_path, ONES)
    assert torch.equal(run(prog, ONES + 1), Model(branches)(ONES + 1))
    other = torch.tensor([[1, 1, 1, 1], [1, 1, 3, 1]])
    with pytest.raises(Refused) as caught:
        run(prog, other)
    assert caught.value.reason is Reason.OTHER_BRANCH


def test_the_branch_that_is_taken_is_the_one_that_is_handed_over(tmp_path: Path) -> None:
    traced = ONES + 2
    assert torch.equal(run(loaded(branches, tmp_path, traced), traced), Model(branches)(traced))


def test_an_assertion_holds_of_every_row(tmp_path: Path) -> None:
    def asserts(m: Any, x: torch.Tensor, idx: torch.Tensor) -> torch.Tensor:
        assert bool((idx < 8).all())
        return x

    prog = loaded(asserts, tmp_path, ONES)
    run(prog, ONES * 7)
    with pytest.raises(Refused):
        run(prog, ONES * 8)


@pytest.mark.parametrize("read", [float, torch.Tensor.item, bool, lambda t: t.detach().item()])
def test_a_number_of_parameters_is_a_number(read: Callable[[torch.Tensor], float], tmp_path: Path) -> None:
    def core(m: Any, x: torch.Tensor, idx: torch.Tensor) -> torch.Tensor:
        return x * read(m.scale)

    prog = loaded(core, tmp_path, ONES)
    assert prog.checks == ()
    torch.testing.assert_close(run(prog, ONES), Model(core)(ONES))


def kept_for_a_log(m: Any, x: torch.Tensor, idx: torch.Tensor) -> torch.Tensor:
    m.stat = x.mean().item()
    m.said = [f"{float(x.norm()):.3f}", int(idx.max())]
    return x * 2


def kept_beside_a_branch(m: Any, x: torch.Tensor, idx: torch.Tensor) -> torch.Tensor:
    m.stat = x.mean().item()
    return branches(m, x, idx) * m.scale.item()


@pytest.mark.parametrize("core", [kept_for_a_log, kept_beside_a_branch])
def test_a_number_that_nothing_comes_of_is_no_obstacle(core: Core, tmp_path: Path) -> None:
    prog = loaded(core, tmp_path, ONES)
    assert len(prog.checks) == (core is kept_beside_a_branch)
    torch.testing.assert_close(run(prog, ONES + 1), Model(core)(ONES + 1))


def later(m: Any, x: torch.Tensor, idx: torch.Tensor) -> torch.Tensor:
    before = getattr(m, "stat", 0.0)
    m.stat = x.mean().item()
    return x * (1 + before)


def later_if_it_was_none(m: Any, x: torch.Tensor, idx: torch.Tensor) -> torch.Tensor:
    """Shows in the call after the last of other answers, and in no other."""
    before = getattr(m, "stat", 0.0)
    m.stat = x.mean().item()
    return x * 2 if math.isnan(before) else x


def average_of_parameters(m: Any, x: torch.Tensor, idx: torch.Tensor) -> torch.Tensor:
    before = getattr(m, "average", 0.0)
    m.average = 0.5 * before + 0.5 * m.scale.item()
    return x + (before if abs(before) > 1e3 else 0.0)


def test_what_a_model_kept_of_other_answers_is_taken_back(tmp_path: Path) -> None:
    """An average held infinity after it was asked, and so did the graph."""
    prog = loaded(average_of_parameters, tmp_path, ONES)
    torch.testing.assert_close(run(prog, ONES), Model(average_of_parameters)(ONES))


USED: dict[str, Core] = {
    "beyond a threshold": lambda m, x, idx: x * 2 if x.mean().item() > 1e6 else x,
    "below one": lambda m, x, idx: x * 2 if x.mean().item() < -1e20 else x,
    "if it is none": lambda m, x, idx: x * 2 if math.isnan(x.mean().item()) else x,
    "as a bound": lambda m, x, idx: x + x[:, : int(idx.max())].sum(1, keepdim=True),
    "times a constant": lambda m, x, idx: x + x.mean().item() * 0.001,
    "in the next call": later,
    "in the next call, if it is none": later_if_it_was_none,
}


@pytest.mark.parametrize("how", USED)
def test_a_number_that_something_comes_of_is_refused(how: str, tmp_path: Path) -> None:
    with pytest.raises(NotExportable):
        loaded(USED[how], tmp_path, ONES)


def test_a_number_of_tokens_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotExportable) as caught:
        loaded(lambda m, x, idx: x * idx.max().item(), tmp_path, ONES)
    assert caught.value.why is Why.CONTROL_FLOW


@pytest.mark.parametrize("checks", [[0], [-1], [99], "1", [True], [1.0], [1] * 300])
def test_checks_of_a_hostile_graph_are_refused(checks: Any) -> None:
    document = {
        "format": graph.FORMAT, "input": 0, "weights": [], "output": 1,
        "nodes": [{"op": "aten.eq.Scalar", "a": [{"t": 0}, 1]}], "checks": checks,
    }  # fmt: skip

    with pytest.raises(Refused):
        graph.parse(json.dumps(document).encode(), CPU)
    assert graph.parse(json.dumps(document | {"checks": [1]}).encode(), CPU).checks == (1,)
