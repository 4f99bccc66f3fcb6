"""Rows chosen by the tokens, kept at full length: experts by `nonzero` or by a boolean index. UNTRUSTED side.

A graph has no shapes that depend on data. `flat[mask]`, an expert applied to it, and `out[mask] = ...` say the same
as the expert applied to every row and a choice at the end, as long as nothing in between mixes rows. So a tensor of
chosen rows is a tensor of all candidate rows here, and remembers the mask. What would mix or count rows is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch

from trainer.evaluator.model import ops
from trainer.export.calls import name_of, named
from trainer.export.refusals import NotExportable, Why

aten = torch.ops.aten


class Chosen(int):
    """How many rows there might be, where forward asks how many were chosen: good for a size, not for arithmetic."""


class Through(Protocol):
    """The lowering, as far as it is needed here."""

    def known(self, tensor: torch.Tensor, read: Any = ...) -> Any:
        """What `read` says of a constant; None if it depends on the tokens."""

    def places(self, tensor: torch.Tensor) -> list[int] | None:
        """Where rows could be chosen from, in their order; None if that depends on more than the mask."""

    def constant(self, real: torch.Tensor) -> torch.Tensor:
        """A tensor of this value."""

    def emit(self, func: torch._ops.OpOverload, args: Any, kwargs: dict[str, Any]) -> Any:
        """Record an operation as it is."""


class Rows:
    """Which tensors are chosen rows, by the mask [candidates] that chose them."""

    def __init__(self) -> None:
        self._masks: dict[int, torch.Tensor] = {}
        self._flat: dict[int, torch.Tensor] = {}
        self._bases: dict[int, int] = {}  # masks that are others in another shape
        self._led: set[int] = set()  # chosen rows that stand for the same with dimensions of one element in front
        self.orders: set[int] = set()  # masks that choose all rows, in another order (sorted_rows.py)
        self._put_back = False

    def mask(self, value: Any) -> torch.Tensor | None:
        """The mask of chosen rows; None for any other value."""
        return self._masks.get(id(value)) if isinstance(value, torch.Tensor) and not self._put_back else None

    def is_chosen(self, value: torch.Tensor) -> bool:
        """Whether it stands for chosen rows, whatever it is taken for just now."""
        return id(value) in self._masks

    @contextmanager
    def put_back(self) -> Iterator[None]:
        """Whoever puts rows back takes them for what they are here: all candidates, chosen or not."""
        self._put_back = True
        try:
            yield
        finally:
            self._put_back = False

    def choose(self, rows: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """`rows` [candidates, ...] stands for those of its rows where the mask is true."""
        self._masks[id(rows)] = mask
        return rows

    def flat(self, mask: torch.Tensor) -> torch.Tensor:
        """A mask in one dimension, the same tensor every time: rows are chosen alike if by the same mask."""
        key = self._bases.get(id(mask), id(mask))
        if key not in self._flat:
            self._flat[key] = mask.reshape(-1) if mask.dtype is torch.bool else mask.reshape(-1) != 0
            self._bases[id(self._flat[key])] = key
        return self._flat[key]

    def reshaped(self, func: torch._ops.OpOverload, x: Any, result: Any) -> None:
        """Remember that a mask is another one in another shape: both choose the same rows."""
        if name_of(func) in ("view", "_unsafe_view", "reshape", "flatten") and x.dtype is torch.bool:
            self._bases[id(result)] = self._bases.get(id(x), id(x))

    def size(self, tensor: torch.Tensor, dim: int) -> int:
        """A dimension's size; of chosen rows one that says so, and of rows that are meant otherwise none."""
        if id(tensor) in self._led:
            raise NotExportable(Why.DATA_DEPENDENT, "rows chosen by the tokens meet aten.sym_size")
        return Chosen(tensor.shape[0]) if self.mask(tensor) is not None and dim == 0 else tensor.shape[dim]

    def counted(self, func: torch._ops.OpOverload, args: Any, kwargs: dict[str, Any]) -> None:
        """Raises NotExportable where the number of chosen rows is used for more than their own shape."""
        leaves = torch.utils._pytree.tree_leaves([args, kwargs])
        name = name_of(func)
        shapes = name in ("view", "_unsafe_view", "reshape", "expand") and self.mask(args[0]) is not None
        if not shapes and any(isinstance(x, Chosen) for x in leaves):
            raise NotExportable(Why.DATA_DEPENDENT, f"rows chosen by the tokens meet aten.{name}", name)

    def lead(self, rows: torch.Tensor) -> torch.Tensor:
        """These rows are meant as [1, ..., rows, ...]: whoever takes them has to take that away first."""
        self._led.add(id(rows))
        return rows

    def carried(self, func: torch._ops.OpOverload, args: Any, kwargs: dict[str, Any], results: list[Any]) -> None:
        """Mark what an operation made of chosen rows, row by row; raises NotExportable where it is not row by row."""
        given = named(func, args, kwargs)
        tensors = [x for x in torch.utils._pytree.tree_leaves(given) if isinstance(x, torch.Tensor)]
        masks = {id(mask): mask for x in tensors if (mask := self.mask(x)) is not None}
        (mask,) = masks.values() if len(masks) == 1 else (None,)
        name = name_of(func)
        if name in _OF_SHAPE and masks.keys() <= self.orders:
            return  # it says nothing of what is in the rows, and there are as many
        led = any(id(x) in self._led for x in tensors)
        away = name in ("view", "_unsafe_view", "reshape") and results[0].shape == args[0].shape
        if mask is None or (led and not away) or not _row_by_row(self, name, args[0], given, results):
            raise NotExportable(Why.DATA_DEPENDENT, f"rows chosen by the tokens meet aten.{name}", name)
        for result in results:
            self.choose(result, mask)


