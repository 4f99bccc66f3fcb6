"""Rows in an order that the tokens decide: experts that are given their rows one after the other. UNTRUSTED side.

No row can be proved to see only what is before it once all of them are sorted. But `x[order]`, something done row by
row, and the way back say the same as the thing done to `x`. So a tensor of sorted rows is a tensor of the rows in
their own order here, and remembers by what they were sorted (rows.py: as rows that were chosen, all of them). Where
the groups begin is confirmed of every batch that is scored.
"""

from __future__ import annotations

from typing import Any

import torch

from trainer.export.rows import Rows, Through


class Orders:
    """Orders by the mask of rows.py that stands for each."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self._keys: dict[int, torch.Tensor] = {}  # what was sorted, in its own order
        self._back: dict[int, torch.Tensor] = {}  # the mask of the opposite order
        self._alive: list[torch.Tensor] = []  # or an identity could be given twice

    def sort(self, through: Through, x: torch.Tensor, descending: bool) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Values and places of one dimension as they are sorted; of an order, the way back. None for all else."""
        if self.is_order(through, x):
            return torch.arange(x.shape[0], device=x.device), self._places(x, self._opposite(x))
        if x.dim() != 1 or self.rows.mask(x) is not None or through.known(x, lambda _: True) is not None:
            return None
        mask = self._order(x)
        if not descending:
            self._keys[id(mask)] = x
        return self.rows.choose(x.clone(), mask), self._places(x, mask)

    def is_order(self, through: Through, x: torch.Tensor) -> bool:
        """Whether these are all places, in the order they were sorted to."""
        mask = self.rows.mask(x)
        return mask is not None and id(mask) in self._back and through.places(x) == list(range(x.shape[0]))

    def undone(self, through: Through, x: torch.Tensor, where: Any) -> torch.Tensor | None:
        """`x[where]`, if that takes back the order that x is in."""
        mask = self.rows.mask(x)
        if mask is None or not isinstance(where, torch.Tensor) or not self.is_order(through, where):
            return None
        if self._back.get(id(mask)) is not self.rows.mask(where):
            return None
        with self.rows.put_back():
            return x.clone()

    def laid_out(self, through: Through, x: torch.Tensor, where: Any, values: Any) -> torch.Tensor | None:
        """`x[order] = values`, of rows in their own order: then they are in the opposite one."""
        ordered = isinstance(where, torch.Tensor) and self.is_order(through, where)
        plain = isinstance(values, torch.Tensor) and self.rows.mask(values) is None and values.shape == x.shape
        if not (ordered and plain and self.rows.mask(x) is None):
            return None
        return self.rows.choose(values.to(x.dtype).clone(), self._opposite(where))

    def grouped_product(self, x: torch.Tensor, weights: torch.Tensor, ends: torch.Tensor | None) -> torch.Tensor | None:
        """A product with each group's own matrix: every matrix with every row, and a choice; None for all else."""
        mask = self.rows.mask(x)
        if mask is None or id(mask) not in self._keys or ends is None or weights.dim() != 3 or x.dim() != 2:
            return None
        key = self._keys[id(mask)]
        groups = torch.arange(weights.shape[0], device=key.device)
        torch._assert_async((ends == (key.unsqueeze(1) <= groups).sum(0)).all())
        with self.rows.put_back():
            found = torch.zeros(x.shape[0], weights.shape[2], dtype=x.dtype, device=x.device)
            for group in range(weights.shape[0]):
                found = torch.where((key == group).unsqueeze(1), x @ weights[group], found)
        return self.rows.choose(found, mask)

    def _order(self, like: torch.Tensor) -> torch.Tensor:
        mask, back = (torch.ones(like.shape[0], dtype=torch.bool, device=like.device) for _ in range(2))
        self._back[id(mask)], self._back[id(back)] = back, mask
        self._alive += [mask, back]
        self.rows.orders |= {id(mask), id(back)}
        return mask

    def _opposite(self, order: torch.Tensor) -> torch.Tensor:
        mask = self.rows.mask(order)
        assert mask is not None
        return self._back[id(mask)]

    def _places(self, like: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.rows.choose(torch.arange(like.shape[0], device=like.device), mask)
