"""Hand a model over into a folder and load it back as the evaluator does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.evaluator import zoo
from trainer import hand_over
from trainer.evaluator.model import graph, program, weights

CPU = torch.device("cpu")
Load = Callable[..., program.Program]


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GLOVEBOX_OUT", str(tmp_path))
    torch.manual_seed(0)


@pytest.fixture
def through_files(tmp_path: Path) -> Load:
    """model -> hand-over files -> validated program."""

    def load(model: torch.nn.Module, rows: int = 2, seq_len: int = zoo.SEQ, vocab: int = zoo.VOCAB) -> program.Program:
        hand_over.hand_over(model, tmp_path, rows=rows, seq_len=seq_len)
        parsed = graph.parse((tmp_path / "graph.json").read_bytes(), CPU)
        tensors = weights.load(tmp_path / "weights.safetensors", 1 << 30, CPU)
        return program.prepare(
            parsed, tensors, rows=rows, seq_len=seq_len, vocab=vocab, device=CPU, limits=program.Limits()
        )

    return load