_MOVES = frozenset(
    {
        *("_to_copy", "clone", "detach", "alias", "contiguous", "unsqueeze", "squeeze", "slice", "select", "narrow"),
        *("expand", "reshape", "view", "_unsafe_view", "flatten", "unflatten", "transpose", "unbind", "split"),
        *("split_with_sizes", "chunk", "softmax", "_softmax", "log_softmax", "_log_softmax", "logsumexp", "sum"),
        *(
            "mean",
            "amax",
            "amin",
            "rms_norm",
            "layer_norm",
            "native_layer_norm",
            "cumsum",
            "topk",
            "glu",
            "linalg_vector_norm",
        ),
    }
)
_OF_SHAPE = frozenset({"zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full"})
_POINTWISE = frozenset(ops.names("pointwise")) - {"glu", "outer", "dropout", "complex", "polar"}


def _row_by_row(rows: Rows, name: str, first: Any, given: dict[str, Any], results: list[Any]) -> bool:
    """Whether row i of every result comes of row i of the chosen rows, and of nothing that has rows of its own."""
    tensors = [x for x in torch.utils._pytree.tree_leaves(given) if isinstance(x, torch.Tensor)]
    chosen = [x for x in tensors if rows.mask(x) is not None]
    others = [x for x in tensors if rows.mask(x) is None]
    count = chosen[0].shape[0]
    if not all(isinstance(x, torch.Tensor) and x.dim() and x.shape[0] == count for x in results):
        return False
    of_rows = rows.mask(first) is not None
    if name in _POINTWISE:
        wide = max(x.dim() for x in results)
        return all(x.dim() == wide for x in chosen) and all(x.dim() < wide or x.shape[0] == 1 for x in others)
    if name in _MOVES:
        return of_rows and _spares_rows(given, first.dim() + (name == "unsqueeze"))
    alone = len(chosen) == 1
    rules: dict[str, Callable[[], bool]] = {
        "linear": lambda: of_rows and alone,
        "mm": lambda: of_rows and alone,
        "matmul": lambda: of_rows and alone and all(x.dim() <= 2 for x in others),
        "addmm": lambda: alone and rows.mask(given["mat1"]) is not None,
        "bmm": lambda: not others,
        "permute": lambda: of_rows and given["dims"][0] % first.dim() == 0,
        "cat": lambda: not others and given["dim"] % results[0].dim() != 0,
        "embedding": lambda: rows.mask(given["weight"]) is None,
        "index": lambda: _looks_up(rows, given),
    }
    return rules.get(name, lambda: False)()


def _looks_up(rows: Rows, given: dict[str, Any]) -> bool:
    """Whether chosen rows are places, from the first dimension on, in something that has no such rows."""
    places = given.get("indices") or [None]
    at_front = places[0] is not None and rows.mask(given.get("self")) is None
    return at_front and all(rows.mask(x) is not None and x.dim() == 1 for x in places if x is not None)


def _spares_rows(given: dict[str, Any], rank: int) -> bool:
    """Whether an operation that names dimensions leaves dimension 0 alone."""
    for key in ("dim", "dim0", "dim1", "start_dim"):
        asked = given.get(key)
        if key == "dim" and key in given and asked is None:
            return False
        for dim in asked if isinstance(asked, list | tuple) else [asked]:
            if isinstance(dim, int) and dim % max(rank, 1) == 0:
                return False
    shape = given.get("normalized_shape")
    return shape is None or len(shape) < rank


# ---------------------------------------------------------------------------
# How rows are chosen, and how they go back
# ---------------------------------------------------------------------------


