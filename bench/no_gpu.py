"""What a train.py that was written for one GPU asks of CUDA, answered by a machine without one."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

import torch

_H100 = {
    "total_memory": 85 << 30,
    "multi_processor_count": 132,
    "major": 9,
    "minor": 0,
    "name": "NVIDIA H100 80GB HBM3",
}


def install() -> None:
    """From now on CUDA's functions do nothing, nothing is compiled, and memory is not pinned."""
    torch.compile = _uncompiled  # type: ignore[assignment]
    torch.Tensor.pin_memory = lambda self, *_: self  # type: ignore[method-assign]
    torch.Tensor.cuda = lambda self, *_, **__: self  # type: ignore[method-assign]
    torch.nn.Module.cuda = lambda self, *_: self  # type: ignore[method-assign]
    for name, value in {
        "get_device_capability": (9, 0),
        "get_device_name": _H100["name"],
        "get_device_properties": SimpleNamespace(**_H100),
        "mem_get_info": (80 << 30, 80 << 30),
        "memory_stats": {},
        "is_bf16_supported": True,
        **dict.fromkeys(("max_memory_allocated", "max_memory_reserved", "memory_allocated", "memory_reserved"), 0),
        **dict.fromkeys(
            ("synchronize", "manual_seed", "manual_seed_all", "reset_peak_memory_stats", "set_device"), None
        ),
    }.items():
        setattr(torch.cuda, name, lambda *_, _value=value, **__: _value)
    for name in ("Event", "Stream", "current_stream"):
        setattr(torch.cuda, name, lambda *_, **__: _Any())
    torch.cuda.stream = lambda *_: contextlib.nullcontext()  # type: ignore[assignment]


def _uncompiled(function: Any = None, **_: Any) -> Any:
    return function if function is not None else lambda given: given


class _Any:
    """Whatever is asked of an event or a stream: no time has passed."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: 0.0
