"""Operations that take functions, written in plain ones: the same for other tokens; what cannot be is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch._higher_order_ops.associative_scan import associative_scan
from torch._higher_order_ops.map import map as map_over
from torch._higher_order_ops.scan import scan
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from trainer import hand_over
from trainer.evaluator.model import graph, program, weights
from trainer.export.refusals import NotExportable, Why

VOCAB, T, ROWS = 32, 16, 2
CPU = torch.device("cpu")
Core = Callable[[torch.Tensor], torch.Tensor]


class Model(torch.nn.Module):
    def __init__(self, core: Core) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = torch.nn.Embedding(VOCAB, VOCAB)
        self.core = core

    def forward(self, idx: torch.Tensor) -> torch.Tensor:
        return self.core(self.embed(idx))


def same(core: Core, folder: Path) -> None:
    model = Model(core).eval()
    hand_over.hand_over(model, folder, rows=ROWS, seq_len=T)
    parsed = graph.parse((folder / "graph.json").read_bytes(), CPU)
    tensors = weights.load(folder / "weights.safetensors", 1 << 20, CPU)
    prog = program.prepare(parsed, tensors, rows=ROWS, seq_len=T, vocab=VOCAB, device=CPU, limits=program.Limits())
    idx = torch.randint(0, VOCAB, (ROWS, T))
    with torch.no_grad():  # flex attention knows no other way on a CPU
        torch.testing.assert_close(prog(idx), model(idx), rtol=1e-5, atol=1e-5)


def decayed(state: torch.Tensor, now: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    new = 0.5 * state + now
    return new, new.clone()


def heads(x: torch.Tensor) -> torch.Tensor:
    return x.view(ROWS, T, 4, -1).transpose(1, 2)


def merged(x: torch.Tensor) -> torch.Tensor:
    return x.transpose(1, 2).reshape(ROWS, T, -1)


def blocks(length: int) -> Callable[..., torch.Tensor]:
    def seen(b: torch.Tensor, h: torch.Tensor, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
        return (i >= j) & (i - j < length)

    return seen


def flex(x: torch.Tensor, length: int = T, kv: int = 4) -> torch.Tensor:
    mask = create_block_mask(blocks(length), None, None, T, T, device="cpu", BLOCK_SIZE=8)
    q, k = heads(x), heads(x)[:, :kv]
    return merged(flex_attention(q, k, k * 2, block_mask=mask, enable_gqa=kv != 4))


CORES: dict[str, Core] = {
    "scan": lambda x: scan(decayed, torch.zeros_like(x[:, 0]), x.movedim(1, 0))[1].movedim(0, 1),
    "associative scan": lambda x: associative_scan(torch.add, x, dim=1, combine_mode="generic"),
    "associative scan, reversed": lambda x: associative_scan(
        torch.maximum, x, dim=1, reverse=True, combine_mode="generic"
    ),
    "map": lambda x: map_over(lambda row: row.cumsum(0) * 2, x),
    "flex attention": flex,
    "flex attention in a window": lambda x: flex(x, 3),
    "flex attention with grouped heads": lambda x: flex(x, T, 2),
}


@pytest.mark.parametrize("name", CORES)
def test_it_is_the_same_in_plain_operations(name: str, tmp_path: Path) -> None:
    same(CORES[name], tmp_path)


@pytest.mark.parametrize("flag", [True, False])
def test_a_condition_on_constants_is_decided_here(flag: bool, tmp_path: Path) -> None:
    same(lambda x: torch.cond(torch.tensor(flag), lambda y: y * 2, lambda y: y - 1, (x,)), tmp_path)


def test_a_condition_on_tokens_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotExportable) as caught:
        same(lambda x: torch.cond(x.sum() > 0, lambda y: y * 2, lambda y: y - 1, (x,)), tmp_path)
    assert caught.value.why is Why.CONTROL_FLOW
