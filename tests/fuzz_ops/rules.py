"""What the evaluator's own rules say of a call. The one place where the campaign meets them."""

from __future__ import annotations

from typing import Any

import torch

from trainer.evaluator.model import graph, ops
from trainer.evaluator.model.arguments import Ref, misfit
from trainer.evaluator.model.traps import trap


def parses(op: torch._ops.OpOverload, args: list[Any], kwargs: dict[str, Any]) -> bool:
    """Whether the parser of graphs takes these arguments."""
    node = graph.Node(op, refs(args), {k: refs(v) for k, v in kwargs.items()}, 0, 1, False, ())
    if misfit(op, node.args, node.kwargs) is not None:
        return False
    pinned = ops.PINNED_ARGUMENTS
    return all(value in pinned[name] for name, value in node.bound().items() if name in pinned)


def forbidden(op: torch._ops.OpOverload, args: list[Any], kwargs: dict[str, Any]) -> bool:
    """Whether a rule made for a known difference between fake and real refuses this call, given tensors."""
    names = [argument.name for argument in op._schema.arguments]
    bound = dict(zip(names, args, strict=False)) | kwargs
    return trap(str(op._schema.name).removeprefix("aten::"), bound) is not None


def refs(value: Any) -> Any:
    """The value as the parser would hold it: references in place of tensors."""
    if isinstance(value, torch.Tensor):
        return Ref(0)
    return [refs(x) for x in value] if isinstance(value, list) else value
