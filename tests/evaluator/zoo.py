"""Honest architectures of many kinds, all causal: each must export, be proved and score as in eager mode."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn as nn
import torch.nn.functional as F

VOCAB, SEQ, DIM, HEADS = 64, 32, 32, 4


class Base(nn.Module):
    """Embedding, a mixing body, norm and head."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCAB, DIM)
        self.body = body
        self.head = nn.Linear(DIM, VOCAB, bias=False)

    def forward(self, idx, targets=None, reduction="mean"):
        x = self.body(self.embed(idx), idx)
        logits = self.head(F.rms_norm(x, (DIM,))).float()
        if targets is None:
            return logits
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction=reduction)


def heads(x):
    return x.view(x.size(0), x.size(1), HEADS, -1).transpose(1, 2)


def merge(x):
    return x.transpose(1, 2).reshape(x.size(0), x.size(2), -1)


class Attend(nn.Module):
    """Self-attention with a pluggable core on [batch, heads, seq, dim]."""

    def __init__(self, core: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.qkv, self.out, self.core = nn.Linear(DIM, 3 * DIM), nn.Linear(DIM, DIM), core

    def forward(self, x, idx):
        q, k, v = (heads(t) for t in self.qkv(x).chunk(3, -1))
        return x + self.out(merge(self.core(q, k, v)))


def sdpa(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def masked_fill(q, k, v):
    mask = torch.ones(q.size(-2), q.size(-2), dtype=torch.bool).tril()
    weights = (q @ k.mT / math.sqrt(q.size(-1))).masked_fill(~mask, float("-inf"))
    return weights.softmax(-1) @ v


def additive(q, k, v):
    mask = torch.full((q.size(-2), q.size(-2)), float("-inf")).triu(1)
    return (q @ k.mT / math.sqrt(q.size(-1)) + mask).softmax(-1) @ v


def sliding(q, k, v):
    position = torch.arange(q.size(-2))
    distance = position[:, None] - position
    return F.scaled_dot_product_attention(q, k, v, attn_mask=(distance >= 0) & (distance < 8))


def softcapped(q, k, v):
    mask = torch.ones(q.size(-2), q.size(-2), dtype=torch.bool).triu(1)
    scores = 20 * torch.tanh(q @ k.mT / math.sqrt(q.size(-1)) / 20)
    return torch.where(mask, float("-inf"), scores).softmax(-1) @ v


def linear_attention(q, k, v):
    q, k = F.elu(q) + 1, F.elu(k) + 1
    scores = (q @ k.mT).tril()
    return scores @ v / (scores.sum(-1, keepdim=True) + 1e-6)


def decayed(q, k, v):
    """Retention / SSD in matrix form: a decay mask times q k^T."""
    position = torch.arange(q.size(-2))
    decay = (0.9 ** (position[:, None] - position).clamp(min=0).float()).tril()
    return (q @ k.mT * decay) @ v


def rope_real(q, k, v):
    angle = torch.arange(q.size(-2)).float()[:, None] * 0.5 ** torch.arange(q.size(-1) // 2)
    cos, sin = angle.cos(), angle.sin()

    def turn(x):
        a, b = x.chunk(2, -1)
        return torch.cat((a * cos - b * sin, a * sin + b * cos), -1)

    return sdpa(turn(q), turn(k), v)


def rope_complex(q, k, v):
    angle = torch.arange(q.size(-2)).float()[:, None] * 0.5 ** torch.arange(q.size(-1) // 2)
    unit = torch.polar(torch.ones_like(angle), angle)

    def turn(x):
        pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
        return torch.view_as_real(pairs * unit).flatten(-2).to(x.dtype)

    return sdpa(turn(q), turn(k), v)


class Conv(nn.Module):
    def __init__(self, depthwise: bool) -> None:
        super().__init__()
        self.conv = nn.Conv1d(DIM, DIM, 4, groups=DIM if depthwise else 1)

    def forward(self, x, idx):
        return x + self.conv(F.pad(x.mT, (3, 0))).mT


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.cell = kind(DIM, DIM, batch_first=True)

    def forward(self, x, idx):
        return x + self.cell(x)[0]


class MoE(nn.Module):
    """Dense top-2 of four experts after causal attention."""

    def __init__(self) -> None:
        super().__init__()
        self.attend, self.router = Attend(sdpa), nn.Linear(DIM, 4)
        self.experts = nn.ModuleList(nn.Linear(DIM, DIM) for _ in range(4))

    def forward(self, x, idx):
        x = self.attend(x, idx)
        value, which = self.router(x).topk(2, -1)
        weight = value.float().softmax(-1)
        gates = torch.zeros(*x.shape[:-1], 4).scatter(-1, which, weight)
        return x + sum(gates[..., i, None] * expert(x).relu() for i, expert in enumerate(self.experts))


class NGram(nn.Module):
    """Hash embeddings of the last two tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(997, DIM)

    def forward(self, x, idx):
        before = F.pad(idx, (1, 0))[:, :-1]
        return x + self.table((idx * 31 + before * 7919) % 997)


class HillisSteele(nn.Module):
    """Gated linear recurrence by a log-depth scan."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(DIM, DIM)

    def forward(self, x, idx):
        a, b, step = torch.sigmoid(self.gate(x)), x, 1
        while step < x.size(1):
            a_before = F.pad(a, (0, 0, step, 0), value=1.0)[:, : x.size(1)]
            b_before = F.pad(b, (0, 0, step, 0))[:, : x.size(1)]
            a, b = a * a_before, b + a * b_before
            step *= 2
        return x + b


class ValueEmbedding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.values = nn.Linear(DIM, 3 * DIM), nn.Embedding(VOCAB, DIM)

    def forward(self, x, idx):
        q, k, v = self.qkv(x).chunk(3, -1)
        return x + merge(sdpa(heads(q), heads(k), heads(v + self.values(idx))))


class CumulativeMean(nn.Module):
    def forward(self, x, idx):
        return x + x.cumsum(1) / torch.arange(1, x.size(1) + 1)[:, None]


class TokenShift(nn.Module):
    """RWKV's shift: the previous position's features."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(2 * DIM, DIM)

    def forward(self, x, idx):
        before = torch.cat((torch.zeros_like(x[:, :1]), x[:, :-1]), 1)
        return x + self.mix(torch.cat((x, before), -1)).relu()


class Einsum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(DIM, 3 * DIM)

    def forward(self, x, idx):
        q, k, v = self.qkv(x).chunk(3, -1)
        scores = torch.einsum("btd,bsd->bts", q, k) / 8
        mask = torch.ones(x.size(1), x.size(1), dtype=torch.bool).triu(1)
        return x + torch.einsum("bts,bsd->btd", scores.masked_fill(mask, float("-inf")).softmax(-1), v)


class MultiHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(DIM, HEADS, batch_first=True)

    def forward(self, x, idx):
        mask = nn.Transformer.generate_square_subsequent_mask(x.size(1))
        return x + self.attention(x, x, x, attn_mask=mask, need_weights=False)[0]


FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "sdpa": lambda: Base(Attend(sdpa)),
    "masked fill": lambda: Base(Attend(masked_fill)),
    "additive mask": lambda: Base(Attend(additive)),
    "sliding window": lambda: Base(Attend(sliding)),
    "softcapped scores": lambda: Base(Attend(softcapped)),
    "linear attention": lambda: Base(Attend(linear_attention)),
    "ssd decay": lambda: Base(Attend(decayed)),
    "rope real": lambda: Base(Attend(rope_real)),
    "rope complex": lambda: Base(Attend(rope_complex)),
    "causal conv": lambda: Base(Conv(False)),
    "depthwise conv": lambda: Base(Conv(True)),
    "gru": lambda: Base(Recurrent(nn.GRU)),
    "dense top-2 moe": lambda: Base(MoE()),
    "n-gram hash": lambda: Base(NGram()),
    "hillis-steele scan": lambda: Base(HillisSteele()),
    "value embedding": lambda: Base(ValueEmbedding()),
    "cumulative mean": lambda: Base(CumulativeMean()),
    "token shift": lambda: Base(TokenShift()),
    "einsum": lambda: Base(Einsum()),
    "multihead attention": lambda: Base(MultiHead()),
}
