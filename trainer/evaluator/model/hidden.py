"""What operations cost that torch's counters do not see. TRUSTED.

FlopCounterMode says 0 for attention on a CPU and for recurrence, and what a kernel takes for itself is no value of the
graph. Both are counted here from the operands' shapes, from above.
"""

from __future__ import annotations

import math
from typing import Any


def flops(name: str, bound: dict[str, Any]) -> float:
    """FLOPs of a call for which the counter says none."""
    if name == "scaled_dot_product_attention":
        q, k, v = (bound[key] for key in ("query", "key", "value"))
        return float(2 * math.prod(q.shape[:-1]) * k.shape[-2] * (q.shape[-1] + v.shape[-1]))
    if name == "gru":
        steps = bound["input"].shape[0] * bound["input"].shape[1]
        return float(2 * steps * sum(weight.numel() for weight in bound["params"]))
    return float(2 * bound["self"].numel()) if name == "mv" else 0.0


def scratch(name: str, bound: dict[str, Any]) -> int:
    """Bytes a kernel may take beside its operands and its result, in float32."""
    if name == "scaled_dot_product_attention":
        q, k, v = (bound[key] for key in ("query", "key", "value"))
        plain = q.shape[-1] != v.shape[-1] or q.dim() != 4  # then scores and weights of all pairs are held
        return int(8 * math.prod(q.shape[:-1]) * k.shape[-2]) if plain else 0
    if name in ("conv1d", "conv2d", "convolution"):
        x, weight = bound["input"], bound["weight"]  # every window is copied out
        return int(4 * x.numel() * math.prod(weight.shape[2:]))
    return 0
