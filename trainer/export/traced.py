"""An exported program's graph, walked in order, operation by operation (lower.py). UNTRUSTED side."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec, OutputKind

from trainer.export.lower import CHECKS, Lowering
from trainer.export.recording import Recording
from trainer.export.refusals import NotExportable, Why


def lower(exported: ExportedProgram) -> Recording:
    """What the program does, in admitted operations; raises NotExportable."""
    out = Recording()
    lowering = Lowering(out, _fake_mode(exported))
    values: dict[torch.fx.Node, Any] = {}
    needed = _needed(exported)
    specs = {getattr(spec.arg, "name", ""): spec for spec in exported.graph_signature.input_specs}
    sources = {**exported.constants, **exported.state_dict}
    _refuse_state(exported, {specs[node.name].target for node in needed if node.op == "placeholder"})
    for node in exported.graph.nodes:
        if node.op == "placeholder":
            values[node] = _placeholder(node, specs[node.name], sources, lowering)
        elif node.op == "get_attr" and node in needed:
            values[node] = operator.attrgetter(node.target)(exported.graph_module)
        elif node.op == "call_function" and node in needed:
            args, kwargs = torch.fx.map_arg((node.args, node.kwargs), lambda n: values[n])
            values[node] = lowering.node(node.target, args, kwargs)
    results = _results(exported)
    only = values.get(results[0]) if len(results) == 1 else None
    if not isinstance(only, torch.Tensor) or not lowering.values.is_known(only):
        raise NotExportable(Why.SIGNATURE, "forward(idx) must return one tensor of logits")
    if lowering.rows.mask(only) is not None:
        raise NotExportable(Why.DATA_DEPENDENT, "a shape depends on data: logits of chosen rows")
    out.output = lowering.values.id_of(only)
    return out


def _results(exported: ExportedProgram) -> list[torch.fx.Node]:
    """What forward returned, without the buffers it wrote: those have served when the logits are there."""
    (output,) = (node for node in exported.graph.nodes if node.op == "output")
    kinds = [spec.kind for spec in exported.graph_signature.output_specs]
    return [node for node, kind in zip(output.args[0], kinds, strict=True) if kind is OutputKind.USER_OUTPUT]


def _needed(exported: ExportedProgram) -> set[torch.fx.Node]:
    """What the results and the checks come of."""
    ahead = [node for node in _results(exported) if isinstance(node, torch.fx.Node)]
    ahead += [node for node in exported.graph.nodes if str(node.target) in CHECKS]
    needed = set[torch.fx.Node]()
    while ahead:
        node = ahead.pop()
        if node not in needed:
            needed.add(node)
            ahead += node.all_input_nodes
    return needed


def _refuse_state(exported: ExportedProgram, read: set[str | None]) -> None:
    """Logits of what forward itself writes are of how often it was called: no one graph says them."""
    signature = exported.graph_signature
    written = {*signature.buffers_to_mutate.values(), *signature.parameters_to_mutate.values()}
    if (written & read) or signature.user_inputs_to_mutate:
        raise NotExportable(Why.MUTATION, "what forward writes reaches the logits")


def _placeholder(node: torch.fx.Node, spec: InputSpec, tensors: dict[str, Any], lowering: Lowering) -> Any:
    fake, out = node.meta.get("val"), lowering.out
    if not isinstance(fake, torch.Tensor):
        raise NotExportable(Why.CUSTOM_OP, "an opaque object is part of the model")
    if spec.kind is InputKind.USER_INPUT:
        if out.input is not None:
            raise NotExportable(Why.SIGNATURE, "more than one input")
        out.input = out.place()
        lowering.values.note(fake, out.input, constant=False)
        return fake
    tensor = tensors[spec.target or ""]
    if not isinstance(tensor, torch.Tensor):
        raise NotExportable(Why.CUSTOM_OP, "an opaque object is part of the model")
    lowering.values.hold(tensor.detach(), fake)
    return fake


def _fake_mode(exported: ExportedProgram) -> FakeTensorMode:
    fakes = [value for node in exported.graph.nodes if isinstance(value := node.meta.get("val"), FakeTensor)]
    if not fakes:
        raise NotExportable(Why.SIGNATURE, "a model without tensors")
    return fakes[0].fake_mode
