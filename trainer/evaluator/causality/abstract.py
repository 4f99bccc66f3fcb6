"""The abstract value of one tensor and the algebra on it. TRUSTED.

Every input token carries a label (its position, or its row). For each element of a value:

* `dep`     an upper bound on the labels of the tokens the element may depend on; -1 for constants;
* `zero`    the element is +-0 or NaN, and which of the two depends on labels <= dep only;
* `neginf`  the element is -inf or NaN, likewise;
* `const`   the value itself, when it does not depend on the input at all.

* `low`     a guess, and no claim: the element is so far below others that a softmax makes nothing of it. Who relies on
            it obliges the run to look (obligations.py).

* `endless` a hint, and no claim: not all of the value is finite, so that it is no use to oblige the run to that.

"Depends" ignores the sign of a zero. `signed` says that such a sign may carry more than dep admits, so an
operation that can see it (a division, a sort) must first require that there is no zero.

All tensors are on the CPU and have the value's shape, usually as stride-0 views.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

LABEL = torch.int32
_SMALL = 1 << 16  # bytes that may be kept for less
LOW = 1e3  # what people fill masks with is at least ten times that; exp(-104) is nothing in float32


@dataclass(frozen=True)
class Abstract:
    """What is known about one value; `id` is its id in the program."""

    id: int
    dep: Tensor
    dtype: torch.dtype
    zero: Tensor | None = None
    neginf: Tensor | None = None
    low: Tensor | None = None
    const: Tensor | None = None
    signed: bool = False
    endless: bool = False

    @property
    def shape(self) -> torch.Size:
        return self.dep.shape

    @property
    def floating(self) -> bool:
        """Whether elements can be NaN or infinite."""
        return self.dtype.is_floating_point or self.dtype.is_complex

    def known_zero(self) -> Tensor | None:
        """Mask of known zeros, None if there is none."""
        if self.const is not None:
            mask = self.const == 0  # of a complex number both parts
            return mask if bool(mask.any()) else None
        return self.zero

    def known_neginf(self) -> Tensor | None:
        """Mask of known minus infinities, None if there is none."""
        if self.const is not None and self.const.is_floating_point():
            mask = torch.isneginf(self.const)
            return mask if bool(mask.any()) else None
        return self.neginf

    def known_low(self) -> Tensor | None:
        """Mask of elements that are guessed to be very low, minus infinity not among them; None if there is none."""
        if self.const is not None and self.const.is_floating_point():
            mask = (self.const <= -LOW) & torch.isfinite(self.const)
            return mask if bool(mask.any()) else None
        return self.low

    def named(self, id_: int) -> Abstract:
        """The same under another id, and keeping no more in memory than it says."""
        zero, neginf, low = (_own_mask(mask) for mask in (self.zero, self.neginf, self.low))
        return replace(self, id=id_, dep=_own(self.dep), zero=zero, neginf=neginf, low=low)


def _own(t: Tensor) -> Tensor:
    """The tensor without what it is but a small part of: labels of a view would keep all that was viewed."""
    held = t.untyped_storage().nbytes()
    if held <= _SMALL or held <= 2 * t.element_size() * (own := squash(t)).numel():
        return t
    return own.clone().expand(t.shape)


def _own_mask(t: Tensor | None) -> Tensor | None:
    return None if t is None else _own(t)


def constant(id_: int, value: Tensor) -> Abstract:
    """A value that does not depend on the input."""
    value = value.detach().cpu()
    dep = torch.full((1,) * value.dim(), -1, dtype=LABEL).expand(value.shape)
    return Abstract(id_, dep, value.dtype, const=value)


def as_abstract(value: Any) -> Abstract:
    """An operand that may be a Python number; in float64, so that none underflows to a zero it is not."""
    if isinstance(value, Abstract):
        return value
    return constant(-1, torch.tensor(float(value), dtype=torch.float64))


def squash(t: Tensor) -> Tensor:
    """The tensor with every stride-0 dimension cut to one element: same content, broadcastable."""
    for dim, (size, stride) in enumerate(zip(t.shape, t.stride(), strict=True)):
        if stride == 0 and size > 1:
            t = t.narrow(dim, 0, 1)
    return t


def join(shape: torch.Size | tuple[int, ...], *deps: Tensor) -> Tensor:
    """Elementwise maximum of labels, broadcast to `shape`."""
    out = torch.full((), -1, dtype=LABEL)
    for dep in deps:
        out = torch.maximum(out, squash(dep))
    return out.expand(shape)


def reduce(dep: Tensor, dims: list[int]) -> Tensor:
    """Maximum over `dims`, kept as dimensions of one element."""
    return squash(dep).amax(dims, keepdim=True) if dims else dep


def spread(dep: Tensor, dims: list[int]) -> Tensor:
    """Every element along `dims` may depend on all of them."""
    return reduce(dep, dims).expand(dep.shape)


def masked(dep: Tensor, mask: Tensor | None, other: Tensor) -> Tensor:
    """`other` where mask, else dep."""
    return dep if mask is None else torch.where(squash(mask), squash(other), squash(dep)).expand(dep.shape)


def expand_mask(mask: Tensor | None, shape: torch.Size | tuple[int, ...]) -> Tensor | None:
    """The mask broadcast to a shape; None stays None."""
    return None if mask is None else mask.expand(shape)


def every(mask: Tensor | None, dims: list[int]) -> Tensor | None:
    """Known wherever all along `dims` are, kept as dimensions of one element; None if nowhere."""
    if mask is None:
        return None
    found = squash(mask)
    for dim in dims:
        found = found.all(dim, keepdim=True)
    return found if bool(found.any()) else None


def either(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """Known in a or in b."""
    if a is None or b is None:
        return a if b is None else b
    return (squash(a) | squash(b)).expand(torch.broadcast_shapes(a.shape, b.shape))


def both(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """Known in a and in b."""
    if a is None or b is None:
        return None
    return (squash(a) & squash(b)).expand(torch.broadcast_shapes(a.shape, b.shape))
