"""The trained model leaves as data: graph.json and weights.safetensors. UNTRUSTED side.

`model(idx) -> logits` is captured at fixed [rows, seq_len] and written in the evaluator's format (see
trainer/evaluator/model/graph.py). Nothing is pickled. The evaluator's own parser and dry run check what was written, so
a graph that they would refuse falls through to the next way of capturing here.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from trainer import attention, telemetry
from trainer.evaluator.model import graph as wire
from trainer.evaluator.model import program as dry
from trainer.evaluator.model.weights import DTYPES
from trainer.export.capture import MODES, Batch, Logits, ways
from trainer.export.refusals import NotExportable, Why
from trainer.wire import variables
from trainer.wire.refusal import Reason, Refused

_DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_SAME = 1e-3  # of the largest loss: what bfloat16 may round differently between two calls
_DIFFERS = "the loss is not the cross entropy of the logits"


def hand_over(
    model: Any, out_dir: Path, *, rows: int, seq_len: int, vocab: int = 0, batch: Batch | None = None
) -> None:
    """Write both files into `out_dir` in place; raises NotExportable when every mode fails.

    `batch` is one of the training batches, [any, at least seq_len]: what the model says of it tells which logits its
    loss is made of. What `model(idx)` itself raises is raised here. `vocab` 0: any.
    """
    telemetry.phase("hand_over")
    try:
        document, tensors = _captured(unwrap(model), rows, seq_len, vocab, batch)
    except NotExportable as refused:
        telemetry.not_exportable(refused.why, refused.op)
        raise
    (out_dir / "graph.json").open("wb").close()  # what an earlier call left goes with the weights that it was for
    _write_weights(out_dir / "weights.safetensors", tensors)
    _write_graph(out_dir / "graph.json", document)


def unwrap(model: Any) -> torch.nn.Module:
    """The module itself, without what torch wraps around it; a plain function becomes one."""
    while isinstance(model, torch.nn.Module):
        name = next((name for kind, name in _wrappers().items() if type(model) is kind), None)
        if name is None or model._forward_hooks or model._forward_pre_hooks:
            return model
        model = getattr(model, name)
    return _Called(model)


def _wrappers() -> dict[type, str]:
    """Where torch's own wrappers keep what they wrap."""
    parallel = torch.nn.parallel
    return {
        torch._dynamo.eval_frame.OptimizedModule: "_orig_mod",
        parallel.DataParallel: "module",
        parallel.DistributedDataParallel: "module",
        torch.optim.swa_utils.AveragedModel: "module",
    }


class _Called(torch.nn.Module):
    """A function in place of a module."""

    def __init__(self, function: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        return self.function(*args, **kwargs)


def rehearse() -> None:
    """Export next to nothing: the first export imports and initialises more than torch itself, for half a second.

    No GPU is to be seen meanwhile: what train.py says of its allocator counts as long as CUDA is not initialised.
    """
    with torch.no_grad(), mock.patch.object(torch.cuda, "is_available", return_value=False):
        MODES["functional"](_Nothing(), torch.zeros(1, 1, dtype=torch.int64)).document()


class _Nothing(torch.nn.Module):
    def forward(self, idx: torch.Tensor) -> torch.Tensor:
        return idx.float() * 2  # no parameters: the random numbers of train.py stay what they are


# ---------------------------------------------------------------------------
# Capture
# ---------------------------------------------------------------------------


def _captured(
    model: torch.nn.Module, rows: int, seq_len: int, vocab: int, batch: Batch | None
) -> tuple[bytes, dict[str, torch.Tensor]]:
    """graph.json and its tensors, by the first mode that the evaluator's checks admit."""
    with _as_it_was(model):
        module, idx = _asked(model, rows, seq_len, vocab, batch)
        return _exported(module, idx, rows, seq_len)


def _exported(module: Logits, idx: torch.Tensor, rows: int, seq_len: int) -> tuple[bytes, dict[str, torch.Tensor]]:
    failures: list[NotExportable] = []
    for export in ways(module):
        try:
            # Both: a dry run under the caller's autocast is another program than the one that is handed over.
            with torch.no_grad(), torch.autocast(idx.device.type, enabled=False), attention.exporting():
                document, tensors = export(module, idx).document()
                data = json.dumps(document, separators=(",", ":")).encode()
                _validate(data, tensors, rows, seq_len)
        except NotExportable as error:
            failures.append(error)
        except Exception as error:  # torch.export raises many types; the mode failed
            failures.append(NotExportable(_classify(error), f"{type(error).__name__}: {error}"))
        else:
            if not module.steady:
                raise NotExportable(Why.MUTATION, "what forward writes reaches the logits")
            return data, tensors
    named = next((f for f in failures if f.why is not Why.OTHER), failures[0])
    raise NotExportable(named.why, " | ".join(str(f) for f in failures), named.op)


@contextmanager
def _as_it_was(model: torch.nn.Module) -> Iterator[None]:
    """Leaves buffers, training flags and random numbers as they were before the model was asked."""
    flags = {module: module.training for module in model.modules()}
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    with torch.random.fork_rng():
        try:
            yield
        finally:
            for module, flag in flags.items():
                module.training = flag
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)


