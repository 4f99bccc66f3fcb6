"""Layers in plain operations give what torch gives, and what is causal is proved to be."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from tests.trainer.export.test_negations import SEEN, VOCAB, Plain, T, says_the_same
from trainer.evaluator.causality import prove
from trainer.export import layers
from trainer.export.calls import Call
from trainer.export.refusals import NotExportable

OPERATION = torch.ops.aten.linalg_solve_triangular.default
_NOBODY: Any = None  # it emits nothing by itself


@pytest.mark.parametrize("size", [0, 1, 2, 5, 8])
def test_a_triangle_is_solved_from_either_end_and_side(size: int) -> None:
    torch.manual_seed(0)
    for upper, left, unit in itertools.product((False, True), repeat=3):
        a = torch.randn(3, 1, size, size) + 4 * torch.eye(size)
        b = torch.randn(2, size, 3) if left else torch.randn(2, 3, size)
        asked = {"upper": upper, "left": left, "unitriangular": unit}
        found = layers._solve_triangular(Call(_NOBODY, OPERATION, (a, b), asked))
        torch.testing.assert_close(found, torch.linalg.solve_triangular(a, b, **asked))


@pytest.mark.parametrize("upper", [False, True])
def test_solved_from_the_first_row_on_no_row_sees_what_comes_later(upper: bool) -> None:
    def solved(x: torch.Tensor, idx: torch.Tensor) -> torch.Tensor:
        steps = torch.eye(T) + (x @ x.mT / VOCAB).masked_fill(~(SEEN.mT if upper else SEEN), 0.0) / 4
        return torch.linalg.solve_triangular(steps, x, upper=upper)

    model = Plain(solved)
    assert prove(says_the_same(model, "functional", rtol=1e-5)).proved is not upper


def test_a_mean_of_integers_is_an_integer_and_refused() -> None:
    def averaged(x: torch.Tensor, idx: torch.Tensor) -> torch.Tensor:
        pairs = (torch.arange(T) // 2).expand_as(idx)
        return x * torch.zeros_like(idx).scatter_reduce(1, pairs, idx, "mean", include_self=False)[..., None]

    with pytest.raises(NotExportable, match="scatter_reduce"):
        says_the_same(Plain(averaged), "functional")
