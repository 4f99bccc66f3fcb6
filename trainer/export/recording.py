"""Operations as they are recorded, and the document they become: graph.json and its tensors. UNTRUSTED side.

The format is the evaluator's (trainer/evaluator/model/graph.py). What is recorded refers to values by number; what
nothing reads is left out, and the rest is numbered again: weights first, then the outputs of operations in order.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Any

import torch

from trainer.evaluator.model import graph as wire
from trainer.evaluator.model.arguments import Ref
from trainer.export.refusals import NotExportable, Why


@dataclass
class Recording:
    """A straight line of operations over tensors that are there from the start."""

    tensors: dict[int, torch.Tensor] = field(default_factory=dict)
    operations: list[wire.Node] = field(default_factory=list)
    input: int | None = None
    output: int | None = None
    checks: list[int] = field(default_factory=list)  # what must be true, or this is another forward
    size: int = 0  # values so far

    def add(
        self, op: torch._ops.OpOverload, args: list[Any], kwargs: dict[str, Any], outputs: int, many: bool
    ) -> wire.Node:
        """Append an operation."""
        operation = wire.Node(op, args, kwargs, self.size, outputs, many, tuple(_refs([args, list(kwargs.values())])))
        self.operations.append(operation)
        self.size += outputs
        return operation

    def hold(self, tensor: torch.Tensor) -> int:
        """Id of a tensor that is there from the start."""
        id_ = self.place()
        self.tensors[id_] = tensor
        return id_

    def place(self) -> int:
        """The id of one more value."""
        self.size += 1
        return self.size - 1

    def made(self, id_: int) -> wire.Node:
        """The operation whose output this is."""
        return self.operations[bisect_right(self.operations, id_, key=lambda operation: operation.first) - 1]

    def document(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """(graph document, tensors by name); raises NotExportable where an argument has no word in the format."""
        if self.input is None or self.output is None:
            raise NotExportable(Why.SIGNATURE, "forward(idx) must take one tensor and return one tensor of logits")
        kept = self._reachable()
        read = self._read_by(kept)
        ids, names, tensors = {self.input: 0}, dict[Any, str](), dict[str, torch.Tensor]()
        weights: list[list[int | str]] = []
        for id_, tensor in self.tensors.items():
            if id_ in read:
                key = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
                name = names.setdefault(key, f"w{len(names)}")
                tensors[name] = tensor
                ids[id_] = len(ids)
                weights.append([ids[id_], name])
        nodes = []
        for operation in kept:
            nodes.append(_entry(operation, ids))
            for at in range(operation.outputs):
                ids[operation.first + at] = len(ids)
        document = {"format": wire.FORMAT, "input": 0, "weights": weights, "nodes": nodes, "output": ids[self.output]}
        if self.checks:
            document["checks"] = sorted({ids[id_] for id_ in self.checks})
        return document, tensors

    def read(self) -> set[int]:
        """The values that the logits and the checks come of."""
        return self._read_by(self._reachable())

    def _read_by(self, operations: list[wire.Node]) -> set[int]:
        return self._roots().union(*(operation.refs for operation in operations))

    def _roots(self) -> set[int]:
        return {id_ for id_ in (self.output, *self.checks) if id_ is not None}

    def _reachable(self) -> list[wire.Node]:
        needed, kept = self._roots(), list[wire.Node]()
        for operation in reversed(self.operations):
            if not needed.isdisjoint(range(operation.first, operation.first + operation.outputs)):
                kept.append(operation)
                needed.update(operation.refs)
        return kept[::-1]


def _entry(operation: wire.Node, ids: dict[int, int]) -> dict[str, Any]:
    entry: dict[str, Any] = {"op": str(operation.op), "a": encode(operation.args, ids)}
    if operation.kwargs:
        entry["k"] = {key: encode(value, ids) for key, value in operation.kwargs.items()}
    if operation.outputs > 1:
        entry["n"] = operation.outputs
    return entry


_BY_DTYPE = {dtype: name for name, dtype in wire.DTYPES.items()}


def encode(value: Any, ids: dict[int, int] | None = None) -> Any:
    """An argument in the words of the format; raises NotExportable if it has none for it."""
    if isinstance(value, Ref):
        return {"t": value.id if ids is None else ids[value.id]}
    if isinstance(value, float) and not math.isfinite(value):
        return {"f": str(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [encode(x, ids) for x in value]
    if isinstance(value, torch.dtype) and value in _BY_DTYPE:
        return {"d": _BY_DTYPE[value]}
    if isinstance(value, torch.device):
        return {"dev": 0}  # the evaluator fills in its own
    if isinstance(value, torch.memory_format) and value in wire.MEMORY_FORMATS.values():
        return {"mf": str(value).removeprefix("torch.")}
    if isinstance(value, torch.layout):
        return None
    if isinstance(value, torch.SymInt | torch.SymBool | torch.SymFloat):
        raise NotExportable(Why.DATA_DEPENDENT, "a shape depends on data")
    raise NotExportable(Why.UNSUPPORTED_OP, f"argument {value if isinstance(value, torch.dtype) else type(value)}")


def _refs(value: Any) -> list[int]:
    if isinstance(value, Ref):
        return [value.id]
    return [found for x in value for found in _refs(x)] if isinstance(value, list) else []
