"""FlashAttention's other functions: operands packed into one tensor, and sequences laid end to end. UNTRUSTED side.

Sequences end to end (`varlen`) are served by torch's own kernel where attention.py would take it; else, and while a
model is exported, by a mask. Then sequences must not cross the rows of a batch: a mask of all tokens against all would
not fit, and what mixes rows could not be proved anyway. That is checked of every batch that is scored.
"""

from __future__ import annotations

from typing import Any

import torch

from trainer import attention
from trainer.export.refusals import NotExportable, Why

Window = tuple[int, int]


def flash_attn_qkvpacked_func(qkv: torch.Tensor, **options: Any) -> torch.Tensor:
    """Attention of qkv [batch, length, 3, heads, dim]."""
    q, k, v = qkv.unbind(2)
    return attention.flash_attn_func(q, k, v, **options)


def flash_attn_kvpacked_func(q: torch.Tensor, kv: torch.Tensor, **options: Any) -> torch.Tensor:
    """Attention of q [batch, queries, heads, dim] and kv [batch, keys, 2, kv heads, dim]."""
    k, v = kv.unbind(2)
    return attention.flash_attn_func(q, k, v, **options)


def flash_attn_varlen_qkvpacked_func(
    qkv: torch.Tensor, cu_seqlens: torch.Tensor, max_seqlen: int, **options: Any
) -> torch.Tensor:
    """Attention of qkv [tokens, 3, heads, dim], by sequence."""
    q, k, v = qkv.unbind(1)
    return flash_attn_varlen_func(q, k, v, cu_seqlens, cu_seqlens, max_seqlen, max_seqlen, **options)


def flash_attn_varlen_kvpacked_func(
    q: torch.Tensor,
    kv: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    **options: Any,
) -> torch.Tensor:
    """Attention of q [tokens, heads, dim] and kv [tokens, 2, kv heads, dim], by sequence."""
    k, v = kv.unbind(1)
    return flash_attn_varlen_func(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, **options)


def flash_attn_varlen_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    *,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: Window = (-1, -1),
    **unsupported: Any,
) -> torch.Tensor:
    """Attention of q [tokens, heads, dim], k and v [tokens, kv heads, dim] within sequences.

    Sequence i is tokens cu_seqlens[i] up to cu_seqlens[i + 1]; queries and keys of one are aligned at their ends, and
    seen as in `flash_attn_func`. Raises TypeError for an option that needs the package.
    """
    attention.refuse("flash_attn_varlen_func", unsupported)
    left, right = window_size[0], 0 if causal else window_size[1]
    q, k, v = (attention.in_autocast(x) for x in (q, k, v))
    if not attention.is_exporting() and attention.has_kernel(q[None], k[None], v[None]):
        attention.tell("flash")
        starts = cu_seqlens_q.int(), cu_seqlens_k.int()
        return attention.flash(q, k, v, softmax_scale, causal, left, right, starts, (max_seqlen_q, max_seqlen_k))
    return _by_mask(q, k, v, cu_seqlens_q, cu_seqlens_k, softmax_scale, left, right)


def _by_mask(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    starts_q: torch.Tensor,
    starts_k: torch.Tensor,
    scale: float | None,
    left: int,
    right: int,
) -> torch.Tensor:
    rows = attention.rows_of(q.shape[0]) if q.shape[0] == k.shape[0] else 1
    which_q, place_q, long_q = _sequences(starts_q, q.shape[0])
    which_k, place_k, long_k = _sequences(starts_k, k.shape[0])
    if rows > 1:
        for which in (which_q, which_k):
            each = which.view(rows, -1)
            if not bool((each[1:, 0] > each[:-1, -1]).all()):  # heard, and confirmed for every row that is scored
                raise NotExportable(Why.DATA_DEPENDENT, "a shape depends on data: sequences cross the rows of a batch")
    which_q, which_k, place_k = (x.view(rows, -1) for x in (which_q, which_k, place_k))
    place_q = (place_q + (long_k - long_q)[which_q.flatten().clamp(0, long_q.shape[0] - 1)]).view(rows, -1)
    mask = which_q.unsqueeze(2) == which_k.unsqueeze(1)
    mask = mask & attention.within(place_k.unsqueeze(1) - place_q.unsqueeze(2), left, right)
    q, k, v = (x.view(rows, -1, *x.shape[1:]) for x in (q, k, v))
    return attention.public(q, k, v, scale, mask.unsqueeze(1), causal=False).flatten(0, 1)


def _sequences(starts: torch.Tensor, tokens: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Each token's sequence, its place there, int64 [tokens]; and how long sequences are [sequences].

    Tokens before the first or behind the last are of none: -1, or as many as there are.
    """
    at = torch.arange(tokens, device=starts.device)
    which = (starts.unsqueeze(0) <= at.unsqueeze(1)).sum(1) - 1
    return which, at - starts[which.clamp(min=0)], starts.diff()


def flash_attn_2_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    **options: Any,
) -> torch.Tensor:
    """`flash_attn_func` as FlashAttention-2 has it: dropout comes before the scale."""
    return attention.flash_attn_func(q, k, v, softmax_scale, causal, dropout_p=dropout_p, **options)


FORMS = {
    form.__name__: form
    for form in (
        flash_attn_qkvpacked_func,
        flash_attn_kvpacked_func,
        flash_attn_varlen_func,
        flash_attn_varlen_qkvpacked_func,
        flash_attn_varlen_kvpacked_func,
    )
}


def functions(repository: str) -> dict[str, Any]:
    """What a package of this name serves, by name."""
    second = repository.rsplit("/", 1)[-1] in ("flash-attn", "flash-attn2", "flash-attention-2")
    return {"flash_attn_func": flash_attn_2_func if second else attention.flash_attn_func, **FORMS}
