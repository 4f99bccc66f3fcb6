"""Rows chosen by the tokens: the same as the experts on every row and a choice, for other tokens too; or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.trainer.export.test_reads import CPU, VOCAB, T
from trainer import hand_over
from trainer.evaluator.model import graph, program, weights
from trainer.export.refusals import NotExportable, Why

DIM = VOCAB
Core = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


class Model(torch.nn.Module):
    """Flat rows, which of them are chosen, and a matrix."""

    def __init__(self, core: Core) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = torch.nn.Embedding(VOCAB, DIM)
        self.w = torch.nn.Parameter(torch.randn(DIM, DIM))
        self.core = core

    def forward(self, idx: torch.Tensor) -> torch.Tensor:
        x = self.embed(idx).reshape(-1, DIM)
        return self.core(x, idx.reshape(-1) % 3 == 0, self.w).reshape(*idx.shape, DIM)


def same(core: Core, folder: Path) -> None:
    """As in eager mode for tokens that choose other rows, none and all of them included."""
    model = Model(core).eval()
    hand_over.hand_over(model, folder, rows=2, seq_len=T)
    parsed = graph.parse((folder / "graph.json").read_bytes(), CPU)
    tensors = weights.load(folder / "weights.safetensors", 1 << 20, CPU)
    prog = program.prepare(parsed, tensors, rows=2, seq_len=T, vocab=VOCAB, device=CPU, limits=program.Limits())
    for seed in range(4):
        torch.manual_seed(seed)
        idx = torch.randint(0, VOCAB, (2, T))
        torch.testing.assert_close(prog(idx), model(idx))
    for all_or_none in (torch.full((2, T), 3), torch.ones(2, T, dtype=torch.int64)):
        torch.testing.assert_close(prog(all_or_none), model(all_or_none))


def put(x: torch.Tensor, rows: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    out = torch.zeros_like(x)
    out[rows] = values
    return out


def added(x: torch.Tensor, rows: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    return x.index_add(0, rows, values)


def two_slots(x: torch.Tensor, chosen: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    slots = torch.stack((chosen, x[:, 0] > 0))  # [slots, rows]
    slot, row = torch.where(slots)
    return x.index_add(0, row, torch.tanh(x[row] @ w) * (slot + 1)[:, None])


def left_out(x: torch.Tensor, chosen: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """As experts are that no row was sent to."""
    rows = torch.where(chosen)[0]
    return x if rows.numel() == 0 else added(x, rows, torch.tanh(x[rows] @ w))


def left_out_by_mask(x: torch.Tensor, chosen: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    rows = x[chosen]
    if rows.shape[0] == 0:
        return torch.zeros_like(x)
    return put(x, chosen, torch.tanh(rows @ w))


SAME: dict[str, Core] = {
    "left out where there are none": left_out,
    "left out where a mask chooses none": left_out_by_mask,
    "nonzero, an expert, put back": lambda x, m, w: put(x, m.nonzero()[:, 0], torch.tanh(x[m.nonzero()[:, 0]] @ w)),
    "where": lambda x, m, w: put(x, torch.where(m)[0], x[torch.where(m)[0]] * 2),
    "a boolean index": lambda x, m, w: put(x, m, torch.relu(x[m] @ w)),
    "a boolean index set to a number": lambda x, m, w: x.masked_fill(torch.zeros_like(m)[:, None], 0).index_put((m,), w[0, 0]),
    "added to what is there": lambda x, m, w: added(x, torch.where(m)[0], x[torch.where(m)[0]] @ w),
    "two slots of every row": two_slots,
    "normalised, by features": lambda x, m, w: put(x, m, torch.softmax(x[m], -1) - x[m].mean(-1, keepdim=True)),
    "a table looked up by numbers that only chosen rows have in range": lambda x, m, w: put(
        x, m, w[(torch.arange(x.shape[0]) - 100 * ~m)[m]]
    ),
    "features to length one": lambda x, m, w: put(x, m, torch.nn.functional.normalize(x[m], dim=-1)),
    "weights looked up by chosen rows": lambda x, m, w: put(x, torch.where(m)[0], w[torch.where(m)[0]]),
}  # fmt: skip
MIXED: dict[str, Core] = {
    "counted behind a dimension in front": lambda x, m, w: x * x[None, m.nonzero()[:, 0]].shape[1],
    "split behind a dimension in front": lambda x, m, w: x + x[None, m.nonzero()[:, 0]].split(1, 2)[0].sum(),
    "summed behind a dimension in front": lambda x, m, w: x + x[None, m.nonzero()[:, 0]].sum(0).mean(),
    "a sum over chosen rows": lambda x, m, w: x + x[m].sum(0),
    "a running sum": lambda x, m, w: put(x, m, x[m].cumsum(0)),
    "a softmax over chosen rows": lambda x, m, w: put(x, m, x[m].softmax(0)),
    "an order": lambda x, m, w: put(x, m, x[m].flip(0)),
    "their places, folded": lambda x, m, w: x * torch.isin(torch.arange(x.shape[0]), torch.where(m)[0])[:, None],
    "their places, filled": lambda x, m, w: x * torch.zeros(x.shape[0]).index_fill(0, torch.where(m)[0], 1.0)[:, None],
    "the last of their places": lambda x, m, w: x * torch.where(m)[0].max(),
    "a branch on their places": lambda x, m, w: x * 2 if bool((torch.where(m)[0] == 0).any()) else x,
    "as many ones": lambda x, m, w: x * torch.ones(x[m].shape[0]).sum(),
    "as many numbers": lambda x, m, w: x + torch.arange(x[m].shape[0]).sum(),
    "rows of one choice in the places of another": lambda x, m, w: put(x, m, x[m.roll(1)][: x[m].shape[0]]),
    "the best, in the one dimension there is": lambda x, m, w: put(x, m, x[m].sum(-1).topk(x[m].shape[0])[0][:, None]),
    "some of them set": lambda x, m, w: x + x[m].masked_fill(x[m] < 0, 0).index_put((x[m][:, 0] < 0,), w[0, 0]).sum(0),
    "how many there are": lambda x, m, w: x * x[m].shape[0],
    "their places": lambda x, m, w: put(x, m, x[m] * torch.arange(x[m].shape[0])[:, None]),
    "rows against rows": lambda x, m, w: put(x, m, (x[m] @ x[m].mT).softmax(-1) @ x[m]),
    "one of them": lambda x, m, w: x + x[m][:1].sum(),
    "capacity": lambda x, m, w: put(x, torch.where(m)[0][:2], x[torch.where(m)[0][:2]]),
}


@pytest.mark.parametrize("name", SAME)
def test_rows_on_their_own_are_computed_for_all(name: str, tmp_path: Path) -> None:
    same(SAME[name], tmp_path)


@pytest.mark.parametrize("name", MIXED)
def test_what_mixes_or_counts_chosen_rows_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(NotExportable) as caught:
        same(MIXED[name], tmp_path)
    assert caught.value.why in (Why.DATA_DEPENDENT, Why.CONTROL_FLOW, Why.UNSUPPORTED_OP)