def nonzero(rows: Rows, mask: torch.Tensor) -> torch.Tensor:
    """Where a computed mask is true: all places it could be, [candidates, dimensions]."""
    shape, count = mask.shape, math.prod(mask.shape)
    flat = torch.arange(count, device=mask.device)
    columns, below = [], count
    for size in shape:
        below //= size
        columns.append((flat // below) % size)
    return rows.choose(torch.stack(columns, -1), rows.flat(mask))


def _places(through: Through, indices: list[Any]) -> list[Any] | None:
    """Indices with known masks written as places; None if there are no such masks."""
    found, masks = list[Any](), 0
    for index in indices:
        is_mask = isinstance(index, torch.Tensor) and index.dtype is torch.bool
        columns = through.known(index, lambda real: real.nonzero().unbind(1)) if is_mask else None
        found += [index] if columns is None else [through.constant(column) for column in columns]
        masks += columns is not None
    return found if masks else None


def index(rows: Rows, through: Through, x: torch.Tensor, indices: list[Any]) -> Any:
    """`x[mask]` of a computed mask over the first dimensions, or of a known one; NotImplemented for all else."""
    if (places := _places(through, indices)) is not None:
        return through.emit(aten.index.Tensor, [x, places], {})
    if len(indices) == 1 and _computed_mask(through, indices[0]):
        (mask,) = indices
        if mask.shape != x.shape[: mask.dim()] or rows.mask(x) is not None:
            return NotImplemented
        flat = through.emit(aten.reshape.default, [x, [-1, *x.shape[mask.dim() :]]], {})
        return rows.choose(through.emit(aten.clone.default, [flat], {}), rows.flat(mask))
    led = len(indices) > 1 and indices[-1] is not None and not any(x is not None for x in indices[:-1])
    if led and rows.mask(x) is None and rows.mask(indices[-1]) is not None and set(x.shape[: len(indices) - 1]) == {1}:
        flat = through.emit(aten.reshape.default, [x, list(x.shape[len(indices) - 1 :])], {})
        return rows.lead(through.emit(aten.index.Tensor, [flat, [_within(rows, through, indices[-1])]], {}))
    if rows.mask(x) is None and any(rows.mask(where) is not None for where in indices):
        return through.emit(aten.index.Tensor, [x, [_within(rows, through, where) for where in indices]], {})
    return NotImplemented


def embedding(rows: Rows, through: Through, func: torch._ops.OpOverload, args: Any, kwargs: dict[str, Any]) -> Any:
    """Rows of a table by chosen numbers; NotImplemented for all else."""
    if rows.mask(args[1]) is None:
        return NotImplemented
    return through.emit(func, [args[0], _within(rows, through, args[1]), *args[2:]], kwargs)


def _within(rows: Rows, through: Through, where: Any) -> Any:
    """Chosen numbers with zero in place of those that are not chosen: they may be beyond any table."""
    mask = rows.mask(where)
    if mask is None or through.places(where) is not None:
        return where
    with rows.put_back():
        wide = mask.reshape(-1, *[1] * (where.dim() - 1))
        safe = torch.where(wide, where, torch.zeros((), dtype=where.dtype, device=where.device))
    return rows.choose(safe, mask)


def index_put(rows: Rows, through: Through, x: torch.Tensor, indices: list[Any], values: Any, add: bool) -> Any:
    """`x[mask] = values`, or `x[chosen rows] = values`: a choice for every row."""
    if not add and (places := _places(through, indices)) is not None:
        return through.emit(aten.index_put.default, [x, places, values], {})
    if len(indices) != 1 or indices[0] is None or rows.mask(x) is not None:
        return NotImplemented
    (where,) = indices
    if _computed_mask(through, where) and rows.mask(where) is None:
        mask, lead = where, where.dim()
    elif (mask := rows.mask(where)) is not None and _is_range(through, where, x.shape[0]):
        lead = 1
    else:
        return NotImplemented
    if mask.shape != x.shape[:lead]:
        return NotImplemented
    whole = rows.mask(values) is not None
    if whole and rows.mask(values) is not (mask if lead == 1 and rows.mask(where) is not None else rows.flat(mask)):
        return NotImplemented  # rows of one choice in the places of another
    if not whole and values.dim() > x.dim() - lead:
        return NotImplemented
    with rows.put_back():
        wide = mask.reshape(*mask.shape, *[1] * (x.dim() - lead))
        values = values.reshape(x.shape) if whole else values
        return torch.where(wide, (x + values if add else values).to(x.dtype), x)


def index_add(
    rows: Rows, through: Through, x: torch.Tensor, dim: int, where: torch.Tensor, values: torch.Tensor
) -> Any:
    """Add chosen rows to the rows they came from; a row that was chosen several times gets the sum."""
    mask, count = rows.mask(where), x.shape[0]
    if mask is None or rows.mask(values) is not mask or dim % x.dim() or where.shape[0] % count:
        return NotImplemented
    times = where.shape[0] // count
    places = through.places(where)
    with rows.put_back():
        kept = torch.where(mask.reshape(-1, *[1] * (x.dim() - 1)), values, 0)
        if places == list(range(count)) * times:
            return x + kept.unflatten(0, (times, count)).sum(0)
        if places == [at for at in range(count) for _ in range(times)]:
            return x + kept.unflatten(0, (count, times)).sum(1)
    return NotImplemented


def _computed_mask(through: Through, value: Any) -> bool:
    is_mask = isinstance(value, torch.Tensor) and value.dtype is torch.bool
    return is_mask and through.known(value, lambda _: True) is None


def _is_range(through: Through, where: torch.Tensor, count: int) -> bool:
    return where.dim() == 1 and through.places(where) == list(range(count))
