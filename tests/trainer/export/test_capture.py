"""Short passes are traced, long ones recorded, and what one way cannot say the other may."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from trainer import hand_over
from trainer.export import capture
from trainer.export.capture import Batch

VOCAB, DIM, T, ROWS = 16, 8, 6, 2
Core = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Model(torch.nn.Module):
    def __init__(self, core: Core) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.core = torch.nn.Embedding(VOCAB, VOCAB), core

    def forward(self, idx: torch.Tensor) -> torch.Tensor:
        return self.core(self.embed(idx), idx)


def assigned(x: torch.Tensor, idx: torch.Tensor) -> torch.Tensor:
    """Rows by a mask of tokens: known to tracing alone."""
    x = x.clone()
    x[idx == 3] = 1.0
    return x


def handed(core: Core, folder: Path) -> None:
    rows = torch.randint(0, VOCAB, (ROWS, T + 1))
    batch = Batch(rows[:, :-1], rows[:, 1:])
    hand_over.hand_over(Model(core).eval(), folder, rows=ROWS, seq_len=T, vocab=VOCAB, batch=batch)


@pytest.mark.parametrize(("most", "first"), [(-1, "direct"), (10_000, "functional")])
def test_a_pass_of_many_calls_is_recorded_and_one_of_few_is_traced(
    most: int, first: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def named(name: str) -> capture.Mode:
        mode = capture.MODES[name]
        return lambda *args: (asked.append(name), mode(*args))[1]

    monkeypatch.setattr(capture, "LONG", most)
    monkeypatch.setattr(capture, "MODES", {name: named(name) for name in capture.MODES})
    handed(lambda x, idx: x * 2, tmp_path)
    assert asked == [first]


def test_a_long_pass_that_cannot_be_recorded_is_traced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "LONG", -1)
    handed(assigned, tmp_path)
