"""Rows sorted by the tokens, and put back: the same as without sorting, for other tokens too; or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.trainer.export.test_reads import CPU, VOCAB, T, run
from trainer import hand_over
from trainer.evaluator.causality import prove
from trainer.evaluator.model import graph, program, weights
from trainer.export import capture
from trainer.export.refusals import NotExportable, Why
from trainer.wire.refusal import Reason, Refused

DIM, GROUPS = VOCAB, 4
Core = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


class Model(torch.nn.Module):
    """Flat rows, the group of each, and a matrix for every group."""

    def __init__(self, core: Core) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = torch.nn.Embedding(VOCAB, DIM)
        self.w = torch.nn.Parameter(torch.randn(GROUPS, DIM, DIM))
        self.core = core

    def forward(self, idx: torch.Tensor) -> torch.Tensor:
        x = self.embed(idx).reshape(-1, DIM)
        return self.core(x, idx.reshape(-1) % GROUPS, self.w).reshape(*idx.shape, DIM)


def handed(core: Core, folder: Path) -> tuple[Model, program.Program]:
    model = Model(core).eval()
    hand_over.hand_over(model, folder, rows=2, seq_len=T)
    parsed = graph.parse((folder / "graph.json").read_bytes(), CPU)
    tensors = weights.load(folder / "weights.safetensors", 1 << 20, CPU)
    return model, program.prepare(parsed, tensors, rows=2, seq_len=T, vocab=VOCAB, device=CPU, limits=program.Limits())


def ends(group: torch.Tensor) -> torch.Tensor:
    return torch.bincount(group, minlength=GROUPS).cumsum(0).to(torch.int32)


def grouped(x: torch.Tensor, group: torch.Tensor, w: torch.Tensor, of: torch.Tensor | None = None) -> torch.Tensor:
    order = group.argsort(stable=True)
    found = torch._grouped_mm(x[order].bfloat16(), w.bfloat16(), offs=ends(group if of is None else of)).to(x.dtype)
    return found[order.argsort()]


def back_by_places(x: torch.Tensor, group: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    order = group.argsort(descending=True)
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(len(order))
    return torch.tanh(x[order] @ w[0])[inverse]


def back_by_writing(x: torch.Tensor, group: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    values, order = group.sort()
    found = torch.bmm(x[order].unsqueeze(1), w[values]).squeeze(1)
    out = torch.zeros_like(found)
    out[order] = found
    return out


def by_index_select(x: torch.Tensor, group: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    order = group.argsort()
    return torch.relu(x.index_select(0, order)).index_select(0, order.argsort())


def added(x: torch.Tensor, group: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """Two groups a row, each with a share."""
    both = torch.stack((group, (group + 1) % GROUPS), -1).flatten()
    order = both.argsort(stable=True)
    found = x[order // 2] * (both[order, None] + 1)
    return torch.zeros_like(x).index_add(0, order // 2, found)


def twice(x: torch.Tensor, group: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """Sorted by one thing and put back, then by another."""
    first = back_by_writing(x, group, w)
    return back_by_places(first, (x[:, 0] > 0).long(), w)


SAME: dict[str, Core] = {
    "the order of the order": by_index_select,
    "places written down": back_by_places,
    "written to their places": back_by_writing,
    "added to their rows": added,
    "one after the other": twice,
    "a grouped product": grouped,
}


@pytest.mark.parametrize("mode", list(capture.MODES))
@pytest.mark.parametrize("name", SAME)
def test_it_says_the_same_of_tokens_that_are_sorted_otherwise(
    name: str, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture, "MODES", {mode: capture.MODES[mode]})
    model, prog = handed(SAME[name], tmp_path)
    assert prove(prog).proved
    for seed in range(4):
        torch.manual_seed(seed)
        idx = torch.randint(0, VOCAB, (2, T))
        torch.testing.assert_close(run(prog, idx), model(idx), rtol=1e-2, atol=1e-2)
    alike = torch.full((2, T), 3)
    torch.testing.assert_close(run(prog, alike), model(alike), rtol=1e-2, atol=1e-2)


def test_groups_that_do_not_begin_where_the_rows_say_are_seen(tmp_path: Path) -> None:
    """A product whose groups are those of other rows: as long as nobody looks, the same words."""

    def shifted(x: torch.Tensor, group: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return grouped(x, group, w, of=torch.where(group == 3, 2, group))

    _, prog = handed(shifted, tmp_path)
    run(prog, torch.full((2, T), 4))
    with pytest.raises(Refused) as caught:
        run(prog, torch.full((2, T), 3))
    assert caught.value.reason is Reason.OTHER_BRANCH


@pytest.mark.parametrize(
    "core",
    [
        lambda x, g, w: x[g.argsort()].cumsum(0),
        lambda x, g, w: x[g.argsort()] + x,
        lambda x, g, w: x[g.argsort()].roll(1, 0),
        lambda x, g, w: x * x[g.argsort()][0],
        lambda x, g, w: x[g.argsort()].flip(0)[g.argsort().argsort()],
        lambda x, g, w: x[g.argsort()][(g + 1).argsort().argsort()],
        lambda x, g, w: torch.softmax(x[g.argsort()], 0)[g.argsort().argsort()],
        lambda x, g, w: x * g.sort().values.unsqueeze(1),
        lambda x, g, w: x[g.argsort()],
    ],
    ids=["summed", "added", "rolled", "picked", "flipped", "another way back", "softmax", "values alone", "never back"],
)
def test_what_looks_at_the_order_is_refused(core: Core, tmp_path: Path) -> None:
    with pytest.raises(NotExportable) as caught:
        handed(core, tmp_path)
    assert caught.value.why is Why.DATA_DEPENDENT
