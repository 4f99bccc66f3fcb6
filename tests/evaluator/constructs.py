"""One construct a model: what people write in a forward pass beside plain layers. All causal but where it says so.

`FAMILIES` of zoo.py are whole architectures; here every model is an embedding, one construct, a norm and a head.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.utils.checkpoint
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.utils import parametrizations

from tests.evaluator.zoo import DIM, HEADS, SEQ, VOCAB, Base, heads, merge

CONSTRUCTS: dict[str, Callable[[], nn.Module]] = {}


def construct(name: str) -> Callable[[type[nn.Module]], type[nn.Module]]:
    """Register a mixing body `body(x, idx)` under what it is called in this file."""

    def register(body: type[nn.Module]) -> type[nn.Module]:
        CONSTRUCTS[name] = lambda: Base(body())
        return body

    return register


class Qkv(nn.Module):
    """Three projections, and a construct on [batch, heads, seq, dim]."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(DIM, 3 * DIM)

    def forward(self, x, idx):
        q, k, v = (heads(t) for t in self.qkv(x).chunk(3, -1))
        return x + merge(self.core(q, k, v).to(x.dtype))


class Linear(nn.Module):
    """One projection, and a construct on its result."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Linear(DIM, DIM)

    def forward(self, x, idx):
        return x + self.core(self.w(x))


def later(size):
    return torch.ones(size, size, dtype=torch.bool).triu(1)


# ---------------------------------------------------------------------------
# Allocate, then write
# ---------------------------------------------------------------------------


@construct("empty_like, then two slices")
class EmptyLike(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(509, DIM)

    def forward(self, x, idx):
        tokens = idx.int()
        hashed = torch.empty_like(tokens)
        hashed[..., 0] = 508
        hashed[..., 1:] = torch.bitwise_xor(tokens[..., 1:] * 36313, tokens[..., :-1] * 27191) % 508
        return x + self.table(hashed.long())


@construct("new_empty, written by copy_")
class NewEmpty(Linear):
    def core(self, y):
        out = y.new_empty(y.shape)
        out[:, :1].copy_(y[:, :1])
        out[:, 1:].copy_(y[:, 1:] + y[:, :-1])
        return out


@construct("torch.empty, filled position by position")
class EmptyLoop(Linear):
    def core(self, y):
        out = torch.empty(y.size(0), y.size(1), DIM, dtype=y.dtype)
        state = torch.zeros(y.size(0), DIM, dtype=y.dtype)
        for t in range(y.size(1)):
            state = 0.9 * state + y[:, t]
            out[:, t] = state
        return out


@construct("a slice set to a number")
class SetSlice(Linear):
    def core(self, y):
        y[..., :4] = 0
        return y


@construct("a slice set to zero in place")
class ZeroSlice(Linear):
    def core(self, y):
        before = y.roll(1, dims=1)
        before[:, 0].zero_()
        return before


@construct("a slice added to in place")
class AddSlice(Linear):
    def core(self, y):
        y = y.clone()
        y[:, 1:] += 0.5 * y[:, :-1].clone()
        y[..., ::2] *= 2
        return y


@construct("a boolean mask assigned")
class SetMask(Linear):
    def core(self, y):
        keep = torch.arange(DIM) % 3 == 0
        y = y.clone()
        y[..., keep] = 1.5
        return y


@construct("fill_ and masked_fill_")
class Fill(Linear):
    def core(self, y):
        bias = torch.empty(DIM)
        bias.fill_(0.25)
        return y.masked_fill_(y > 2, 2.0) + bias


# ---------------------------------------------------------------------------
# Attention
# ---------------------------------------------------------------------------


@construct("attention of three dimensions")
class Attention3d(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(DIM, 3 * DIM)

    def forward(self, x, idx):
        return x + F.scaled_dot_product_attention(*self.qkv(x).chunk(3, -1), is_causal=True)


@construct("attention of three dimensions after F.pad")
class AttentionPad(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(DIM, 3 * DIM)

    def forward(self, x, idx):
        shifted = F.pad(x, (0, 0, 1, -1))
        return x + F.scaled_dot_product_attention(*self.qkv(x + shifted).chunk(3, -1), is_causal=True)


@construct("attention of five dimensions")
class Attention5d(Qkv):
    def core(self, q, k, v):
        q, k, v = (t.unflatten(1, (2, 2)) for t in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, is_causal=True).flatten(1, 2)


@construct("grouped heads")
class Grouped(Qkv):
    def core(self, q, k, v):
        return F.scaled_dot_product_attention(q, k[:, :2], v[:, :2], is_causal=True, enable_gqa=True)


@construct("a computed float bias (forgetting attention)")
class Forgetting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.gate = nn.Linear(DIM, 3 * DIM), nn.Linear(DIM, HEADS)

    def forward(self, x, idx):
        q, k, v = (heads(t) for t in self.qkv(x).chunk(3, -1))
        kept = F.logsigmoid(self.gate(x)).mT.cumsum(-1)
        bias = (kept[..., :, None] - kept[..., None, :]).masked_fill(later(x.size(1)), float("-inf"))
        return x + merge(F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype)))


@construct("a learned bias by distance (ALiBi)")
class Alibi(Qkv):
    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.rand(HEADS, 1, 1))

    def core(self, q, k, v):
        position = torch.arange(q.size(-2))
        bias = -self.slope * (position[:, None] - position).abs()
        bias = bias.masked_fill(later(q.size(-2)), float("-inf"))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))


@construct("differential attention")
class Differential(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.five, self.scale = nn.Linear(DIM, 5 * DIM), nn.Parameter(torch.tensor(0.4))

    def forward(self, x, idx):
        q1, k1, q2, k2, v = (heads(t) for t in self.five(x).chunk(5, -1))
        one, two = ((q @ k.mT / 3).masked_fill(later(x.size(1)), float("-inf")) for q, k in ((q1, k1), (q2, k2)))
        return x + merge((one.softmax(-1) - self.scale * two.softmax(-1)) @ v)


@construct("weights normalised before they meet the values")
class Normalised(Qkv):
    def core(self, q, k, v):
        weights = F.relu(q @ k.mT).square().tril()
        return weights / weights.sum(-1, keepdim=True).clamp(min=1e-6) @ v


@construct("weights normalised by F.normalize")
class NormalisedOne(Qkv):
    def core(self, q, k, v):
        return F.normalize((q @ k.mT).tril(), p=1, dim=-1) @ v


@construct("a stable softmax by hand")
class ByHand(Qkv):
    def core(self, q, k, v):
        scores = (q @ k.mT / 3).masked_fill(later(q.size(-2)), float("-inf"))
        weights = (scores - scores.amax(-1, keepdim=True)).exp()
        return (weights / weights.sum(-1, keepdim=True)) @ v


@construct("a softmax by hand with logsumexp")
class ByHandLog(Qkv):
    def core(self, q, k, v):
        scores = (q @ k.mT / 3).masked_fill(later(q.size(-2)), float("-inf"))
        return (scores - scores.logsumexp(-1, keepdim=True)).exp() @ v


@construct("retention with a norm of the decay")
class Retention(Qkv):
    def core(self, q, k, v):
        position = torch.arange(q.size(-2)).float()
        decay = (0.9 ** (position[:, None] - position).clamp(min=0)).tril()
        decay = decay / decay.sum(-1, keepdim=True).sqrt()
        scores = q @ k.mT * decay
        scores = scores / scores.detach().abs().sum(-1, keepdim=True).clamp(min=1)
        return scores @ v


@construct("softmax off by one")
class OffByOne(Qkv):
    def core(self, q, k, v):
        scores = (q @ k.mT / 3).masked_fill(later(q.size(-2)), float("-inf"))
        weights = torch.exp(scores - scores.amax(-1, keepdim=True).clamp(min=0))
        return weights / (weights.sum(-1, keepdim=True) + 1) @ v


@construct("sigmoid attention")
class Sigmoid(Qkv):
    def core(self, q, k, v):
        return (torch.sigmoid(q @ k.mT - 3) * ~later(q.size(-2))) @ v


@construct("an attention sink, dropped after the softmax")
class Sink(Qkv):
    def __init__(self) -> None:
        super().__init__()
        self.sink = nn.Parameter(torch.zeros(HEADS))

    def core(self, q, k, v):
        scores = (q @ k.mT / 3).masked_fill(later(q.size(-2)), float("-inf"))
        sink = self.sink.view(1, -1, 1, 1).expand(q.size(0), -1, q.size(-2), 1)
        return torch.cat((scores, sink.to(scores.dtype)), -1).softmax(-1)[..., :-1] @ v


def finite_mask(name: str, value: Callable[[torch.Tensor], float], how: str) -> None:
    class Masked(Qkv):
        def core(self, q, k, v):
            scores, mask = q @ k.mT / 3, later(q.size(-2))
            if how == "fill":
                scores = scores.masked_fill(mask, value(scores))
            elif how == "where":
                scores = torch.where(mask, value(scores), scores)
            elif how == "add":
                scores = scores + torch.full_like(scores, value(scores)).triu(1)
            elif how == "times":
                keep = (~mask).float()
                scores = scores * keep + (1 - keep) * value(scores)
            else:
                bias = torch.zeros(q.size(-2), q.size(-2)).masked_fill(mask, value(scores))
                return F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
            return scores.float().softmax(-1).to(v.dtype) @ v

    construct(name)(Masked)


finite_mask("masked with -1e9", lambda _: -1e9, "fill")
finite_mask("masked with finfo.min", lambda x: torch.finfo(x.dtype).min, "fill")
finite_mask("masked with -1e10 by where", lambda _: -1e10, "where")
finite_mask("a mask of -1e4 added", lambda _: -1e4, "add")
finite_mask("a mask multiplied in, -1e9", lambda _: -1e9, "times")
finite_mask("attention with a float mask of -1e9", lambda _: -1e9, "sdpa")


@construct("flex_attention with a block mask")
class FlexBlock(Qkv):
    def core(self, q, k, v):
        mask = create_block_mask(lambda b, h, i, j: i >= j, None, None, SEQ, SEQ, device=q.device, BLOCK_SIZE=16)
        return flex_attention(q, k, v, block_mask=mask)


@construct("flex_attention with documents and a score_mod")
class FlexScore(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.slope = nn.Linear(DIM, 3 * DIM), nn.Parameter(torch.rand(HEADS))

    def forward(self, x, idx):
        q, k, v = (heads(t) for t in self.qkv(x).chunk(3, -1))
        document = (idx == 0).cumsum(1)

        def seen(b, h, i, j):
            return (i >= j) & (i - j < 12) & (document[b, i] == document[b, j])

        def bend(score, b, h, i, j):
            return 15 * torch.tanh(score / 15) - self.slope[h] * (i - j)

        mask = create_block_mask(seen, x.size(0), None, SEQ, SEQ, device=x.device, BLOCK_SIZE=16)
        return x + merge(flex_attention(q, k, v, score_mod=bend, block_mask=mask))


@construct("documents kept apart by a computed mask")
class Documents(Qkv):
    def forward(self, x, idx):
        q, k, v = (heads(t) for t in self.qkv(x).chunk(3, -1))
        document = (idx == 0).cumsum(1)
        same = document[:, :, None] == document[:, None, :]
        return x + merge(F.scaled_dot_product_attention(q, k, v, attn_mask=(same & ~later(SEQ))[:, None]))


@construct("relative positions by a shifted view")
class Relative(Qkv):
    def __init__(self) -> None:
        super().__init__()
        self.relative = nn.Parameter(torch.randn(SEQ, DIM // HEADS) * 0.1)

    def core(self, q, k, v):
        bias = q @ self.relative.mT  # [b, h, t, distance], then slid so that column j is what distance i - j says
        bias = F.pad(bias.flip(-1), (1, 0)).reshape(*q.shape[:2], SEQ + 1, SEQ)[:, :, 1:]
        return ((q @ k.mT + bias) / 3).masked_fill(later(SEQ), float("-inf")).softmax(-1) @ v


@construct("the best keys alone (top-k)")
class TopK(Qkv):
    def core(self, q, k, v):
        scores = (q @ k.mT / 3).masked_fill(later(SEQ), float("-inf"))
        least = scores.topk(4, -1).values[..., -1:]
        return scores.masked_fill(scores < least, float("-inf")).softmax(-1) @ v


def hidden_by(name: str, hide: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], value: float = -math.inf) -> None:
    """Documents and what comes later, hidden by a mask that is computed from the tokens."""

    class Hidden(Qkv):
        def forward(self, x, idx):
            q, k, v = (heads(t) for t in self.qkv(x).chunk(3, -1))
            document = (idx == 0).cumsum(1)
            same = document[:, :, None] == document[:, None, :]
            return x + merge((q @ k.mT / 3).masked_fill(hide(same, ~later(SEQ)), value).softmax(-1) @ v)

    construct(name)(Hidden)


hidden_by("hidden where not both", lambda same, seen: ~(same & seen)[:, None])
hidden_by("hidden where not both, -1e9", lambda same, seen: ~(same & seen)[:, None], -1e9)
hidden_by("hidden where either is not", lambda same, seen: (~same | ~seen).unsqueeze(1))
hidden_by("hidden where nothing is left", lambda same, seen: (same * seen).unsqueeze(1) == 0)
hidden_by("hidden where the product of numbers is zero", lambda same, seen: (same.float() * seen.int())[:, None] == 0)
hidden_by("hidden where there is no bit", lambda same, seen: ((same & seen) != 0).logical_not()[:, None])


@construct("attention by not (other documents or later)")
class NeitherMask(Qkv):
    def forward(self, x, idx):
        q, k, v = (heads(t) for t in self.qkv(x).chunk(3, -1))
        document = (idx == 0).cumsum(1)
        hidden = (document[:, :, None] != document[:, None, :]) | later(SEQ)
        return x + merge(F.scaled_dot_product_attention(q, k, v, attn_mask=~hidden[:, None]))


@construct("a sparse attention's indexer, top-k of relu")
class Indexer(Qkv):
    def core(self, q, k, v):
        seen = ~later(SEQ)
        found = F.relu(q @ k.mT).sum(1).masked_fill(~seen, float("-inf")).topk(4, -1).indices
        chosen = torch.zeros(q.size(0), SEQ, SEQ, dtype=torch.bool).scatter(-1, found, True) & seen
        return (q @ k.mT / 3).masked_fill(~chosen[:, None], float("-inf")).softmax(-1) @ v


@construct("strictly earlier keys, the first row made zero")
class StrictlyEarlier(Qkv):
    def core(self, q, k, v):
        seen = torch.ones(SEQ, SEQ).tril(-1).bool()
        return torch.nan_to_num((q @ k.mT / 3).masked_fill(~seen, float("-inf")).softmax(-1), nan=0.0) @ v


@construct("strictly earlier keys, a softmax by hand")
class StrictlyEarlierByHand(Qkv):
    def core(self, q, k, v):
        seen = torch.ones(SEQ, SEQ).tril(-1).bool()
        scores = (q @ k.mT / 3).masked_fill(~seen, float("-inf"))
        weights = (scores - scores.max(-1, keepdim=True).values).exp().masked_fill(~seen, 0.0)
        return weights / weights.sum(-1, keepdim=True).clamp(min=1e-20) @ v


@construct("attention over heads, position by position")
class OverHeads(Qkv):
    def forward(self, x, idx):
        q, k, v = (t.reshape(*x.shape[:2], HEADS, -1) for t in self.qkv(x).chunk(3, -1))
        return x + F.scaled_dot_product_attention(q, k, v, is_causal=True).reshape(x.shape)


@construct("a delta rule solved as a triangle")
class Solved(Qkv):
    def core(self, q, k, v):
        q, k, v = q.float(), F.normalize(k.float(), dim=-1), v.float()
        steps = torch.eye(SEQ) + (k @ k.mT / 2).tril(-1)
        return ((q @ k.mT / 3).tril() @ torch.linalg.solve_triangular(steps, v, upper=False, unitriangular=True)).to(q)


@construct("products of triangles")
class Triangles(Qkv):
    def core(self, q, k, v):
        one, two = (q @ k.mT / 9).tril(), (k @ k.mT / 9).tril(-1)
        return (one @ (two @ one + torch.eye(SEQ))) @ v


@construct("relative buckets by bucketize")
class Buckets(Qkv):
    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.randn(8))

    def core(self, q, k, v):
        position = torch.arange(SEQ)
        far = torch.bucketize((position[:, None] - position).clamp(min=0), torch.tensor([1, 2, 4, 8, 16, 32]))
        return (q @ k.mT + self.bias[far]).masked_fill(later(SEQ), float("-inf")).softmax(-1) @ v


def multihead(name: str, how: Callable[[torch.Tensor], dict[str, Any]], **made: bool) -> None:
    class Multihead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attend = nn.MultiheadAttention(DIM, HEADS, batch_first=True, **made)

        def forward(self, x, idx):
            return x + self.attend(x, x, x, **how(idx))[0]

    construct(name)(Multihead)


multihead(
    "nn.MultiheadAttention, causal", lambda _: {"attn_mask": later(SEQ), "need_weights": False, "is_causal": True}
)
multihead("nn.MultiheadAttention with its weights", lambda _: {"attn_mask": later(SEQ)})
multihead(
    "nn.MultiheadAttention with a float mask",
    lambda _: {"attn_mask": nn.Transformer.generate_square_subsequent_mask(SEQ)},
)
multihead(
    "nn.MultiheadAttention with padding",
    lambda idx: {
        "attn_mask": later(SEQ),
        "need_weights": False,
        "key_padding_mask": (idx == 1) & (torch.arange(SEQ) > 0),
    },
)
multihead(
    "nn.MultiheadAttention with a bias for keys",
    lambda _: {"attn_mask": later(SEQ)},
    add_bias_kv=True,
    add_zero_attn=True,
)


@construct("masks added to masks, one by the tokens")
class AddedMasks(Qkv):
    def forward(self, x, idx):
        q, k, v = (heads(t) for t in self.qkv(x).chunk(3, -1))
        document, none = (idx == 0).cumsum(1), torch.zeros(())
        other = document[:, None, :, None] != document[:, None, None]
        hidden = none.masked_fill(later(SEQ), float("-inf")) + none.masked_fill(other, float("-inf"))
        return x + merge((q @ k.mT / 3 + hidden).softmax(-1).to(v.dtype) @ v)


def sparsest(name: str, value: float) -> None:
    class Sparsest(Qkv):
        def core(self, q, k, v):
            """Martins and Astudillo, From Softmax to Sparsemax, 2016."""
            scores = (q @ k.mT / 3).masked_fill(later(SEQ), value)
            ranked, places = scores.sort(-1, descending=True).values, torch.arange(1, SEQ + 1)
            total = ranked.cumsum(-1) - 1
            threshold = (
                (total / places).masked_fill(1 + places * ranked <= 1 + total, float("-inf")).amax(-1, keepdim=True)
            )
            return F.relu(scores - threshold) @ v

    construct(name)(Sparsest)


sparsest("sparsemax attention", float("-inf"))
sparsest("sparsemax attention, -1e4", -1e4)


@construct("a gate by a vector")
class GatedByVector(Linear):
    def __init__(self) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.randn(DIM))

    def core(self, y):
        along = torch.mv(y.reshape(-1, DIM), self.vector.to(y.dtype)).view(y.shape[:2])
        return y * torch.sigmoid(y @ self.vector.to(y.dtype))[..., None] + along[..., None]


@construct("a transposed convolution, cut on the right")
class Transposed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.ConvTranspose1d(DIM, DIM, 3), nn.ConvTranspose1d(DIM, DIM, 2, groups=4, dilation=2)

    def forward(self, x, idx):
        return x + self.two(self.one(x.mT)[..., :SEQ])[..., :SEQ].mT


@construct("medians and the third smallest")
class Medians(Linear):
    def core(self, y):
        return y - y.median(-1, keepdim=True).values + y.kthvalue(3, -1, keepdim=True).values


@construct("features gathered by scatter_reduce")
class ScatterReduce(Linear):
    def core(self, y):
        places, none = (torch.arange(DIM) // 2).expand(y.shape), torch.zeros_like(y)
        one = none.scatter_reduce(-1, places, y, "mean", include_self=False)
        return one + (none + 1).scatter_reduce(-1, places, y, "sum") + y.scatter_reduce(-1, places, y, "mean")


@construct("levels by searchsorted")
class Levels(Linear):
    def core(self, y):
        levels = torch.linspace(-1, 1, 9)
        return y * (torch.searchsorted(levels, y.float()) + torch.searchsorted(levels, y.float(), side="right")).to(
            y.dtype
        )


@construct("rrelu, as evaluated")
class Rrelu(Linear):
    def core(self, y):
        return F.rrelu(y, training=self.training)


# ---------------------------------------------------------------------------
# Recurrence
# ---------------------------------------------------------------------------


@construct("a chunked delta rule")
class DeltaRule(Qkv):
    def core(self, q, k, v):
        q, k, v = (t.reshape(*t.shape[:2], SEQ // 8, 8, -1) for t in (q, k, v))
        solved = -(k @ k.mT).tril(-1) * 0.1
        for row in range(1, 8):
            before = solved[..., row, :row].clone()
            solved[..., row, :row] = before + (before[..., None] * solved[..., :row, :row].clone()).sum(-2)
        values = (solved + torch.eye(8)) @ v
        out, state = torch.zeros_like(v), torch.zeros_like(k[:, :, 0].mT @ v[:, :, 0])
        for at in range(SEQ // 8):
            one, key = q[:, :, at], k[:, :, at]
            out[:, :, at] = one @ state + (one @ key.mT).tril() @ values[:, :, at]
            state = state + key.mT @ values[:, :, at]
        return out.reshape(q.size(0), HEADS, SEQ, -1)


@construct("an LSTM cell, step by step")
class LstmCell(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(DIM, DIM)

    def forward(self, x, idx):
        h = c = torch.zeros(x.size(0), DIM)
        out = []
        for t in range(x.size(1)):
            h, c = self.cell(x[:, t], (h, c))
            out.append(h)
        return x + torch.stack(out, 1)


@construct("nn.LSTM")
class Lstm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTM(DIM, DIM, batch_first=True)

    def forward(self, x, idx):
        return x + self.cell(x)[0]


@construct("a GRU cell, step by step")
class GruCell(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(DIM, DIM)

    def forward(self, x, idx):
        h, out = torch.zeros(x.size(0), DIM), []
        for t in range(x.size(1)):
            h = self.cell(x[:, t], h)
            out.append(h)
        return x + torch.stack(out, 1)


@construct("nn.RNN")
class Rnn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.RNN(DIM, DIM, batch_first=True)

    def forward(self, x, idx):
        return x + self.cell(x)[0]


@construct("segment sums (SSD)")
class Segments(Qkv):
    def __init__(self) -> None:
        super().__init__()
        self.step = nn.Linear(DIM, HEADS)

    def forward(self, x, idx):
        q, k, v = (heads(t) for t in self.qkv(x).chunk(3, -1))
        log_decay = -F.softplus(self.step(x)).mT
        rows = log_decay[..., None].expand(*log_decay.shape, SEQ).tril(-1)
        sums = rows.cumsum(-2).masked_fill(later(SEQ), float("-inf"))
        return x + merge((q @ k.mT * sums.exp()) @ v)


@construct("a scan through torch's associative_scan")
class Associative(Linear):
    def core(self, y):
        from torch._higher_order_ops.associative_scan import associative_scan

        def combine(a, b):
            return a[0] * b[0], b[0] * a[1] + b[1]

        gate = torch.sigmoid(y)
        return associative_scan(combine, (gate, y * (1 - gate)), dim=1, combine_mode="generic")[1]


@construct("a loop through torch's scan")
class Scanned(Linear):
    def core(self, y):
        from torch._higher_order_ops.scan import scan

        def step(state, now):
            new = 0.9 * state + now
            return new, new.clone()

        return scan(step, torch.zeros(y.size(0), DIM, dtype=y.dtype), y.movedim(1, 0))[1].movedim(0, 1)


# ---------------------------------------------------------------------------
# State, checks, constants
# ---------------------------------------------------------------------------


@construct("a buffer of statistics written")
class Statistics(Linear):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(DIM))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def core(self, y):
        self.mean.mul_(0.9).add_(y.detach().float().mean((0, 1)), alpha=0.1)
        self.calls += 1
        return y


@construct("an attribute written")
class Attribute(Linear):
    def core(self, y):
        self.balance = y.softmax(-1).mean()
        self.seen = [*getattr(self, "seen", [])[-1:], y.detach()]
        return y


@construct("a check that all is finite")
class Finite(Linear):
    def core(self, y):
        assert torch.isfinite(y).all(), "diverged"
        if torch.isnan(y).any():
            raise RuntimeError("NaN")
        return y


@construct("a scalar parameter read as a number")
class Item(Linear):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.7))

    def core(self, y):
        return y * self.scale.item() + float(self.scale)


@construct("a branch on a parameter")
class Branch(Linear):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.7))

    def core(self, y):
        return y * 2 if self.scale > 0 else y


@construct("constants of linspace, tril_indices, meshgrid")
class Constants(nn.Module):
    def forward(self, x, idx):
        rows, columns = torch.tril_indices(SEQ, SEQ)
        mask = torch.zeros(SEQ, SEQ)
        mask[rows, columns] = 1
        grid = torch.meshgrid(torch.arange(SEQ), torch.arange(SEQ), indexing="ij")
        mask = mask / (1 + (grid[0] - grid[1]).abs())
        return x + (mask / mask.sum(-1, keepdim=True)) @ x.float() * torch.linspace(0, 1, DIM)


@construct("weights through eight bits")
class Float8(Linear):
    def forward(self, x, idx):
        scale = self.w.weight.abs().amax(-1, keepdim=True) / 448
        weight = (self.w.weight / scale).to(torch.float8_e4m3fn).to(x.dtype) * scale.to(x.dtype)
        return x + F.linear(x, weight.to(x.dtype))


@construct("ternary weights with a straight-through estimate")
class Ternary(Linear):
    def forward(self, x, idx):
        weight = self.w.weight
        scale = weight.abs().mean().clamp(min=1e-5)
        quantised = (weight / scale).round().clamp(-1, 1) * scale
        return x + F.linear(x, (weight + (quantised - weight).detach()).to(x.dtype))


@construct("int8 weights, fake_quantize")
class FakeQuantize(Linear):
    def forward(self, x, idx):
        weight = torch.fake_quantize_per_tensor_affine(self.w.weight, 0.01, 0, -128, 127)
        return x + F.linear(x, weight.to(x.dtype))


@construct("weight norm")
class WeightNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = parametrizations.weight_norm(nn.Linear(DIM, DIM))

    def forward(self, x, idx):
        return x + self.w(x)


@construct("spectral norm")
class SpectralNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = parametrizations.spectral_norm(nn.Linear(DIM, DIM))

    def forward(self, x, idx):
        return x + self.w(x)


@construct("an orthogonal weight")
class Orthogonal(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = parametrizations.orthogonal(nn.Linear(DIM, DIM))

    def forward(self, x, idx):
        return x + self.w(x)


@construct("a gradient of one's own")
class Straight(Linear):
    class Round(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.round()

        @staticmethod
        def backward(ctx, grad):
            return grad

    def core(self, y):
        return self.Round.apply(y * 4) / 4


@construct("a checkpointed block")
class Checkpointed(Linear):
    def core(self, y):
        return torch.utils.checkpoint.checkpoint(lambda z: F.gelu(z) * 2, y, use_reentrant=False)


@construct("a compiled function inside")
class Compiled(Linear):
    def core(self, y):
        return torch.compile(lambda z: F.relu(z).square(), backend="eager")(y)


@torch.jit.script
def scripted(x: torch.Tensor) -> torch.Tensor:
    return 0.5 * x * (1.0 + torch.tanh(0.79788456 * (x + 0.044715 * x * x * x)))


@construct("a scripted function inside")
class Scripted(Linear):
    def core(self, y):
        return scripted(y)


# ---------------------------------------------------------------------------
# Layers that are not on everybody's list
# ---------------------------------------------------------------------------


@construct("group norm of every token")
class GroupNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(HEADS, DIM)

    def forward(self, x, idx):
        return x + self.norm(x.reshape(-1, DIM)).view_as(x)


@construct("batch norm as evaluated")
class BatchNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(DIM)
        self.norm.running_mean = torch.randn(DIM)

    def forward(self, x, idx):
        return x + self.norm(x.mT).mT


@construct("a convolution of an image one wide")
class Conv2d(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(DIM, DIM, (4, 1), groups=DIM)

    def forward(self, x, idx):
        return x + self.conv(F.pad(x.mT.unsqueeze(-1), (0, 0, 3, 0))).squeeze(-1).mT


@construct("a convolution padded on both sides and cut")
class ConvCut(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(DIM, DIM, 4, padding=3, groups=DIM)

    def forward(self, x, idx):
        return x + self.conv(x.mT)[..., : x.size(1)].mT


@construct("windows by unfold")
class Unfold(Linear):
    def core(self, y):
        return F.pad(y, (0, 0, 3, 0)).unfold(1, 4, 1).amax(-1)


@construct("average pooling")
class AveragePool(Linear):
    def core(self, y):
        return F.avg_pool1d(F.pad(y.mT, (3, 0)), 4, 1).mT


@construct("maximum pooling")
class MaxPool(Linear):
    def core(self, y):
        return F.max_pool1d(F.pad(y.mT, (3, 0), value=-1e4), 4, 1).mT


@construct("an embedding bag")
class EmbeddingBag(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(VOCAB, DIM, mode="sum")

    def forward(self, x, idx):
        pairs = torch.stack((idx, F.pad(idx[:, :-1], (1, 0))), -1)
        return x + self.bag(pairs.flatten(0, 1)).view_as(x)


@construct("an embedding bag with weights")
class WeightedBag(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bag, self.keys = nn.EmbeddingBag(VOCAB, DIM, mode="sum"), nn.Linear(DIM, VOCAB)

    def forward(self, x, idx):
        share, chosen = self.keys(x).float().softmax(-1).topk(3)
        return x + self.bag(chosen.flatten(0, 1), per_sample_weights=share.flatten(0, 1)).view_as(x)


@construct("a trace kept in a plain tensor")
class Trace(Linear):
    def __init__(self) -> None:
        super().__init__()
        self.trace = torch.zeros(DIM, DIM)

    def core(self, y):
        with torch.no_grad():
            flat = y.float().reshape(-1, DIM)
            self.trace += flat.T @ flat
        return y


@construct("talking heads: weights of attention mixed between heads")
class TalkingHeads(Qkv):
    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = (nn.Parameter(torch.randn(HEADS, HEADS)) for _ in range(2))
        self.point = nn.Conv2d(HEADS, HEADS, 1, bias=False)

    def core(self, q, k, v):
        scores = torch.einsum("hg,bgqk->bhqk", self.before, (q @ k.mT).float()).masked_fill(
            later(q.size(-2)), float("-inf")
        )
        weights = self.point(torch.einsum("hg,bgqk->bhqk", self.after, scores.softmax(-1)))
        return weights.to(v.dtype) @ v


@construct("masked products added up")
class AddedUp(Qkv):
    def core(self, q, k, v):
        parts = torch.stack(((q @ k.mT).tril(), (k @ v.mT).tril(-1)))
        return (parts.sum(0) + parts.mean(0)) @ v / 30


@construct("prelu, bilinear, cosine similarity")
class Rare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.slope, self.both = nn.PReLU(DIM), nn.Bilinear(DIM, DIM, DIM)

    def forward(self, x, idx):
        y = self.slope(x.mT).mT
        return x + self.both(x.float(), y.float()) * F.cosine_similarity(x, y + 1, dim=-1)[..., None]


@construct("torch's own encoder layer")
class EncoderLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(DIM, HEADS, 64, dropout=0.1, batch_first=True, norm_first=True)

    def forward(self, x, idx):
        mask = nn.Transformer.generate_square_subsequent_mask(x.size(1))
        return self.layer(x, src_mask=mask, is_causal=True)


@construct("einsum with an ellipsis")
class Ellipsis(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.streams = nn.Parameter(torch.randn(3, 3))
        self.w = nn.Linear(DIM, DIM)

    def forward(self, x, idx):
        copies = torch.stack((x, 2 * x, self.w(x)))
        return torch.einsum("ij,j...d->i...d", self.streams.softmax(-1), copies).sum(0)


@construct("chunks by tensor_split, narrow, index_select")
class Splits(Linear):
    def core(self, y):
        a, b, c = y.tensor_split((5, 11), -1)
        y = torch.cat((c, a, b), -1).narrow(-1, 0, DIM)
        return y.index_select(-1, torch.arange(DIM).roll(5))


# ---------------------------------------------------------------------------
# Experts
# ---------------------------------------------------------------------------


class Experts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(DIM, 4)
        self.experts = nn.ModuleList(nn.Linear(DIM, DIM) for _ in range(4))


@construct("experts by nonzero, left out where there are none")
class Nonzero(Experts):
    def forward(self, x, idx):
        flat = x.reshape(-1, DIM)
        weight, chosen = self.router(flat).softmax(-1).max(-1)
        out = torch.zeros_like(flat)
        for at, expert in enumerate(self.experts):
            rows = torch.where(chosen == at)[0]
            if rows.numel() == 0:
                continue
            out[rows] = (expert(flat[rows]) * weight[rows, None]).to(out.dtype)
        return x + out.view_as(x)


@construct("experts by a boolean index")
class BooleanIndex(Experts):
    def forward(self, x, idx):
        flat = x.reshape(-1, DIM)
        weight, chosen = self.router(flat).softmax(-1).topk(2)
        out = torch.zeros_like(flat)
        for at, expert in enumerate(self.experts):
            mask = (chosen == at).any(-1)
            if mask.any():
                share = (weight * (chosen == at)).sum(-1)[mask]
                out[mask] += (expert(flat[mask]) * share[:, None]).to(out.dtype)
        return x + out.view_as(x)


@construct("experts by index_add")
class IndexAdd(Experts):
    def forward(self, x, idx):
        flat = x.reshape(-1, DIM)
        weight, chosen = self.router(flat).softmax(-1).topk(2)
        mask = F.one_hot(chosen, 4).permute(2, 1, 0)
        out = torch.zeros_like(flat)
        for at, expert in enumerate(self.experts):
            slot, row = torch.where(mask[at])
            out.index_add_(0, row, (expert(flat[row]) * weight[row, slot, None]).to(out.dtype))
        return x + out.view_as(x)


@construct("experts by rows of a leading dimension")
class Led(Experts):
    def forward(self, x, idx):
        flat = x.reshape(-1, DIM)
        weight, chosen = self.router(flat).softmax(-1).topk(2)
        mask, out = F.one_hot(chosen, 4).permute(2, 1, 0), torch.zeros_like(flat)
        for at, expert in enumerate(self.experts):
            slot, row = torch.where(mask[at])
            found = expert(flat[None, row].reshape(-1, DIM)) * weight[row, slot, None]
            out.index_add_(0, row, found.to(out.dtype))
        return x + out.view_as(x)


@construct("experts by one mask in two shapes")
class TwoShapes(Experts):
    def forward(self, x, idx):
        out, score = torch.zeros_like(x), self.router(x).softmax(-1)
        chosen = score.topk(2).indices
        for at, expert in enumerate(self.experts):
            mask = (chosen == at).any(-1)
            flat = mask.view(-1)
            if flat.any():
                found = expert(x.reshape(-1, DIM)[flat]) * score.view(-1, 4)[flat, at].unsqueeze(1)
                out[mask] += found.to(out.dtype)
        return x + out


@construct("experts with gathered weights")
class Gathered(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.router, self.w = nn.Linear(DIM, 4), nn.Parameter(torch.randn(4, DIM, DIM) * 0.1)

    def forward(self, x, idx):
        chosen = self.router(x).argmax(-1)
        return x + torch.einsum("btd,btde->bte", x, self.w[chosen].to(x.dtype))


@construct("experts by sorting, and back by the order of the order")
class Sorted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.router, self.w = nn.Linear(DIM, 4), nn.Parameter(torch.randn(4, DIM, DIM) * 0.1)

    def forward(self, x, idx):
        flat = x.reshape(-1, DIM)
        chosen = self.router(flat).argmax(-1)
        order = chosen.argsort(stable=True)
        found = torch.bmm(flat[order].unsqueeze(1).to(self.w.dtype), self.w[chosen[order]]).squeeze(1)
        return x + found[order.argsort()].view_as(x)


@construct("experts by sorting, their weights in a sum of products")
class SortedSum(Sorted):
    def forward(self, x, idx):
        flat = x.reshape(-1, DIM)
        share, chosen = self.router(flat).float().softmax(-1).max(-1)
        order = chosen.argsort(stable=True)
        out = torch.zeros_like(flat)
        out[order] = torch.einsum("td,tdf->tf", flat[order].to(self.w.dtype), self.w[chosen[order]]).to(out.dtype)
        return x + (out * share[:, None]).view_as(x)


@construct("experts by sorting, and back by an assignment")
class SortedBack(Sorted):
    def forward(self, x, idx):
        flat = x.reshape(-1, DIM)
        chosen, order = self.router(flat).argmax(-1).sort()
        found = torch.bmm(flat[order].unsqueeze(1).to(self.w.dtype), self.w[chosen]).squeeze(1)
        out = torch.zeros_like(found)
        out[order] = found
        inverse = torch.empty_like(order)
        inverse[order] = torch.arange(order.numel())
        return x + (out + found[inverse]).view_as(x)


@construct("two of four experts by a grouped product")
class GroupedProduct(Sorted):
    def forward(self, x, idx):
        flat = x.reshape(-1, DIM)
        share, chosen = self.router(flat).float().softmax(-1).topk(2)
        chosen = chosen.view(-1)
        order = chosen.argsort(stable=True)
        ends = torch.bincount(chosen, minlength=4).cumsum(0).to(torch.int32)
        token = order // 2
        found = torch._grouped_mm(flat[token].to(self.w.dtype), self.w, offs=ends)
        found = found * share.view(-1)[order, None]
        return x + torch.zeros_like(flat).index_add(0, token, found.to(flat.dtype)).view_as(x)


# ---------------------------------------------------------------------------
# What is handed to evaluate_bpb
# ---------------------------------------------------------------------------


def named(name: str) -> Callable[[Callable[[], nn.Module]], Callable[[], nn.Module]]:
    def register(build: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
        CONSTRUCTS[name] = build
        return build

    return register


class LossPath(Base):
    """The loss is of other logits than `model(idx)` says."""

    def __init__(self, plain: Callable[[torch.Tensor], torch.Tensor], loss: Callable[[torch.Tensor], torch.Tensor]):
        super().__init__(Linear2())
        self.plain, self.loss = plain, loss

    def forward(self, idx, targets=None, reduction="mean"):
        logits = super().forward(idx)
        if targets is None:
            return self.plain(logits)
        return F.cross_entropy(self.loss(logits).flatten(0, 1), targets.flatten(), reduction=reduction)


class Linear2(Linear):
    def core(self, y):
        return y


CONSTRUCTS["logits of the last position alone without targets"] = lambda: LossPath(lambda z: z[:, [-1]], lambda z: z)
CONSTRUCTS["a temperature in the loss alone"] = lambda: LossPath(lambda z: z, lambda z: z / 1.5)
CONSTRUCTS["a softcap in the loss alone"] = lambda: LossPath(lambda z: z, lambda z: 5 * torch.tanh(z / 5))


# ---------------------------------------------------------------------------
# Honest, and refused: why, and what would be proved instead, is in docs/score.md
# ---------------------------------------------------------------------------


class Fft(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(SEQ, DIM) * 0.1)

    def forward(self, x, idx):
        long = 2 * x.size(1)
        product = torch.fft.rfft(x.float(), n=long, dim=1) * torch.fft.rfft(self.kernel, n=long, dim=0)
        return x + torch.fft.irfft(product, n=long, dim=1)[:, : x.size(1)]


UNPROVED: dict[str, Callable[[], nn.Module]] = {
    "a convolution by FFT: causal in exact arithmetic alone": lambda: Base(Fft()),
}


class Remembers(Linear):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(DIM))

    def core(self, y):
        self.mean.mul_(0.9).add_(y.detach().float().mean((0, 1)), alpha=0.1)
        return y + self.mean


class Noisy(Linear):
    def core(self, y):
        return y + torch.rand_like(y) * 0.01


class Counts(nn.Module):
    """How many tokens are zero, as a number of Python's."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Linear(DIM, DIM)

    def forward(self, x, idx):
        return x + self.w(x) * int((idx == 3).sum())


class Compresses(nn.Module):
    """Positions of zeros alone, counted: rows chosen by the tokens are mixed."""

    def forward(self, x, idx):
        flat = x.reshape(-1, DIM)
        rows = torch.where(idx.reshape(-1) % 3 == 0)[0]
        out = torch.zeros_like(flat)
        out[rows] = flat[rows].cumsum(0)
        return x + out.view_as(x)


class Sorts(Linear):
    def core(self, y):
        return torch.linalg.svdvals(y)[..., None].expand(y.shape)


REFUSED: dict[str, tuple[Callable[[], nn.Module], str, str]] = {
    "logits of what forward writes": (lambda: Base(Remembers()), "mutation", ""),
    "random numbers": (lambda: Base(Noisy()), "random_numbers", "rand_like"),
    "a number read from tokens": (lambda: Base(Counts()), "data_dependent_control_flow", ""),
    "rows chosen by the tokens, counted": (lambda: Base(Compresses()), "data_dependent_shape", "cumsum"),
    "an operation that nobody admits": (lambda: Base(Sorts()), "unsupported_op", "linalg_svdvals"),
}
