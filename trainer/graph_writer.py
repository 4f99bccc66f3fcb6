"""An exported program as our graph document: ATen nodes by name, values by number. UNTRUSTED side.

The format is the evaluator's (trainer/evaluator/model/graph.py); only plain tensor operations can be written down.
"""

from __future__ import annotations

import math
import operator
from enum import StrEnum
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from trainer.evaluator.model import graph as wire

_SKIPPED = frozenset({"aten._assert_tensor_metadata.default", "aten._assert_scalar.default"})
# Attention as its backends call it, on CPUs and GPUs: all written as the public operation that they implement.
_ATTENTIONS = frozenset(
    f"aten._scaled_dot_product_{backend}.default"
    for backend in (
        *("attention_math", "flash_attention", "flash_attention_for_cpu", "efficient_attention"),
        *("cudnn_attention", "fused_attention_overrideable"),
    )
)
_PUBLIC_ATTENTION = "aten.scaled_dot_product_attention.default"
_FUSED_NORM, _PUBLIC_NORM = "aten._fused_rms_norm.default", "aten.rms_norm.default"
_NEVER = -1  # id of what a backend returns besides: nothing that is handed over reads it


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


def serialise(exported: ExportedProgram) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """(graph document, tensors by name) of an exported program; raises NotExportable."""
    signature = exported.graph_signature
    if signature.buffers_to_mutate or signature.user_inputs_to_mutate:
        raise NotExportable(Why.MUTATION, "forward writes to a buffer or an input")
    return _Writer(exported).document()


def _means_otherwise(name: str, given: dict[str, Any], mask: Any) -> bool:
    """Whether a backend's kernel, called by hand, says something else with the same words.

    The plain one adds a boolean mask as 0 and 1; flash kernels align a causal mask of unequal lengths at the end.
    """
    of_booleans = isinstance(mask, torch.fx.Node) and mask.meta["val"].dtype is torch.bool
    lengths = {given[key].meta["val"].shape[-2] for key in ("query", "key")}
    unequal = "flash_attention.default" in name and bool(given.get("is_causal")) and len(lengths) > 1
    return ("_math" in name and of_booleans) or unequal


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
            base, at = self.ids[node.args[0]], node.args[1]  # type: ignore[index]
            self.ids[node] = (base[at] if at < len(base) else _NEVER) if isinstance(base, list) else base  # type: ignore[index, operator]
            return
        if not isinstance(node.target, torch._ops.OpOverload):
            raise NotExportable(Why.CONTROL_FLOW, f"{node.target} is not a tensor operation")
        name = str(node.target)
        if name in _SKIPPED:
            return
        if name in _ATTENTIONS:
            self._public_attention(node)
            return
        if name == _FUSED_NORM:
            self._instead(node, _PUBLIC_NORM, list(node.args), node.kwargs)
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
        names = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]
        given = dict(zip(names, node.args, strict=False)) | node.kwargs
        if given.get("dropout_p", 0.0) or given.get("dropout_mask") is not None:
            raise NotExportable(Why.UNSUPPORTED_OP, "attention with dropout")
        mask = given.get("attn_mask", given.get("attn_bias"))
        if _means_otherwise(str(node.target), given, mask):
            raise NotExportable(Why.UNSUPPORTED_OP, f"{node.target} called as the public operation never calls it")
        args = [*(given[name] for name in ("query", "key", "value")), mask, 0.0, given.get("is_causal", False)]
        heads = {given[key].meta["val"].shape[-3] for key in ("query", "key") if given[key].meta["val"].dim() > 3}
        grouped = (
            {"enable_gqa": True} if given.get("enable_gqa") or len(heads) > 1 else {}
        )  # backends have no word for it
        self._instead(node, _PUBLIC_ATTENTION, args, {"scale": given.get("scale"), **grouped})

    def _instead(self, node: torch.fx.Node, name: str, args: list[Any], kwargs: dict[str, Any]) -> None:
        """One public operation, whose result is the first of what the backend's returns."""
        self._append(name, self._encode(args), kwargs, 1)
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
