"""Kernels keep elements apart on this machine, and the test of it sees one that does not."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from tests.evaluator.build import Build
from trainer.evaluator import isolation
from trainer.evaluator.isolation import Case, Maker
from trainer.evaluator.model import graph, kernels
from trainer.evaluator.model.program import Program

CPU = torch.device("cpu")


@pytest.mark.slow
def test_no_row_moves_another() -> None:
    found = isolation.examine(7, 15.0, CPU)
    assert found["cases"] > 100
    assert not found["coupled"], found["coupled"]


def test_every_kind_is_made_and_runs() -> None:
    maker = Maker(1, CPU)
    for make in isolation.KINDS:
        for dtype in (torch.float32, torch.bfloat16):
            case = make(maker, dtype if make is not isolation._gru else torch.float32)
            assert case.run(case.values).dtype in (case.values[0].dtype, torch.int64)


def test_a_kernel_that_mixes_rows_is_found() -> None:
    def mixing(maker: Maker) -> Case:
        x = maker.noise(2, 16, 8, dtype=torch.float32)
        return Case("softmax over rows", "_softmax.default", [isolation._Value(0), 1, False], {}, [x], {0: 1}, 1)

    assert isolation.examine(1, 0.5, CPU, mixing)["coupled"]


def test_the_tail_of_a_tile_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """What oneDNN's AMX product does, played: the first number of the next row is loaded and multiplied by zero."""
    real = kernels.run

    def amx(node: graph.Node, values: dict[int, Any]) -> list[tuple[int, torch.Tensor]]:
        [(id_, out)] = real(node, values)
        following = values[0].roll(-1, 1)[..., :1] * 0
        return [(id_, out + following.to(out.dtype))]

    def linear(maker: Maker) -> Case:
        return isolation._linear(maker, torch.bfloat16)

    monkeypatch.setattr(isolation.kernels, "run", amx)
    assert isolation.examine(1, 2.0, CPU, linear)["coupled"]


def test_tiles_of_a_convolution_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """NNPACK's, which torch takes without oneDNN for 16 rows and more; the evaluator has it off."""

    def convolution(maker: Maker) -> Case:
        return isolation._convolution(maker, torch.float32)

    kernels.settle()
    assert not isolation.examine(3, 3.0, CPU, convolution)["coupled"]
    if not torch.backends.nnpack.is_available():
        return
    torch.backends.nnpack.set_flags(True)
    try:
        assert isolation.examine(3, 8.0, CPU, convolution)["coupled"]
    finally:
        torch.backends.nnpack.set_flags(False)


def test_a_kernel_that_reads_past_its_operand_is_found() -> None:
    """Attention with one key and eight values, which traps.py refuses."""

    def short_keys(maker: Maker) -> Case:
        q, k, v = (maker.noise(1, 1, n, 4, dtype=torch.float32) for n in (4, 1, 8))
        args = [isolation._Value(0), isolation._Value(1), isolation._Value(2)]
        return Case("short keys", isolation._SDPA, args, {}, [q, k, v], {0: 2}, 2, bounded=True)

    assert isolation.examine(1, 1.0, CPU, short_keys)["coupled"]


def test_operands_of_attention_are_poisoned_within_their_obligation() -> None:
    maker = Maker(1, CPU)
    for _ in range(50):
        case = isolation._attention(maker, torch.float32)
        bad = maker.poison(case.values[0], 2, 0, case.bounded)
        assert case.bounded
        assert bool(torch.isfinite(bad).all())
    assert not dataclasses.replace(case, bounded=False).bounded


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_products_of_half_precision_go_through_float32(dtype: str) -> None:
    """A sum that half precision cannot hold on the way is right."""
    half = getattr(torch, dtype)
    weights = {"row": torch.full((1, 4096), 1.0, dtype=half), "column": torch.full((4096, 1), 1.0 / 4096, dtype=half)}
    b = Build(**weights)
    prog = _folded(b, b.op("mm.default", b.ids["row"], b.ids["column"]))
    assert float(prog) == 1.0
    assert prog.dtype is half


def _folded(b: Build, value: Any) -> torch.Tensor:
    wide = b.op("expand.default", b.op("unsqueeze.default", value, 0), [b.rows, b.seq_len, b.vocab])
    program: Program = b.program(wide)
    return program.constants[program.output][0, 0, 0]
