"""FlashAttention's interface without its package. UNTRUSTED side.

`flash_attn_func` is served by the first of these that can: torch's own FlashAttention-2 kernel, sliding window
included (`aten._flash_attention_forward`: CUDA, half precision, compute capability 8.0 and newer);
scaled_dot_product_attention without a mask; and, as the last resort, with a mask of [queries, keys]. While a model is
exported it is always the last two: a graph that is handed over holds public operations only.

Under autocast attention is of autocast's type, as torch's own is: since torch 2.12 a norm of queries and keys is
float32 there (pytorch issue 188955), which no FlashAttention takes; upstream's train.py was written for 2.9.

Which way was taken is told once (`telemetry.attention`): a mask costs several times the memory and time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from trainer import telemetry

_HALVES = (torch.float16, torch.bfloat16)
_FLASH = (8, 0)  # compute capability that the kernel needs (Ampere)
_MOST_HEAD_DIM = 256
_ONLY_SPEED = frozenset({"num_splits", "pack_gqa", "sm_margin", "deterministic"})
_OPERANDS = frozenset({"q", "k", "v", "kv", "qkv"})
_exporting: tuple[int, int] | None = None  # rows and length of the tokens that a model is exported with


@contextmanager
def exporting(tokens: tuple[int, int] = (1, 0)) -> Iterator[None]:
    """A model is handed over meanwhile. Ours, and not torch's own word: inside torch.compile that was true in 2.11."""
    global _exporting
    _exporting = tokens
    try:
        yield
    finally:
        _exporting = None


def is_exporting() -> bool:
    """Whether only public operations may be called."""
    return _exporting is not None


def rows_of(tokens: int) -> int:
    """How many rows these tokens are, laid end to end, while a model is exported; 1 where nothing says so."""
    rows, length = _exporting or (1, 0)
    return rows if rows * length == tokens else 1


def flash_attn_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    **unsupported: Any,
) -> torch.Tensor:
    """FlashAttention's semantics on q [batch, queries, heads, dim], k and v [batch, keys, kv heads, dim].

    Query i sees keys i - left .. i + right (negative: unbounded), counted from the last, none after i if causal.
    Raises TypeError for an option that needs the package.
    """
    refuse("flash_attn_func", unsupported)
    left, right = window_size[0], 0 if causal else window_size[1]
    q, k, v = (in_autocast(x) for x in (q, k, v))
    if not is_exporting() and has_kernel(q, k, v):
        tell("flash")
        return flash(q, k, v, softmax_scale, causal, left, right)
    return _sdpa(q, k, v, softmax_scale, left, right)


def refuse(function: str, options: dict[str, Any]) -> None:
    """Raises TypeError for options that ask for what is not served."""
    if given := [name for name, value in options.items() if not _harmless(name, value)]:
        raise TypeError(f"{function}: {given} need the real kernel, which is not provisioned")


def _harmless(name: str, value: Any) -> bool:
    """Whether an option asks for nothing, or only for another way to the same result."""
    nothing = value is None or value is False or (type(value) in (int, float) and value == 0)
    return nothing or name in _ONLY_SPEED


def unless_exporting(kernel: Any, instead: Any = None) -> Any:
    """A package's attention; while a model is exported it gives way, to `flash_attn_func` if nothing else is said."""

    def attention(*args: Any, **kwargs: Any) -> Any:
        if is_exporting():
            return (instead or flash_attn_func)(*args, **kwargs)
        tell("package")
        args = tuple(in_autocast(x) if isinstance(x, torch.Tensor) else x for x in args[:3]) + args[3:]
        return kernel(*args, **{name: in_autocast(x) if name in _OPERANDS else x for name, x in kwargs.items()})

    return attention


def in_autocast(x: torch.Tensor) -> torch.Tensor:
    """float32 under autocast in autocast's type; anything else as it is."""
    kind = x.device.type
    if x.dtype != torch.float32 or not torch.is_autocast_enabled(kind):
        return x
    return x.to(torch.get_autocast_dtype(kind))


def has_kernel(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> bool:
    """Whether torch's own FlashAttention takes these, [batch, length, heads, dim]."""
    if q.device.type != "cuda" or q.dtype not in _HALVES or not (q.dtype == k.dtype == v.dtype):
        return False
    size = q.shape[-1]
    fits = size <= _MOST_HEAD_DIM and size % 8 == 0 and v.shape[-1] == size and q.shape[2] % k.shape[2] == 0
    return fits and _new_enough()


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _new_enough() -> bool:
    return torch.cuda.get_device_capability() >= _FLASH


def flash(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float | None,
    causal: bool,
    left: int,
    right: int,
    starts: tuple[torch.Tensor, torch.Tensor] | tuple[None, None] = (None, None),
    longest: tuple[int, int] | None = None,
) -> torch.Tensor:
    """torch's own kernel: a dense tile never exists, backward and torch.compile included.

    With `starts` (of queries and of keys, int32), q, k and v are sequences end to end, [tokens, heads, dim].
    """
    longest = longest or (q.shape[1], k.shape[1])
    result: tuple[torch.Tensor, ...] = torch.ops.aten._flash_attention_forward(
        *(q, k, v, *starts, *longest, 0.0, causal, False),
        scale=scale,
        window_size_left=left,
        window_size_right=right,
    )
    return result[0]


def _sdpa(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float | None, left: int, right: int
) -> torch.Tensor:
    queries, keys = q.shape[1], k.shape[1]
    mask = None
    if (0 <= left < keys - 1) or (0 < right < queries - 1) or (right == 0 and queries != keys):
        at = torch.arange(queries, device=q.device).unsqueeze(1) + keys - queries
        mask = within(torch.arange(keys, device=q.device) - at, left, right)
    return public(q, k, v, scale, mask, causal=mask is None and right == 0)


def public(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float | None, mask: torch.Tensor | None, *, causal: bool
) -> torch.Tensor:
    """The operation that everybody has, on [batch, length, heads, dim]; mask [.., queries, keys], true: seen."""
    if not is_exporting():
        tell("sdpa" if mask is None else "masked")
    group = q.shape[2] // k.shape[2]
    if group > 1:
        k, v = k.repeat_interleave(group, dim=2), v.repeat_interleave(group, dim=2)
    y = torch.nn.functional.scaled_dot_product_attention(
        q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask, is_causal=causal, scale=scale
    )
    return y.transpose(1, 2)


def within(distance: torch.Tensor, left: int, right: int) -> torch.Tensor:
    """Which keys a query sees by how far behind it they are (negative: before it); a negative side is unbounded."""
    mask = torch.ones_like(distance, dtype=torch.bool)
    if left >= 0:
        mask = mask & (distance >= -left)
    if right >= 0:
        mask = mask & (distance <= right)
    return mask


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def tell(kind: str) -> bool:
    """Say once which way was taken. Runs while torch.compile traces, and is no part of what it compiles."""
    telemetry.attention(kind)
    return True
