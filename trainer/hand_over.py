"""The trained model leaves as data: graph.json and weights.safetensors. UNTRUSTED side.

`model(idx) -> logits` is captured at fixed [rows, seq_len] and written in the evaluator's format (see
trainer/evaluator/model/graph.py). Nothing is pickled. The evaluator's own parser and dry run check what was written, so
a graph that they would refuse falls through to the next way of capturing here.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from trainer import attention, telemetry
from trainer.evaluator.model import graph as wire
from trainer.evaluator.model import program as dry
from trainer.evaluator.model.weights import DTYPES
from trainer.export.capture import MODES, Batch, Logits
from trainer.export.lower import lower
from trainer.export.refusals import NotExportable, Why
from trainer.wire.refusal import Reason, Refused

_DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_SAME = 1e-4  # of a loss: what bfloat16 may round differently between two calls
_DIFFERS = "the loss is not the cross entropy of the logits"
_WRAPPED = ("_orig_mod", "module")  # torch.compile, DistributedDataParallel


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
    """The module itself; a plain function becomes one."""
    while isinstance(model, torch.nn.Module):
        inner = next((getattr(model, name, None) for name in _WRAPPED if _is_wrapper(model, name)), None)
        if inner is None:
            return model
        model = inner
    return _Called(model)


def _is_wrapper(model: torch.nn.Module, name: str) -> bool:
    """Whether a module is a wrapper of torch's around the one of that name, and not one that has a part called so."""
    inside = isinstance(getattr(model, name, None), torch.nn.Module)
    return inside and (name == "_orig_mod" or type(model).__module__.startswith("torch."))


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
        lower(MODES["functional"](_Nothing(), torch.zeros(1, 1, dtype=torch.int64))).document()


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
    module, idx = _asked(model, rows, seq_len, vocab, batch)
    failures: list[NotExportable] = []
    for export in MODES.values():
        try:
            # Both: a dry run under the caller's autocast is another program than the one that is handed over.
            with torch.no_grad(), torch.autocast(idx.device.type, enabled=False), attention.exporting():
                document, tensors = lower(export(module, idx)).document()
                data = json.dumps(document, separators=(",", ":")).encode()
                _validate(data, tensors, rows, seq_len)
        except NotExportable as error:
            failures.append(error)
        except Exception as error:  # torch.export raises many types; the mode failed
            failures.append(NotExportable(_classify(error), f"{type(error).__name__}: {error}"))
        else:
            return data, tensors
    named = next((f for f in failures if f.why is not Why.OTHER), failures[0])
    raise NotExportable(named.why, " | ".join(str(f) for f in failures), named.op)


def _asked(
    model: torch.nn.Module, rows: int, seq_len: int, vocab: int, batch: Batch | None
) -> tuple[Logits, torch.Tensor]:
    """What is exported, and the tokens to trace it with: `model(idx)`, or what its loss is computed of if not."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    autocast = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None
    idx = torch.zeros(rows, seq_len, dtype=torch.int64, device=device)
    plain = Logits(model, device.type, autocast).eval()
    sample = _fitted(batch, rows, seq_len, device)
    if sample is None:
        return plain, idx
    with attention.exporting():
        found = _run(plain, sample.inputs)
        said = plain.losses(sample)
        if said is None or _tells(found, sample, said):
            _shaped(found, rows, seq_len, vocab)
            return plain, sample.inputs
        within = Logits(model, device.type, autocast, sample.targets).eval()
        try:
            found = within.listen(sample.inputs)
        except TypeError:
            telemetry.warn(_DIFFERS)
            _shaped(found, rows, seq_len, vocab)
            return plain, sample.inputs
        if not _tells(found, sample, said):
            telemetry.warn(_DIFFERS)
        _shaped(found, rows, seq_len, vocab)
        return within, sample.inputs


def _run(module: Logits, inputs: torch.Tensor) -> torch.Tensor | None:
    """Once for real; what the model raises is its own. On a full GPU nothing is known beforehand."""
    try:
        return module.listen(inputs)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return None


def _tells(logits: Any, batch: Batch, said: torch.Tensor) -> bool:
    """Whether the cross entropy of these logits is what the model said of the batch."""
    if not isinstance(logits, torch.Tensor) or logits.dim() != 3 or logits.shape[:2] != batch.targets.shape:
        return False
    flat = logits.float().flatten(0, 1)
    if int(batch.targets.max()) >= flat.shape[-1]:
        return False
    with torch.autocast(logits.device.type, enabled=False):
        own = torch.nn.functional.cross_entropy(flat, batch.targets.flatten(), reduction="none")
    return bool((own.mean() - said.mean()).abs() <= _SAME * said.mean().abs())


def _shaped(logits: Any, rows: int, seq_len: int, vocab: int) -> None:
    """Raises NotExportable(OUTPUT_SHAPE) of what no evaluator takes for logits."""
    if logits is None:
        return
    shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    fits = isinstance(logits, torch.Tensor) and logits.dim() == 3 and shape[:2] == (rows, seq_len)
    if not (fits and (not vocab or shape[2] == vocab) and logits.is_floating_point()):
        asked = f"[{rows}, {seq_len}, {vocab or 'vocabulary'}]"
        given = list(shape) if isinstance(shape, tuple) else shape
        raise NotExportable(Why.OUTPUT_SHAPE, f"model(idx) must give floating logits {asked}, not {given}")


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
    given = json.loads(os.environ.get("GLOVEBOX_LIMITS", "{}"))
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
