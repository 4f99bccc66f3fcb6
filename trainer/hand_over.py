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

from trainer import asking, attention, telemetry
from trainer.evaluator.model import graph as wire
from trainer.evaluator.model import program as dry
from trainer.evaluator.model.weights import DTYPES
from trainer.export.capture import MODES, Batch, Logits, ways
from trainer.export.refusals import NotExportable, Why
from trainer.wire import variables
from trainer.wire.refusal import Reason, Refused

Files = tuple[bytes, dict[str, torch.Tensor]]  # graph.json and the tensors that it names
_DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


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


def _captured(model: torch.nn.Module, rows: int, seq_len: int, vocab: int, batch: Batch | None) -> Files:
    """graph.json and its tensors, by the first mode that the evaluator's checks admit."""
    with _as_it_was(model):
        module, idx = asking.asked(model, rows, seq_len, vocab, batch)
        return _exported(module, idx)


def _exported(module: Logits, idx: torch.Tensor) -> Files:
    """By the first mode whose graph is admitted and gives the model's own logits; if none does, that is told."""
    rows, seq_len = idx.shape
    failures: list[NotExportable] = []
    found: list[tuple[float, Files]] = []
    for export in ways(module):
        try:
            # Both: a dry run under the caller's autocast is another program than the one that is handed over.
            with torch.no_grad(), torch.autocast(idx.device.type, enabled=False), attention.exporting((rows, seq_len)):
                document, tensors = export(module, idx).document()
                data = json.dumps(document, separators=(",", ":")).encode()
                program = _validate(data, tensors, rows, seq_len)
                far = asking.distance(program, module, idx)
        except NotExportable as error:
            failures.append(error)
        except Exception as error:  # torch.export raises many types; the mode failed
            failures.append(NotExportable(_classify(error), f"{type(error).__name__}: {error}"))
        else:
            if not module.steady:
                raise NotExportable(Why.MUTATION, "what forward writes reaches the logits")
            found.append((far, (data, tensors)))
            if far <= asking.close(module):
                break
    if found:
        far, files = min(found, key=lambda each: each[0])
        if far > asking.FAR:
            telemetry.warn(asking.DIFFERS)
        return files
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


def _validate(data: bytes, tensors: dict[str, torch.Tensor], rows: int, seq_len: int) -> dry.Program:
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
        return dry.check(parsed, tensors, rows=rows, seq_len=seq_len, vocab=0, device=device, limits=most)
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
