"""graph.json as a validated, straight-line list of operations. TRUSTED: reads hostile input.

Format `glovebox-graph/1`:
    input    value id of the token tensor, int64 [rows, seq_len]
    weights  [[value id, tensor name], ...]
    nodes    [{"op": "aten.add.Tensor", "a": [...], "k": {...}, "n": outputs}, ...]; outputs get the next ids
    output   value id of the logits
    checks   ids of operations' outputs that must be true in every pass; may be left out
Arguments: null, bool, int, float, string from a closed list, list, or one of
    {"t": id}  {"f": "inf"|"-inf"|"nan"}  {"d": dtype}  {"dev": 0}  {"mf": memory format}

Nothing is executed here. Every limit is a named constant or a field of Limits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from trainer.evaluator.model import ops
from trainer.evaluator.model.arguments import Ref, misfit
from trainer.wire import strict_json
from trainer.wire.refusal import Reason, Refused

FORMAT = "glovebox-graph/1"
MAX_GRAPH_BYTES = 16 << 20
MAX_NODES = 200_000  # a loop over 2,048 positions takes 10 to 40 for each: parser, dry run and proof are linear
MAX_LIST = 4096
MAX_ARGUMENT_DEPTH = 3
MAX_OUTPUTS = 4096
MAX_VALUES = 400_000
MAX_CHECKS = 256

_DTYPE_NAMES = "float32 bfloat16 float16 float64 int64 int32 int16 int8 uint8 bool complex64"
DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in _DTYPE_NAMES.split()}
MEMORY_FORMATS = {"contiguous_format": torch.contiguous_format, "preserve_format": torch.preserve_format}
STRINGS = frozenset({"none", "tanh", "floor", "trunc", "valid", "same"})


@dataclass(frozen=True, slots=True)
class Node:
    """One operation: outputs get ids first..first+outputs-1; `many` says it returns a sequence."""

    op: torch._ops.OpOverload
    args: list[Any]
    kwargs: dict[str, Any]
    first: int
    outputs: int
    many: bool
    refs: tuple[int, ...]

    @property
    def name(self) -> str:
        """ATen name without namespace and overload, such as `add`."""
        return str(self.op._schema.name).removeprefix("aten::")

    def bound(self) -> dict[str, Any]:
        """Arguments by schema name; those left out are absent."""
        names = [argument.name for argument in self.op._schema.arguments]
        return dict(zip(names, self.args, strict=False)) | self.kwargs

    def run(self, values: dict[int, Any]) -> Iterator[tuple[int, torch.Tensor]]:
        """Apply the operation to `values`; yields (id, tensor) per output."""
        result = self.op(
            *[substitute(x, values) for x in self.args],
            **{k: substitute(v, values) for k, v in self.kwargs.items()},
        )
        results = list(result) if self.many else [result]
        if len(results) != self.outputs or not all(isinstance(x, torch.Tensor) for x in results):
            raise Refused(Reason.BAD_ARGUMENT, f"{self.name} returned an unexpected number of tensors")
        yield from zip(range(self.first, self.first + self.outputs), results, strict=True)


@dataclass(frozen=True)
class Graph:
    """A parsed graph; ids refer only to earlier values, so execution order is the list order."""

    input: int
    weights: dict[int, str]
    nodes: list[Node]
    output: int
    checks: tuple[int, ...] = ()


def substitute(argument: Any, values: dict[int, Any]) -> Any:
    """The argument with every Ref replaced by its value."""
    if isinstance(argument, Ref):
        return values[argument.id]
    if isinstance(argument, list):
        return [substitute(x, values) for x in argument]
    return argument


def parse(data: bytes, device: torch.device) -> Graph:
    """Validate the bytes of graph.json; raises Refused."""
    if len(data) > MAX_GRAPH_BYTES:
        raise Refused(Reason.GRAPH_LIMIT, f"a graph of {len(data)} bytes, at most {MAX_GRAPH_BYTES} are admitted")
    try:
        raw = strict_json.loads(data, max_bytes=MAX_GRAPH_BYTES)
    except strict_json.StrictJsonError as error:
        raise Refused(Reason.GRAPH_FORMAT, error.reason) from None
    if not isinstance(raw, dict) or set(raw) - {"checks"} != {"format", "input", "weights", "nodes", "output"}:
        raise Refused(Reason.GRAPH_FORMAT, "top-level keys")
    if raw["format"] != FORMAT or not isinstance(raw["nodes"], list) or not isinstance(raw["weights"], list):
        raise Refused(Reason.GRAPH_FORMAT, "format")
    if len(raw["nodes"]) > MAX_NODES or len(raw["weights"]) > MAX_NODES:
        count = max(len(raw["nodes"]), len(raw["weights"]))
        raise Refused(Reason.GRAPH_LIMIT, f"a graph of {count} operations, at most {MAX_NODES} are admitted")
    weights = _weights(raw["weights"], raw["input"])
    next_id, nodes = len(weights) + 1, []
    for entry in raw["nodes"]:
        node = _node(entry, next_id, device)
        next_id += node.outputs
        if next_id > MAX_VALUES:
            raise Refused(Reason.GRAPH_LIMIT, f"a graph of more than {MAX_VALUES} values")
        nodes.append(node)
    output = raw["output"]
    if type(output) is not int or not 0 <= output < next_id:
        raise Refused(Reason.GRAPH_FORMAT, "output id")
    checks = raw.get("checks", [])
    if not isinstance(checks, list) or len(checks) > MAX_CHECKS:
        raise Refused(Reason.GRAPH_LIMIT, "checks")
    computed = range(len(weights) + 1, next_id)  # of operations: what is there from the start is looked at by nobody
    if not all(type(id_) is int and id_ in computed for id_ in checks):
        raise Refused(Reason.GRAPH_FORMAT, "check id")
    return Graph(raw["input"], weights, nodes, output, tuple(sorted(set(checks))))


def _weights(table: list[Any], input_id: Any) -> dict[int, str]:
    count = len(table) + 1
    out: dict[int, str] = {}
    if type(input_id) is not int or not 0 <= input_id < count:
        raise Refused(Reason.GRAPH_FORMAT, "input id")
    for entry in table:
        if not isinstance(entry, list) or len(entry) != 2:
            raise Refused(Reason.GRAPH_FORMAT, "weight entry")
        id_, name = entry
        if type(id_) is not int or not isinstance(name, str) or not 0 <= id_ < count or id_ in out or id_ == input_id:
            raise Refused(Reason.GRAPH_FORMAT, "weight entry")
        out[id_] = name
    return out


def _node(entry: Any, next_id: int, device: torch.device) -> Node:
    if not isinstance(entry, dict) or not {"op", "a"} <= set(entry) <= {"op", "a", "k", "n"}:
        raise Refused(Reason.GRAPH_FORMAT, "node keys")
    op = ops.allowed().get(entry["op"]) if isinstance(entry["op"], str) else None
    if op is None:
        raise Refused(Reason.OP_NOT_ALLOWED, repr(entry["op"])[:100])
    refs: list[int] = []
    args, keywords = entry["a"], entry.get("k", {})
    if not isinstance(args, list) or not isinstance(keywords, dict):
        raise Refused(Reason.GRAPH_FORMAT, "node arguments")
    schema = op._schema
    if len(args) > len(schema.arguments) or not set(keywords) <= {x.name for x in schema.arguments}:
        raise Refused(Reason.BAD_ARGUMENT, f"{schema.name} arguments")
    many = len(schema.returns) != 1 or str(schema.returns[0].type) != "Tensor"
    outputs = entry.get("n", 1)
    if type(outputs) is not int or not 1 <= outputs <= (MAX_OUTPUTS if many else 1):
        raise Refused(Reason.GRAPH_LIMIT, "outputs")
    node = Node(
        op,
        [_argument(x, next_id, device, refs, 0) for x in args],
        {k: _argument(v, next_id, device, refs, 0) for k, v in keywords.items()},
        next_id,
        outputs,
        many,
        tuple(refs),
    )
    wrong = misfit(op, node.args, node.kwargs)
    if wrong is not None:
        raise Refused(Reason.BAD_ARGUMENT, f"{schema.name} {wrong}")
    for name, value in node.bound().items():
        if name in ops.PINNED_ARGUMENTS and value not in ops.PINNED_ARGUMENTS[name]:
            raise Refused(Reason.BAD_ARGUMENT, f"{schema.name} {name}")
    return node


def _argument(value: Any, next_id: int, device: torch.device, refs: list[int], depth: int) -> Any:
    if depth > MAX_ARGUMENT_DEPTH:
        raise Refused(Reason.GRAPH_LIMIT, "argument nesting")
    if value is None or type(value) in (bool, int, float):
        return value
    if type(value) is str and value in STRINGS:
        return value
    if type(value) is list and len(value) <= MAX_LIST:
        return [_argument(x, next_id, device, refs, depth + 1) for x in value]
    if type(value) is dict and len(value) == 1:
        ((kind, inner),) = value.items()
        if kind == "t" and type(inner) is int and 0 <= inner < next_id:
            refs.append(inner)
            return Ref(inner)
        if kind == "f" and inner in ("inf", "-inf", "nan"):
            return float(inner)
        if kind == "d" and isinstance(inner, str) and inner in DTYPES:
            return DTYPES[inner]
        if kind == "dev" and inner == 0:
            return device
        if kind == "mf" and isinstance(inner, str) and inner in MEMORY_FORMATS:
            return MEMORY_FORMATS[inner]
    raise Refused(Reason.BAD_ARGUMENT, "argument of an unknown kind")
