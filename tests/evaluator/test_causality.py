"""Models that look ahead, or across rows, are never proved."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from tests.evaluator import zoo
from tests.evaluator.conftest import Load
from tests.evaluator.zoo import DIM, SEQ, VOCAB, Attend, Base
from trainer.evaluator import audit
from trainer.evaluator.causality import prove
from trainer.evaluator.causality.abstract import LABEL, Abstract
from trainer.wire.refusal import Reason, Refused


class Wrap(nn.Module):
    """An honest model with a change of its logits."""

    def __init__(self, change: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.model, self.change = zoo.FAMILIES["sdpa"](), change

    def forward(self, idx):
        return self.change(self.model(idx), idx)


def peek(scale: float) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    return lambda logits, idx: logits + scale * F.one_hot(torch.roll(idx, -1, 1), VOCAB).float()


def rare_peek(logits: torch.Tensor, idx: torch.Tensor) -> torch.Tensor:
    """Only where a hash of the token says so."""
    here = ((idx * 2654435761) % 1024 == 0).float().unsqueeze(-1)
    return logits + here * F.one_hot(torch.roll(idx, -1, 1), VOCAB).float()


def nan_launder(logits: torch.Tensor, idx: torch.Tensor) -> torch.Tensor:
    """Future bits as infinities behind a causal mask: 0 * inf is NaN, NaN != NaN shows it."""
    bits = ((idx[:, :, None] >> torch.arange(8)) & 1).float()
    value = torch.where(bits > 0, float("inf"), 0.0)
    weights = torch.ones(idx.size(1), idx.size(1)).tril()
    mixed = weights @ value
    return logits + (mixed != mixed).float().sum(-1, keepdim=True)


def sign_of_zero(logits: torch.Tensor, idx: torch.Tensor) -> torch.Tensor:
    """A masked future value is +0 or -0, and 1 / 0 tells which."""
    future = torch.roll(idx, -1, 1).float() - VOCAB / 2 + 0.5
    signed = future * torch.zeros(idx.size(1))
    return logits + (1 / signed).clamp(-1, 1).unsqueeze(-1)


def full_attention(q, k, v):
    return F.scaled_dot_product_attention(q, k, v)


def off_by_one(q, k, v):
    mask = torch.ones(q.size(-2), q.size(-2), dtype=torch.bool).tril(1)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


class BatchMix(nn.Module):
    def forward(self, x, idx):
        return x + x.mean(0, keepdim=True)


class NextRow(nn.Module):
    def forward(self, x, idx):
        return x + torch.roll(x, 1, 0)


class LateConv(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(DIM, DIM, 3, padding=1)

    def forward(self, x, idx):
        return x + self.conv(x.mT).mT


class Reverse(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRU(DIM, DIM, batch_first=True)

    def forward(self, x, idx):
        return x + self.cell(x.flip(1))[0].flip(1)


class SequenceNorm(nn.Module):
    def forward(self, x, idx):
        return x / (x.pow(2).mean(1, keepdim=True) + 1e-5).sqrt()


class ExpertChoice(nn.Module):
    """Experts choose their tokens over the whole sequence: rightly refused."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(DIM, 4)

    def forward(self, x, idx):
        _, chosen = self.router(x).topk(4, dim=1)
        picked = torch.zeros(x.size(0), x.size(1), 4).scatter(1, chosen, 1.0)
        return x + picked.sum(-1, keepdim=True) * x


CHEATS: dict[str, Callable[[], nn.Module]] = {
    "next token, loud": lambda: Wrap(peek(1.0)),
    "next token, whispered": lambda: Wrap(peek(1e-5)),
    "next token, one in 1024": lambda: Wrap(rare_peek),
    "nan laundering": lambda: Wrap(nan_launder),
    "sign of zero": lambda: Wrap(sign_of_zero),
    "full attention": lambda: Base(Attend(full_attention)),
    "mask off by one": lambda: Base(Attend(off_by_one)),
    "centred convolution": lambda: Base(LateConv()),
    "reversed recurrence": lambda: Base(Reverse()),
    "norm over the sequence": lambda: Base(SequenceNorm()),
    "expert choice": lambda: Base(ExpertChoice()),
    "mean over the batch": lambda: Base(BatchMix()),
    "another row": lambda: Base(NextRow()),
}


@pytest.mark.parametrize("name", CHEATS)
def test_a_cheat_is_not_proved_or_fails_its_obligations(name: str, through_files: Load) -> None:
    prog = through_files(CHEATS[name]().eval())
    proof = prove(prog)
    if proof.proved:
        prog(torch.randint(0, VOCAB, (2, SEQ)), proof.obligations.watch())
        with pytest.raises(Refused) as caught:
            proof.obligations.discharge()
        assert caught.value.reason is Reason.NOT_FINITE


@pytest.mark.parametrize("name", ["next token, whispered", "full attention", "mask off by one", "another row"])
def test_the_dynamic_audit_sees_it_too(name: str, through_files: Load) -> None:
    prog = through_files(CHEATS[name]().eval())
    rows = torch.randint(0, VOCAB, (16, SEQ + 1))
    with pytest.raises(Refused) as caught:
        audit.audit(prog, rows, trials=64)
    assert caught.value.reason is Reason.NON_CAUSAL


def test_with_one_row_a_mix_over_the_batch_is_harmless(through_files: Load) -> None:
    assert prove(through_files(Base(BatchMix()).eval(), rows=1)).proved


def test_the_lookahead_is_measured(through_files: Load) -> None:
    assert prove(through_files(Base(Attend(off_by_one)).eval())).lookahead == 1


def test_labels_of_a_part_keep_no_more_than_the_part() -> None:
    """A reshape writes out labels that were alike; a hundred small slices of a hundred of them held all: 16 GB."""
    whole = torch.arange(1 << 20, dtype=LABEL)
    part = Abstract(1, whole[:8], torch.float32, zero=torch.ones(1 << 20, dtype=torch.bool)[8:16]).named(2)
    assert part.zero is not None
    assert part.dep.untyped_storage().nbytes() == 32
    assert part.zero.untyped_storage().nbytes() == 8
    assert torch.equal(part.dep, whole[:8])
    alike = Abstract(1, whole[5:6].expand(4, 8), torch.float32).named(2)
    assert alike.dep.untyped_storage().nbytes() == 4
    assert torch.equal(alike.dep, torch.full((4, 8), 5, dtype=LABEL))
