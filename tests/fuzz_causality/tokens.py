"""The batches of tokens that runs are compared over."""

from __future__ import annotations

import random
from collections.abc import Iterator

import torch
from torch import Tensor

from trainer.evaluator.model.program import Program

CHANGES = 6  # batches compared with the first one


def batches(bound: Program, rng: random.Random) -> Iterator[Tensor]:
    """Tokens, then changes of them: behind a position, in one row, of one token."""
    generator = torch.Generator().manual_seed(rng.randrange(1 << 30))

    def fresh_tokens() -> Tensor:
        return torch.randint(0, bound.vocab, (bound.rows, bound.seq_len), generator=generator)

    first = fresh_tokens()
    yield first
    places = [(bound.rows, bound.seq_len - 1)]  # the last position of every row
    places += [(bound.rows, rng.randrange(bound.seq_len)) for _ in range(CHANGES // 2)]
    places += [(rng.randrange(bound.rows), rng.randrange(bound.seq_len)) for _ in range(CHANGES - len(places))]
    for row, position in places:
        changed = first.clone()
        where = (slice(None), slice(position, None)) if row == bound.rows else (row, _part(rng, position))
        fresh = fresh_tokens()
        fresh[-1, -1] = (first[-1, -1] + 1 + rng.randrange(bound.vocab - 1)) % bound.vocab
        changed[where] = fresh[where]
        if not torch.equal(changed, first):
            yield changed


def _part(rng: random.Random, position: int) -> slice:
    return rng.choice((slice(None), slice(position, position + 1), slice(position, None)))
