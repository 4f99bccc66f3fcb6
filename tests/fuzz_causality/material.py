"""Weights that a random graph starts from: masks, permutations, tables with special numbers in them."""

from __future__ import annotations

import math
import random

import torch
from torch import Tensor

from tests.fuzz_causality.draft import Sizes

PLAIN = (0.0, -0.0, 1.0, -1.0, 2.0, 1e-40)
SPECIAL = (
    *PLAIN, 1e30, -1e30, 3e38, -3e38, math.inf, -math.inf, math.nan, 1e15, 5e14, -1e15, 1e-20, 1e-45, 100.0, -100.0,
    65504.0, 2.0**31, 2.0**63,
)  # fmt: skip
KEEP = 0.8  # chance of each weight to be there


def weights(rng: random.Random, sizes: Sizes) -> dict[str, Tensor]:
    """Named weights of one graph; the embedding table is always among them."""
    generator = torch.Generator().manual_seed(rng.randrange(1 << 30))
    made = {"table": _table(rng, sizes, generator)}
    for part in (_masks, _matrices, _indices, _odd):
        made |= part(rng, sizes, generator)
    return {name: tensor for name, tensor in made.items() if name == "table" or rng.random() < KEEP}


def _table(rng: random.Random, s: Sizes, generator: torch.Generator) -> Tensor:
    table = torch.randn(s.vocab, s.dim, generator=generator)
    if rng.random() < 0.5:
        for _ in range(rng.randrange(1, 20)):
            table[rng.randrange(s.vocab), rng.randrange(s.dim)] = rng.choice(SPECIAL if rng.random() < 0.4 else PLAIN)
    return table


def _masks(rng: random.Random, s: Sizes, generator: torch.Generator) -> dict[str, Tensor]:
    triangle = torch.ones(s.seq, s.seq).tril()
    hidden = torch.zeros(s.seq, s.seq).masked_fill(triangle == 0, -math.inf)
    if rng.random() < 0.2:
        spoilt = (math.inf, math.nan, 1e38, -math.inf, torch.finfo(torch.float32).min)
        hidden[rng.randrange(s.seq), rng.randrange(s.seq)] = rng.choice(spoilt)
    loose = torch.rand(s.seq, s.seq, generator=generator) < 0.5
    sparse = (torch.rand(s.rows, s.seq, s.dim, generator=generator) < 0.5).float()
    heads = torch.stack([triangle.bool(), loose & triangle.bool() if rng.random() < 0.7 else loose])
    return {
        "triangle": triangle,
        "hidden": hidden,
        "unseen": torch.zeros(s.seq, s.seq).masked_fill(triangle.tril(-1) == 0, -math.inf),
        "visible": triangle.bool() if rng.random() < 0.8 else loose,
        "heads": heads.unsqueeze(0),
        "zeros": torch.zeros(s.rows, s.seq, s.dim) if rng.random() < 0.6 else sparse * rng.choice((1.0, -1.0)),
        "nothing": torch.zeros((), dtype=rng.choice((torch.float32, torch.float64, torch.int64, torch.bool))),
    }


def _matrices(rng: random.Random, s: Sizes, generator: torch.Generator) -> dict[str, Tensor]:
    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    mixing = normal(s.seq, s.seq)
    return {
        "square": normal(s.dim, s.dim) * (torch.rand(s.dim, s.dim, generator=generator) < 0.6),
        "wide": normal(16, s.dim),
        "mixing": mixing.tril(rng.choice((-1, 0, 0, 1))) if rng.random() < 0.7 else mixing,
        "features": normal(s.dim),
        "positions": normal(s.seq),
        "taps": normal(s.dim, s.dim, rng.choice((1, 2, 3))),
        "taps_each": normal(s.dim, 1, rng.choice((2, 3))),
        "taps_flat": normal(2, s.rows, 2, 2),
        "state": torch.zeros(1, s.rows, s.dim),
        "gru_in": normal(3 * s.dim, s.dim),
        "gru_state": normal(3 * s.dim, s.dim),
        "gru_bias": normal(3 * s.dim),
    }


def _indices(rng: random.Random, s: Sizes, generator: torch.Generator) -> dict[str, Tensor]:
    few = max(1, s.seq // 2)
    return {
        "order": torch.tensor(rng.sample(range(s.seq), s.seq)),
        "ahead": torch.arange(s.seq).roll(-1),
        "behind": (torch.arange(s.seq) - 1).clamp(0),
        "places": torch.randint(0, s.seq, (s.rows, s.seq, s.dim), generator=generator),
        "doubles": torch.randint(0, few, (s.rows, s.seq, s.dim), generator=generator),  # many sources, one target
        "small": torch.randint(-3, 4, (s.seq,), generator=generator),
        "first": torch.zeros((), dtype=torch.int64),
    }


def _odd(rng: random.Random, s: Sizes, generator: torch.Generator) -> dict[str, Tensor]:
    real = torch.randn(s.seq, 2, generator=generator)
    numbers = (1e30, 3e38, math.inf, 1e300, 1e-40, 1e-300, 0.0, -0.0, math.nan)
    return {
        "complex": torch.complex(real, real.flip(0) * (real > 0)),
        "turns": _turns(s, generator),
        "number": torch.tensor(rng.choice(numbers), dtype=rng.choice((torch.float32, torch.float64, torch.float16))),
        "bytes": torch.randint(-128, 128, (s.seq,), generator=generator).to(torch.int8),
        "empty": torch.zeros(s.seq, 0) if rng.random() < 0.3 else torch.zeros(0, dtype=torch.int64),
    }


def _turns(s: Sizes, generator: torch.Generator) -> Tensor:
    """Complex, nothing above the diagonal; some have no real part, and some no imaginary one."""
    real, imaginary = (torch.randn(s.seq, s.seq, generator=generator).relu() for _ in range(2))
    ahead = torch.ones(s.seq, s.seq).triu(1)
    turned = torch.complex(real, imaginary).tril()
    return turned + 1j * ahead * (torch.rand(s.seq, s.seq, generator=generator) < 0.1)
