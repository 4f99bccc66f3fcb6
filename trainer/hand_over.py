"""The trained model leaves as data: graph.json and weights.safetensors. UNTRUSTED side.

`model(idx) -> logits` is exported at fixed [rows, seq_len] and written in the evaluator's format (see
trainer/evaluator/model/graph.py). Nothing is pickled. Two export modes are tried, since neither covers every
model: functional decomposition (keeps linear, attention and norms whole) and a post-dispatch trace
(lower level, but survives autocast around einsum and recurrent layers). The evaluator's own validator
checks each candidate, so a graph it would refuse falls through to the next mode here.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from unittest import mock

import torch
from torch.export import ExportedProgram
from torch.export._trace import _export

from trainer import attention, telemetry
from trainer.evaluator.model import graph as wire
from trainer.evaluator.model import program as dry
from trainer.evaluator.model.weights import DTYPES
from trainer.graph_writer import NotExportable, Why, serialise
from trainer.wire.refusal import Refused

_DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def hand_over(model: torch.nn.Module, out_dir: Path, *, rows: int, seq_len: int) -> None:
    """Write both files into `out_dir` in place; raises NotExportable when every mode fails."""
    telemetry.phase("hand_over")
    model = getattr(model, "_orig_mod", model)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    wrapper = _Logits(model, device.type, _autocast_dtype(device.type)).eval()
    idx = torch.zeros(rows, seq_len, dtype=torch.int64, device=device)
    failures: list[NotExportable] = []
    for export in MODES.values():
        try:
            # Both: a dry run under the caller's autocast is another program than the one that is handed over.
            with torch.no_grad(), torch.autocast(device.type, enabled=False), attention.exporting():
                document, tensors = serialise(export(wrapper, idx))
                data = json.dumps(document, separators=(",", ":")).encode()
                _validate(data, tensors, rows, seq_len)
        except NotExportable as error:
            failures.append(error)
        except Exception as error:  # torch.export raises many types; the mode failed
            failures.append(NotExportable(_classify(error), f"{type(error).__name__}: {error}"))
        else:
            _write_weights(out_dir / "weights.safetensors", tensors)
            _write_graph(out_dir / "graph.json", data)
            return
    named = next((f for f in failures if f.why is not Why.OTHER), failures[0])
    telemetry.not_exportable(named.why)
    raise NotExportable(named.why, " | ".join(str(f) for f in failures))


def rehearse() -> None:
    """Export next to nothing: the first export imports and initialises more than torch itself, for half a second.

    No GPU is to be seen meanwhile: what train.py says of its allocator counts as long as CUDA is not initialised.
    """
    with torch.no_grad(), mock.patch.object(torch.cuda, "is_available", return_value=False):
        serialise(_functional(_Nothing(), torch.zeros(1, 1, dtype=torch.int64)))


class _Nothing(torch.nn.Module):
    def forward(self, idx: torch.Tensor) -> torch.Tensor:
        return idx.float() * 2  # no parameters: the random numbers of train.py stay what they are


class _Logits(torch.nn.Module):
    """`model(idx)` under the autocast state evaluate_bpb was called in.

    Autocast must be entered inside the exported module: with ambient autocast the casts are lost.
    """

    def __init__(self, model: torch.nn.Module, device: str, autocast: torch.dtype | None) -> None:
        super().__init__()
        self.model, self.device_type, self.autocast = model, device, autocast

    def forward(self, idx: torch.Tensor) -> torch.Tensor:
        if self.autocast is None:
            return self._logits(idx)
        with torch.autocast(self.device_type, dtype=self.autocast):
            return self._logits(idx)

    def _logits(self, idx: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(idx)
        return logits


def _autocast_dtype(device: str) -> torch.dtype | None:
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None


def _functional(module: torch.nn.Module, idx: torch.Tensor) -> ExportedProgram:
    exported: ExportedProgram = torch.export.export(module, (idx,), strict=False).run_decompositions({})
    return exported


def _post_dispatch(module: torch.nn.Module, idx: torch.Tensor) -> ExportedProgram:
    exported: ExportedProgram = _export(module, (idx,), strict=False, pre_dispatch=False)
    return exported


MODES = {"functional": _functional, "post-dispatch": _post_dispatch}  # in the order in which they are tried


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


def _validate(data: bytes, tensors: dict[str, torch.Tensor], rows: int, seq_len: int) -> None:
    """Ask the evaluator's parser and dry run what they would say; raises NotExportable."""
    for tensor in tensors.values():
        if tensor.dtype not in _DTYPE_NAMES or tensor.layout is not torch.strided:
            raise NotExportable(Why.UNSUPPORTED_OP, f"weights of {tensor.dtype} {tensor.layout}")
    device = next((t.device for t in tensors.values()), torch.device("cpu"))
    try:
        parsed = wire.parse(data, device)
        dry.check(parsed, tensors, rows=rows, seq_len=seq_len, device=device)
    except Refused as refused:
        raise NotExportable(Why.UNSUPPORTED_OP, str(refused)) from None


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
