"""One random graph from one seed."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Any

from tests.fuzz_causality import arguments, material
from tests.fuzz_causality.draft import Draft, Sizes, Unfit, Value
from tests.fuzz_causality.pipelines import PIPELINES, Pipeline
from trainer.evaluator.model import ops

_OFTEN = """
    mul.Tensor add.Tensor where.self masked_fill.Scalar matmul.default bmm.default softmax.int _softmax.default
    mul.Scalar scaled_dot_product_attention.default conv1d.default convolution.default view.default transpose.int
    permute.default cat.default slice.Tensor constant_pad_nd.default embedding.default gather.default scatter.src
    scatter_add.default index.Tensor index_select.default tril.default triu.default cumsum.default sort.stable
    topk.default div.Tensor reciprocal.default rsqrt.default pow.Tensor_Scalar isfinite.default eq.Tensor
    _to_copy.default unfold.default exp.default relu.default linear.default layer_norm.default rms_norm.default
    sum.dim_IntList mean.dim gru.input logical_and.default bitwise_and.Tensor copy.default slice_scatter.default
    select_scatter.default baddbmm.default addmm.default complex.default log.default
"""  # where rules have the most to say


@dataclass(frozen=True)
class Focus:
    """What to write graphs of; all there is by default."""

    operations: tuple[str, ...] = ()  # name.overload; empty: every allowed one
    pipelines: tuple[Pipeline, ...] = PIPELINES
    steps: tuple[int, int] = (6, 30)


def names() -> list[str]:
    """Every allowed operation, as name.overload."""
    return [name.removeprefix("aten.") for name in ops.allowed()]


def build(seed: int, focus: Focus | None = None) -> Draft:
    """The graph of a seed; seeds one after another each dwell on another operation."""
    focus = focus or Focus()
    rng = random.Random(seed)
    sizes = _sizes(rng)
    draft = Draft(rng, sizes, material.weights(rng, sizes))
    x = draft.need("embedding.default", draft.named["table"].ref, draft.tokens.ref)
    draft.moving += [x, x]
    draft.emit("_to_copy.default", draft.tokens.ref, dtype=draft.float_type())
    for _ in range(rng.choice((0, 1, 1, 2))):
        _try(draft, rng.choice(focus.pipelines), x)
    goal = len(draft.build.nodes) + rng.randint(*focus.steps)
    dwell = [focus.operations[seed % len(focus.operations)] if focus.operations else names()[seed % len(names())]]
    for tried in range(goal * 6):
        if len(draft.build.nodes) >= goal:
            break
        step(draft, rng.choice(dwell if tried % 6 == 0 else _choices(rng, focus)))
    _finish(draft)
    return draft


def _sizes(rng: random.Random) -> Sizes:
    """Mostly the same, so that shapes meet; sometimes one row, one position, sizes that are alike, or more positions
    than a kernel takes at once."""
    kind = rng.random()
    if kind < 0.75:
        return Sizes(rows=2, seq=6, vocab=16, dim=4)
    if kind < 0.78:
        return Sizes(rows=2, seq=70, vocab=16, dim=8)
    return Sizes(rng.choice((1, 2, 3)), rng.choice((1, 2, 4, 5, 9)), 16, rng.choice((2, 4, 6, 34)))


def _choices(rng: random.Random, focus: Focus) -> list[str]:
    if focus.operations and rng.random() < 0.6:
        return list(focus.operations)
    return _OFTEN.split() if rng.random() < 0.5 else names()


def step(draft: Draft, operation: str) -> list[Value]:
    """Append one operation with random arguments; no value if none suit it."""
    try:
        args, kwargs = arguments.choose(draft, operation)
    except Unfit:
        return []
    return draft.emit(operation, *args, **kwargs)


def _try(draft: Draft, pipeline: Pipeline, x: Value) -> None:
    try:
        pipeline(draft, x)
    except Unfit:
        return


def _finish(draft: Draft) -> None:
    """Append logits, which do not matter here."""
    wide = draft.build.op("_to_copy.default", draft.tokens.ref, dtype={"d": "float32"})
    draft.output = draft.build.logits(wide)


def data(draft: Draft, stray: dict[str, Any] | None = None) -> bytes:
    """A finished graph as bytes, with one more operation at its end."""
    document = json.loads(draft.build.data(draft.output))
    document["nodes"] += [stray] if stray else []
    return json.dumps(document).encode()
