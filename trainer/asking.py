"""Which logits a model's own loss is made of, and whether a graph gives the same. UNTRUSTED side.

A model is asked about a training batch before it is exported: what it raises, and what it returns instead of logits,
is its own mistake, and told so. Afterwards the graph is asked about the same batch: a forward pass that looks at what
it is called with (`isinstance(weight, Parameter)`, `requires_grad`) may have gone another way while it was exported.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F

from trainer import attention, telemetry
from trainer.evaluator.model import program
from trainer.export.capture import Batch, Logits
from trainer.export.refusals import NotExportable, Why

_SAME = 1e-3  # of the largest loss: what bfloat16 may round differently between two calls
_EXACT, _ROUNDED = 1e-5, 1e-3  # of the mean loss: float32, and what rounds to half precision
FAR = 1e-2  # what no rounding makes, thresholds included
DIFFERS = "the loss is not the cross entropy of the logits"


def asked(
    model: torch.nn.Module, rows: int, seq_len: int, vocab: int, batch: Batch | None
) -> tuple[Logits, torch.Tensor]:
    """What is exported, and the tokens to trace it with: `model(idx)`, or what its loss is computed of if not."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    autocast = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None
    plain = Logits(model, device.type, autocast).eval()
    sample = _fitted(batch, rows, seq_len, device)
    if sample is None:
        return plain, torch.zeros(rows, seq_len, dtype=torch.int64, device=device)
    try:
        with attention.exporting((rows, seq_len)):
            return _meant(plain, sample, vocab), sample.inputs
    except torch.OutOfMemoryError:  # there is no room to ask beside what training left: nothing is known beforehand
        torch.cuda.empty_cache()
        return Logits(model, device.type, autocast).eval(), sample.inputs


def _meant(plain: Logits, sample: Batch, vocab: int) -> Logits:
    """Of which logits the model's own loss is; what the model raises is raised here."""
    found = plain.listen(sample.inputs)
    said = plain.losses(sample)
    if said is None or _tells(found, sample, said):
        return _shaped(plain, found, sample, vocab)
    candidates = plain.candidates(sample)
    which = next((at for at, logits in candidates.items() if _tells(logits, sample, said)), None)
    if which is None:
        telemetry.warn(DIFFERS)
        which = max(candidates, default=None)
    # Of other targets too: a model may be given them for more than its loss.
    other = Batch(sample.inputs, sample.targets.roll(1, -1).contiguous())
    if which is None or not _same(candidates[which], plain.candidates(other).get(which)):
        return _shaped(plain, found, sample, vocab)
    within = Logits(plain.model, plain.device_type, plain.autocast, sample.targets).eval()
    within.which = which
    return _shaped(within, within.listen(sample.inputs), sample, vocab)


def _same(one: torch.Tensor, two: torch.Tensor | None) -> bool:
    return two is not None and torch.equal(one, two)


def _tells(logits: Any, batch: Batch, said: torch.Tensor) -> bool:
    """Whether the cross entropy of these logits is what the model said of every token of the batch."""
    if not isinstance(logits, torch.Tensor) or logits.dim() != 3 or logits.shape[:2] != batch.targets.shape:
        return False
    flat, targets = logits.float().flatten(0, 1), batch.targets.flatten()
    if not bool(((targets >= 0) & (targets < flat.shape[-1])).all()):
        return False
    with torch.autocast(logits.device.type, enabled=False):
        own = F.cross_entropy(flat, targets, reduction="none")
    return bool((own - said).abs().max() <= _SAME * said.abs().max())


def _shaped(module: Logits, logits: Any, sample: Batch, vocab: int) -> Logits:
    """The module; raises NotExportable(OUTPUT_SHAPE) if it gives what no evaluator takes for logits."""
    rows, seq_len = sample.inputs.shape
    shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    fits = isinstance(logits, torch.Tensor) and logits.dim() == 3 and shape[:2] == (rows, seq_len)
    if not (fits and (not vocab or shape[2] == vocab) and logits.is_floating_point()):
        wanted = f"[{rows}, {seq_len}, {vocab or 'vocabulary'}]"
        given = list(shape) if isinstance(shape, tuple) else shape
        raise NotExportable(Why.OUTPUT_SHAPE, f"model(idx) must give floating logits {wanted}, not {given}")
    module.nats = _nats(logits, sample.inputs)
    return module


def _fitted(batch: Batch | None, rows: int, seq_len: int, device: torch.device) -> Batch | None:
    """A batch of exactly these sizes, its rows repeated; None where there is none to take it from."""
    if batch is None or batch.inputs.shape[0] == 0 or batch.inputs.shape[1] < seq_len:
        return None
    times = -(-rows // batch.inputs.shape[0])
    return Batch(*(part[:, :seq_len].repeat(times, 1)[:rows].clone().to(device) for part in batch))


def distance(graph: program.Program, module: Logits, idx: torch.Tensor) -> float:
    """How far the graph's mean loss on the batch is from the model's, relative; 0 where there is no room to ask.

    Raises Refused where the graph fails as the evaluator would run it.
    """
    if module.nats is None or not math.isfinite(module.nats):
        return 0.0
    try:
        program.fold(graph)
        found = _nats(graph(idx), idx)
    except torch.OutOfMemoryError:
        return 0.0
    return abs(found - module.nats) / abs(module.nats) if math.isfinite(found) and module.nats else math.inf


def close(module: Logits) -> float:
    """A distance at which no other way need be tried: what rounding makes."""
    tensors = [*module.model.parameters(), *module.model.buffers()]
    half = module.autocast is not None or any(x.dtype in (torch.float16, torch.bfloat16) for x in tensors)
    return _ROUNDED if half else _EXACT


def _nats(logits: torch.Tensor, tokens: torch.Tensor) -> float:
    """Mean nats of the tokens themselves, as good as any others to compare two sets of logits by."""
    flat = logits.detach().float().flatten(0, 1)
    with torch.autocast(logits.device.type, enabled=False):
        return float(F.cross_entropy(flat, tokens.flatten().clamp(0, flat.shape[-1] - 1)))
