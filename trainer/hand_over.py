"""The trained model leaves as data: graph.json and weights.safetensors. UNTRUSTED side.

`model(idx) -> logits` is exported at fixed [rows, seq_len] and written in the evaluator's format (see
trainer/evaluator/graph.py). Nothing is pickled. Two export modes are tried, since neither covers every
model: functional decomposition (keeps linear, attention and norms whole) and a post-dispatch trace
(lower level, but survives autocast around einsum and recurrent layers). The evaluator's own validator
checks each candidate, so a graph it would refuse falls through to the next mode here.
"""

from __future__ import annotations

import json
import math
import operator
import struct
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export._trace import _export
from torch.export.graph_signature import InputKind

from trainer import telemetry
from trainer.evaluator import graph as wire
from trainer.evaluator import program as dry
from trainer.evaluator.refusal import Refused
from trainer.evaluator.weights import DTYPES

_DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_SKIPPED = frozenset({"aten._assert_tensor_metadata.default", "aten._assert_scalar.default"})
_CPU_FLASH = "aten._scaled_dot_product_flash_attention_for_cpu.default"
_PUBLIC_ATTENTION = "aten.scaled_dot_product_attention.default"


class Why(StrEnum):
    """Closed list of reasons a model cannot be handed over."""

    DATA_DEPENDENT = "data_dependent_shape"
    CONTROL_FLOW = "data_dependent_control_flow"
    CUSTOM_OP = "custom_op"
    UNSUPPORTED_OP = "unsupported_op"
    MUTATION = "mutation"
    SIGNATURE = "forward_signature"
    OTHER = "other"


class NotExportable(RuntimeError):
    """The model cannot be handed over; `why` says which rule it breaks."""

    def __init__(self, why: Why, detail: str) -> None:
        super().__init__(f"{why}: {detail}")
        self.why = why


def hand_over(model: torch.nn.Module, out_dir: Path, *, rows: int, seq_len: int) -> None:
    """Write both files into `out_dir` in place; raises NotExportable when every mode fails."""
    telemetry.phase("hand_over")
    model = getattr(model, "_orig_mod", model)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    wrapper = _Logits(model, device.type, _autocast_dtype(device.type)).eval()
    idx = torch.zeros(rows, seq_len, dtype=torch.int64, device=device)
    failures: list[NotExportable] = []
    for export in (_functional, _post_dispatch):
        try:
            with torch.no_grad(), torch.autocast(device.type, enabled=False):
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
# Exported program to document
# ---------------------------------------------------------------------------


def serialise(exported: ExportedProgram) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """(graph document, tensors by name) of an exported program; raises NotExportable."""
    signature = exported.graph_signature
    if signature.buffers_to_mutate or signature.user_inputs_to_mutate:
        raise NotExportable(Why.MUTATION, "forward writes to a buffer or an input")
    return _Writer(exported).document()


