"""`kernels.get_kernel` without a network. UNTRUSTED side.

An unmodified train.py asks for FlashAttention-3 with `get_kernel(repo).flash_attn_interface`. Where a
signed kernel package is mounted under /kernels/<repo name> it is loaded from there; otherwise the same
interface is served by scaled_dot_product_attention. During export it always is: the handed-over graph
may hold ATen operations only.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch

KERNELS_DIR = Path(os.environ.get("GLOVEBOX_KERNELS", "/kernels"))


def get_kernel(repo_id: str, *args: Any, **kwargs: Any) -> Any:
    """The kernel package mounted for `owner/name`, or a stand-in with the FlashAttention interface."""
    real: Any = _mounted(repo_id)
    if real is None:
        print(f"kernels: {repo_id} is not provisioned, using scaled_dot_product_attention")
        interface: Any = SimpleNamespace(flash_attn_func=flash_attn_func)
        return SimpleNamespace(flash_attn_interface=interface, flash_attn_func=flash_attn_func)
    interface = getattr(real, "flash_attn_interface", None)
    for holder in (real, interface):
        if holder is not None and hasattr(holder, "flash_attn_func"):
            holder.flash_attn_func = _unless_exporting(holder.flash_attn_func)
    return real


def _mounted(repo_id: str) -> ModuleType | None:
    """The provisioned package, as the kernels package picks its build for this machine; None without one."""
    folder = KERNELS_DIR / repo_id.rsplit("/", 1)[-1]
    if not folder.is_dir():
        return None
    try:
        local: ModuleType = importlib.import_module("kernels").get_local_kernel(folder)
    except Exception as error:  # no build for this torch and device: the stand-in below works everywhere
        print(f"kernels: {repo_id} has no usable build here ({type(error).__name__})")
        return None
    return local


def _unless_exporting(kernel: Any) -> Any:
    def attention(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_exporting():
            return flash_attn_func(*args, **kwargs)
        return kernel(*args, **kwargs)

    return attention


def flash_attn_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    **unsupported: Any,
) -> torch.Tensor:
    """FlashAttention's semantics on [batch, seq, heads, dim] through scaled_dot_product_attention.

    Query i sees keys i - left .. i + right (negative: unbounded), none after i if causal.
    """
    if given := [name for name, value in unsupported.items() if value not in (None, False, 0, 0.0, 1)]:
        raise TypeError(f"flash_attn_func: {given} need the real kernel, which is not provisioned")
    queries, keys = q.shape[1], k.shape[1]
    left, right = window_size
    if causal:
        right = 0
    mask = None
    if (0 <= left < keys - 1) or (0 < right < keys - 1) or (right == 0 and queries != keys):
        shift = keys - queries
        distance = torch.arange(keys, device=q.device) - torch.arange(queries, device=q.device).unsqueeze(1) - shift
        mask = torch.ones_like(distance, dtype=torch.bool)
        if left >= 0:
            mask = mask & (distance >= -left)
        if right >= 0:
            mask = mask & (distance <= right)
    group = q.shape[2] // k.shape[2]
    if group > 1:
        k, v = k.repeat_interleave(group, dim=2), v.repeat_interleave(group, dim=2)
    y = torch.nn.functional.scaled_dot_product_attention(
        q.transpose(1, 2),
        k.transpose(1, 2),
        v.transpose(1, 2),
        attn_mask=mask,
        is_causal=mask is None and right == 0,
        scale=softmax_scale,
    )
    return y.transpose(1, 2)


def install() -> None:
    """Make `from kernels import get_kernel` mean this module's, for train.py and all it imports."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # a dependency that was not provisioned is an error, not a wait
    try:
        module = importlib.import_module("kernels")
    except ImportError:
        module = sys.modules["kernels"] = ModuleType("kernels")
    module.get_kernel = get_kernel  # type: ignore[attr-defined]
