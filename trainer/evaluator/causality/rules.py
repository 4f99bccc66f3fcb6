"""One rule per operation: what its result may depend on. TRUSTED.

A rule returns the abstract results, or None when it cannot say; None, a rule that fails on the labels as the operation
would on values, and every operation without a rule are treated as "each element may depend on every element of every
input", which is always sound.
"""

from __future__ import annotations

import torch

from trainer.evaluator.causality import contractions, indexing, movement, pointwise, reductions
from trainer.evaluator.causality.abstract import LABEL, Abstract
from trainer.evaluator.causality.context import Context
from trainer.evaluator.causality.obligations import Kind
from trainer.evaluator.model.kernels import CONTRACTIONS

RULES = movement.RULES | pointwise.RULES | reductions.RULES | indexing.RULES | contractions.RULES

# Complex operations that cannot see the sign of a zero in a real or imaginary part: products and sums. Others (square
# roots, logarithms, divisions) have branch cuts along the axes.
_PRODUCTS = frozenset({"mul", "mm", "bmm", "matmul", "addmm", "baddbmm", "linear"})
_BLIND_TO_SIGNS = frozenset(movement.RULES) | _PRODUCTS | {"complex", "polar", "_conj", "add", "sub", "neg", "sum"}


def apply(c: Context) -> list[Abstract] | None:
    """The rule's answer, None where there is no rule or it cannot say."""
    if c.node.name in CONTRACTIONS:
        _separate(c)
    rule = RULES.get(c.node.name)
    empty = 0 in {size for shape in (*c.shapes, *(x.shape for x in c.inputs)) for size in shape}
    if empty and c.node.name not in movement.RULES:
        return None  # there is no largest of no labels
    if rule is None or (c.node.name not in pointwise.RULES and _has_number_for_tensor(c)):
        return None
    if c.node.name not in _BLIND_TO_SIGNS and any(d.is_complex for d in (*c.dtypes, *(x.dtype for x in c.inputs))):
        c.require_no_signed_zero(*c.inputs)
    try:
        return rule(c)
    except (RuntimeError, IndexError):  # labels do not fit: neither would the values, or shapes are not as inferred
        return None


def _separate(c: Context) -> None:
    """Operands a kernel multiplies across elements are finite, constants too; those of attention bounded, so that
    every product inside it is."""
    if c.node.name != "scaled_dot_product_attention":
        # A complex product may add parts before it multiplies (three products in place of four).
        wide = any(x.dtype.is_complex for x in c.inputs)
        c.require(Kind.BOUNDED if wide else Kind.FINITE, *c.inputs)
        return
    c.require(Kind.BOUNDED, c.args["query"], c.args["key"])
    c.require(Kind.FINITE, c.args["value"])
    c.require(Kind.MASK, c.args.get("attn_mask"))


def _has_number_for_tensor(c: Context) -> bool:
    kinds = {a.name: str(a.real_type) for a in c.node.op._schema.arguments}
    return any(kinds[name] == "Tensor" and not isinstance(value, Abstract) for name, value in c.args.items())


def mix(c: Context) -> list[Abstract]:
    """Every element may depend on everything: sound for any function of the inputs."""
    top = max((int(x.dep.max()) for x in c.inputs if x.dep.numel()), default=-1)
    c.require_no_signed_zero(*c.inputs)
    return [c.result(torch.full((), top, dtype=LABEL), at) for at in range(len(c.shapes))]