class _Writer:
    """One pass over the FX graph; value ids: placeholders first, then node outputs in order."""

    def __init__(self, exported: ExportedProgram) -> None:
        self.exported = exported
        self.ids: dict[torch.fx.Node, int | list[int]] = {}
        self.tensors: dict[str, torch.Tensor] = {}
        self.weights: list[list[int | str]] = []
        self.nodes: list[dict[str, Any]] = []
        self.input: int | None = None
        self.next_id = 0
        self._names: dict[tuple[Any, ...], str] = {}

    def document(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        output = None
        for node in self.exported.graph.nodes:
            if node.op == "placeholder":
                self._placeholder(node)
            elif node.op == "call_function":
                self._call(node)
            elif node.op == "output":
                output = self._output(node)
            else:
                raise NotExportable(Why.CONTROL_FLOW, f"graph node {node.op}")
        document = {
            "format": wire.FORMAT,
            "input": self.input,
            "weights": self.weights,
            "nodes": self.nodes,
            "output": output,
        }
        return document, self.tensors

    def _placeholder(self, node: torch.fx.Node) -> None:
        spec = next(s for s in self.exported.graph_signature.input_specs if getattr(s.arg, "name", None) == node.name)
        self.ids[node] = self.next_id
        if spec.kind is InputKind.USER_INPUT:
            if self.input is not None:
                raise NotExportable(Why.SIGNATURE, "more than one input")
            self.input = self.next_id
        else:
            source = {**self.exported.constants, **self.exported.state_dict}
            tensor = source[spec.target or ""]
            if not isinstance(tensor, torch.Tensor):
                raise NotExportable(Why.CUSTOM_OP, "an opaque object is part of the model")
            self.weights.append([self.next_id, self._tensor_name(tensor.detach())])
        self.next_id += 1

    def _tensor_name(self, tensor: torch.Tensor) -> str:
        key = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if key not in self._names:
            self._names[key] = f"w{len(self._names)}"
            self.tensors[self._names[key]] = tensor
        return self._names[key]

    def _call(self, node: torch.fx.Node) -> None:
        if node.target is operator.getitem:
            base = self.ids[node.args[0]]  # type: ignore[index]
            self.ids[node] = base[node.args[1]] if isinstance(base, list) else base  # type: ignore[index]
            return
        if not isinstance(node.target, torch._ops.OpOverload):
            raise NotExportable(Why.CONTROL_FLOW, f"{node.target} is not a tensor operation")
        name = str(node.target)
        if name in _SKIPPED:
            return
        if name == _CPU_FLASH:
            self._public_attention(node)
            return
        if not name.startswith("aten."):
            raise NotExportable(Why.CUSTOM_OP, name)
        value = node.meta.get("val")
        count = len(value) if isinstance(value, tuple | list) else 1
        many = isinstance(value, tuple | list)
        self._append(name, self._encode(list(node.args)), node.kwargs, count)
        self.ids[node] = list(range(self.next_id, self.next_id + count)) if many else self.next_id
        self.next_id += count

    def _public_attention(self, node: torch.fx.Node) -> None:
        """The CPU backend's attention, written as the public operation it implements."""
        q, k, v, *rest = node.args
        causal = rest[1] if len(rest) > 1 else False
        mask, scale = node.kwargs.get("attn_mask"), node.kwargs.get("scale")
        args = self._encode([q, k, v, mask, 0.0, causal])
        self._append(_PUBLIC_ATTENTION, args, {"scale": scale}, 1)
        self.ids[node] = [self.next_id]
        self.next_id += 1

    def _append(self, name: str, args: Any, kwargs: dict[str, Any], outputs: int) -> None:
        entry: dict[str, Any] = {"op": name, "a": args}
        if kwargs:
            entry["k"] = {key: self._encode(value) for key, value in kwargs.items()}
        if outputs > 1:
            entry["n"] = outputs
        self.nodes.append(entry)

    def _output(self, node: torch.fx.Node) -> int:
        results = node.args[0]
        only = results[0] if isinstance(results, tuple | list) and len(results) == 1 else None
        id_ = self.ids.get(only) if isinstance(only, torch.fx.Node) else None
        if not isinstance(id_, int):
            raise NotExportable(Why.SIGNATURE, "forward(idx) must return one tensor of logits")
        return id_

    def _encode(self, value: Any) -> Any:
        if isinstance(value, torch.fx.Node):
            return {"t": self.ids[value]}
        if isinstance(value, float) and not math.isfinite(value):
            return {"f": str(value)}
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, list | tuple):
            return [self._encode(x) for x in value]
        if isinstance(value, torch.dtype):
            return {"d": str(value).removeprefix("torch.")}
        if isinstance(value, torch.device):
            return {"dev": 0}  # the evaluator fills in its own
        if isinstance(value, torch.memory_format):
            return {"mf": str(value).removeprefix("torch.")}
        if isinstance(value, torch.layout):
            return None
        if isinstance(value, torch.SymInt | torch.SymBool | torch.SymFloat):
            raise NotExportable(Why.DATA_DEPENDENT, "a shape depends on data")
        raise NotExportable(Why.UNSUPPORTED_OP, f"argument {type(value).__name__}")


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
