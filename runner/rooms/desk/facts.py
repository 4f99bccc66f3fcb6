"""What an agent may know of the bench it works on: device, budget, data, and how fast the best trains. TRUSTED.

From policies, the signed artifact, this host and rows that agents were told; nothing a trainer could say anew.
"""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path
from typing import Any

from runner.core.airlock.leak_budget import NO_CURVE
from runner.core.base.launching import Lane, named_processors
from runner.core.base.values import Experiment
from runner.rooms.desk.train_and_score import Stages
from trainer.wire import versions

_CPUINFO = Path("/proc/cpuinfo")
_TOKENS = 2  # bytes of a token in train/tokens_*.npy
_SHOWN = ("num_steps", "total_tokens_M", "num_params_M", "depth")


def facts(stages: Stages, best: Experiment | None) -> dict[str, Any]:
    """By name; what is not known is left out."""
    statement, trainer = stages.artifact, stages.policies.sandbox.trainer
    profile, sizes = statement.predicate.profile, statement.predicate.sizes
    training = sum(size for name, size in sizes.items() if name.startswith("train/tokens_"))
    found: dict[str, Any] = {
        "device": _device(stages.lane, best),
        "host_memory_gib": round(trainer.memory(stages.lane.of) / 2**30, 1),
        "train_seconds": stages.budget(),
        "sequence_length": profile["max_seq_len"],
        "vocabulary": profile["vocab_size"],
        "training_tokens_m": round(training / _TOKENS / 1e6, 1),
        "evaluated_tokens_m": round(int(profile["eval_tokens"]) / 1e6, 2),
        "torch": versions.TORCH,
    }
    return found | _speed(best)


def _speed(best: Experiment | None) -> dict[str, Any]:
    """How the best trained, as far as agents were told."""
    if best is None or (best.told or 0) > NO_CURVE:
        return {}
    shown = {name: best.summary[name] for name in _SHOWN if name in best.summary}
    tokens = shown.get("total_tokens_M")
    seconds = best.summary.get("training_seconds") or best.train_seconds  # the latter with start and hand-over
    if tokens and seconds > 0:
        shown["tokens_per_second"] = float(f"{tokens * 1e6 / seconds:.2e}")
    return {"best": shown} if shown else {}


def _device(lane: Lane, best: Experiment | None) -> str:
    if lane.gpu:
        return best.speed.name if best is not None and best.speed is not None else "an NVIDIA GPU"
    processors = len(named_processors(lane.cores)) if lane.cores else max(1, (os.cpu_count() or 1) // lane.of)
    return f"CPU, {processors} processors{_model()}"


@cache
def _model() -> str:
    """Of the processors; some hosts list hundreds of them."""
    try:
        match = re.search(r"^model name\s*:\s*([ -~]{1,80})", _CPUINFO.read_text("utf-8", "replace"), re.MULTILINE)
    except OSError:
        return ""
    return f", {match[1].strip()}" if match else ""