def _asked(
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
        with attention.exporting():
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
        telemetry.warn(_DIFFERS)
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
        own = torch.nn.functional.cross_entropy(flat, targets, reduction="none")
    return bool((own - said).abs().max() <= _SAME * said.abs().max())


def _shaped(module: Logits, logits: Any, sample: Batch, vocab: int) -> Logits:
    """The module; raises NotExportable(OUTPUT_SHAPE) if it gives what no evaluator takes for logits."""
    rows, seq_len = sample.inputs.shape
    shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    fits = isinstance(logits, torch.Tensor) and logits.dim() == 3 and shape[:2] == (rows, seq_len)
    if not (fits and (not vocab or shape[2] == vocab) and logits.is_floating_point()):
        asked = f"[{rows}, {seq_len}, {vocab or 'vocabulary'}]"
        given = list(shape) if isinstance(shape, tuple) else shape
        raise NotExportable(Why.OUTPUT_SHAPE, f"model(idx) must give floating logits {asked}, not {given}")
    return module


def _fitted(batch: Batch | None, rows: int, seq_len: int, device: torch.device) -> Batch | None:
    """A batch of exactly these sizes, its rows repeated; None where there is none to take it from."""
    if batch is None or batch.inputs.shape[0] == 0 or batch.inputs.shape[1] < seq_len:
        return None
    times = -(-rows // batch.inputs.shape[0])
    return Batch(*(part[:, :seq_len].repeat(times, 1)[:rows].clone().to(device) for part in batch))


def _classify(error: Exception) -> Why:
    text = f"{type(error).__name__} {error}"
    for needle, why in (
        ("DataDependent", Why.CONTROL_FLOW),
        ("data-dependent", Why.DATA_DEPENDENT),
        ("unbacked", Why.DATA_DEPENDENT),
        ("PendingUnbacked", Why.DATA_DEPENDENT),
        ("unexpected keyword", Why.SIGNATURE),
        ("positional argument", Why.SIGNATURE),
        ("mutat", Why.MUTATION),
    ):
        if needle in text:
            return why
    return Why.OTHER


# ---------------------------------------------------------------------------
# Checks and files
# ---------------------------------------------------------------------------

_REFUSALS = {Reason.GRAPH_LIMIT: Why.LIMIT, Reason.COMPUTE_LIMIT: Why.LIMIT, Reason.OUTPUT_SHAPE: Why.OUTPUT_SHAPE}


def limits() -> dry.Limits:
    """The policy's, as the bench told this room; the evaluator's own defaults where it did not."""
    given = json.loads(os.environ.get(variables.LIMITS, "{}"))
    return dry.Limits(**{field.name: given[field.name] for field in fields(dry.Limits) if field.name in given})


def _validate(data: bytes, tensors: dict[str, torch.Tensor], rows: int, seq_len: int) -> None:
    """Ask the evaluator's parser and dry run what they would say; raises NotExportable."""
    for tensor in tensors.values():
        if tensor.dtype not in _DTYPE_NAMES or tensor.layout is not torch.strided:
            raise NotExportable(Why.UNSUPPORTED_OP, f"weights of {tensor.dtype} {tensor.layout}")
    device = next((t.device for t in tensors.values()), torch.device("cpu"))
    most = limits()
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if size > most.weight_bytes:
        raise NotExportable(Why.LIMIT, f"weights of {size >> 20} MiB, at most {most.weight_bytes >> 20} are admitted")
    try:
        parsed = wire.parse(data, device)
        dry.check(parsed, tensors, rows=rows, seq_len=seq_len, device=device, limits=most)
    except Refused as refused:
        raise NotExportable(_REFUSALS.get(refused.reason, Why.UNSUPPORTED_OP), str(refused)) from None


def _write_graph(path: Path, data: bytes) -> None:
    """In place: the files are single-file mounts, so they exist and cannot be renamed over."""
    with path.open("wb") as file:
        file.write(data)


def _write_weights(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """The safetensors format, one tensor at a time: the model need not fit in host memory twice."""
    header, end = {}, 0
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        shape = list(tensor.shape)
        header[name] = {"dtype": _DTYPE_NAMES[tensor.dtype], "shape": shape, "data_offsets": [end, end + size]}
        end += size
    head = json.dumps(header, separators=(",", ":")).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        for tensor in tensors.values():
            if tensor.numel():
                flat = tensor.contiguous().cpu().reshape(-1)
                flat = torch.view_as_real(flat).reshape(-1) if flat.is_complex() else flat
                file.write(flat.view(torch.uint8).numpy().data)
