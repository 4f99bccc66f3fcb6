"""Upstream's model and evaluation, to measure and test against.

With GLOVEBOX_UPSTREAM=DIR (a checkout of karpathy/autoresearch) the model class is taken from its train.py;
without it the same architecture is restated here: sliding windows, rotary embedding, gated value embeddings,
per-layer residual scalars, bf16 embedding tables, squared ReLU and soft-capped logits.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from trainer.attention import flash_attn_func


@dataclass
class Config:
    """Upstream's GPTConfig fields."""

    sequence_len: int = 2048
    vocab_size: int = 8192
    n_layer: int = 8
    n_head: int = 4
    n_kv_head: int = 4
    n_embd: int = 512
    window_pattern: str = "SSSL"


def checkout() -> Path | None:
    """The upstream checkout named by GLOVEBOX_UPSTREAM."""
    given = os.environ.get("GLOVEBOX_UPSTREAM")
    return Path(given) if given else None


def model(config: Config, seed: int = 0) -> nn.Module:
    """Upstream's GPT in evaluation mode, its zero-initialised projections randomised so that all paths count."""
    torch.manual_seed(seed)
    folder = checkout()
    gpt = _restated(config) if folder is None else _published(folder, config)
    with torch.no_grad():
        for parameter in gpt.parameters():
            if not parameter.any():
                parameter.normal_(std=0.02)
    return gpt.eval()


def _published(folder: Path, config: Config) -> nn.Module:
    source = (folder / "train.py").read_text()
    start, end = source.index("@dataclass"), source.index("# Optimizer (MuonAdamW")
    space: dict[str, Any] = {"torch": torch, "nn": nn, "F": F, "dataclass": dataclass, "__name__": __name__}

    class Fa3:
        flash_attn_func = staticmethod(flash_attn_func)

    space["fa3"] = Fa3
    exec(compile(source[start:end], "upstream/train.py", "exec"), space)  # noqa: S102 - the file the user named
    gpt: nn.Module = space["GPT"](space["GPTConfig"](**vars(config)))
    gpt.init_weights()  # type: ignore[operator]
    return gpt


def evaluate_bpb(
    gpt: nn.Module, batches: Iterable[tuple[torch.Tensor, torch.Tensor]], token_bytes: torch.Tensor
) -> float:
    """Upstream's metric over given (inputs, targets): nats and bytes of targets that have bytes."""
    nats, total = 0.0, 0
    with torch.no_grad():
        for x, y in batches:
            loss = gpt(x, y, reduction="none").view(-1)
            count = token_bytes[y.view(-1)]
            nats += (loss * (count > 0)).sum().item()
            total += int(count.sum().item())
    return nats / (math.log(2) * total)


# ---------------------------------------------------------------------------
# The architecture, restated
# ---------------------------------------------------------------------------


def _norm(x: torch.Tensor) -> torch.Tensor:
    return F.rms_norm(x, (x.size(-1),))


def _turn(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    half = x.shape[-1] // 2
    first, second = x[..., :half], x[..., half:]
    return torch.cat((first * cos + second * sin, second * cos - first * sin), -1)


class _Layer(nn.Module):
    def __init__(self, config: Config, index: int) -> None:
        super().__init__()
        width, self.heads = config.n_embd, config.n_head
        self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)
        has_values = index % 2 == (config.n_layer - 1) % 2
        self.values = nn.Embedding(config.vocab_size, width).bfloat16() if has_values else None
        self.gate = nn.Linear(32, config.n_head, bias=False) if has_values else None
        short = config.window_pattern[index % len(config.window_pattern)] == "S" and index < config.n_layer - 1
        self.window = (config.sequence_len // 2 if short else config.sequence_len, 0)

    def forward(self, x: torch.Tensor, idx: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        h = _norm(x)
        split = (*h.shape[:2], self.heads, -1)
        q, k, v = self.q(h).view(split), self.k(h).view(split), self.v(h).view(split)
        if self.values is not None and self.gate is not None:
            v = v + 2 * torch.sigmoid(self.gate(h[..., :32])).unsqueeze(-1) * self.values(idx).view(split)
        q, k = _norm(_turn(q, cos, sin)), _norm(_turn(k, cos, sin))
        y = flash_attn_func(q, k, v, causal=True, window_size=self.window)
        x = x + self.o(y.contiguous().view(x.shape))
        mixed: torch.Tensor = x + self.down(F.relu(self.up(_norm(x))).square())
        return mixed


class _Gpt(nn.Module):
    cos: torch.Tensor
    sin: torch.Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.embed = nn.Embedding(config.vocab_size, config.n_embd).bfloat16()
        self.layers = nn.ModuleList(_Layer(config, i) for i in range(config.n_layer))
        self.head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.keep = nn.Parameter(torch.ones(config.n_layer))
        self.skip = nn.Parameter(torch.full((config.n_layer,), 0.1))
        size = config.n_embd // config.n_head
        rate = 10000.0 ** -(torch.arange(0, size, 2) / size)
        angle = torch.outer(torch.arange(config.sequence_len * 10).float(), rate)[None, :, None]
        self.register_buffer("cos", angle.cos().bfloat16(), persistent=False)
        self.register_buffer("sin", angle.sin().bfloat16(), persistent=False)

    def forward(self, idx: torch.Tensor, targets: torch.Tensor | None = None, reduction: str = "mean") -> torch.Tensor:
        T = idx.size(1)
        start = x = _norm(self.embed(idx))
        for i, layer in enumerate(self.layers):
            x = layer(self.keep[i] * x + self.skip[i] * start, idx, self.cos[:, :T], self.sin[:, :T])
        logits = 15 * torch.tanh(self.head(_norm(x)).float() / 15)
        if targets is None:
            return logits
        return F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1), reduction=reduction)


def _restated(config: Config) -> nn.Module:
    gpt = _Gpt(config)
    nn.init.normal_(gpt.head.weight, std=0.001)
    return gpt
