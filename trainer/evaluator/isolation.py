"""Do this machine's kernels keep elements apart? Rows are poisoned, and no other row may move a bit. TRUSTED.

    python -m trainer.evaluator.isolation SEED SECONDS

oneDNN's AMX product of bfloat16 loads the end of a row from the next one (uxlfoundation/oneDNN 5717): with inf there,
this row is NaN. What one library, version and processor does says nothing of another, so this is run on the user's own
(`glovebox doctor --kernels`), with the settings and the detours of a real evaluation (kernels.py). Every kind of
operation whose kernel walks over several elements is called with random shapes around the widths of registers and
tiles, twice: as it is, and with inf, NaN, the largest numbers or noise in the rows from a random one on. Rows before
it must be the same, bit for bit. And twice as slices of larger tensors, with zeros and with ones around them: whatever
lies beyond an operand may not show (a kernel of attention read past the end of its keys). Prints one JSON object.
"""

from __future__ import annotations

import json
import math
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainer.evaluator.model import kernels, ops
from trainer.evaluator.model.arguments import Ref
from trainer.evaluator.model.graph import Node

SIZES = (1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 127, 128, 200)
POISONS = (math.inf, -math.inf, math.nan, 3e38, -3e38, 1e30, 1e-40, 65504.0)
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
MAX_COUPLED = 20  # examples told


@dataclass(frozen=True)
class Case:
    """An operation on values, of which `poisoned` are; earlier rows of the result may not depend on later ones."""

    kind: str
    op: str
    args: list[Any]  # int: the value of that number
    kwargs: dict[str, Any]
    values: list[Tensor]
    poisoned: dict[int, int]  # value -> its dimension of rows
    out: int  # the result's dimension of rows
    reach: int = 0  # rows after its own that a row of the result reads
    bounded: bool = False  # its operands are obliged to be: a hidden key is multiplied by an exact zero

    def run(self, values: list[Tensor]) -> Tensor:
        """The first result, by the way a scored pass goes."""
        op = ops.allowed()[f"aten.{self.op}"]
        schema = op._schema.returns
        many = len(schema) != 1 or str(schema[0].type) != "Tensor"
        outputs = len(schema) if many else 1
        args, kwargs = _refer(self.args), {k: _refer(v) for k, v in self.kwargs.items()}
        node = Node(op, args, kwargs, len(values), outputs, many, tuple(range(len(values))))
        return kernels.run(node, dict(enumerate(values)))[0][1]


class _Value(int):
    """Number of a value among a case's arguments."""


def _refer(argument: Any) -> Any:
    if isinstance(argument, _Value):
        return Ref(int(argument))
    return [_refer(x) for x in argument] if isinstance(argument, list) else argument


class Maker:
    """Random cases on one device."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self.chance = random.Random(seed)  # noqa: S311 - shapes to try, no secret
        self.numbers = torch.Generator().manual_seed(seed)
        self.device = device

    def case(self) -> Case:
        """One case of a kind drawn at random."""
        make = self.chance.choice(KINDS)
        dtype = self.chance.choice(DTYPES if make is not _gru else DTYPES[:1])
        return make(self, dtype)

    def size(self) -> int:
        return self.chance.choice(SIZES)

    def noise(self, *shape: int, dtype: torch.dtype) -> Tensor:
        return torch.randn(*shape, generator=self.numbers).to(dtype).to(self.device)

    def poison(self, value: Tensor, dim: int, at: int, bounded: bool) -> Tensor:
        """A copy with something bad in some of the places from row `at` on; `bounded`: finite, below 1e15."""
        out = value.clone()
        rows = out.narrow(dim, at, out.shape[dim] - at)
        share = self.chance.choice((0.05, 0.5, 1.0))
        where = (torch.rand(rows.shape, generator=self.numbers) < share).to(self.device)
        if self.chance.random() < 0.7 and not bounded:
            bad = torch.full(rows.shape, self.chance.choice(POISONS), dtype=torch.float64, device=rows.device)
        else:
            scale = 100.0 if rows.dtype is torch.float16 else self.chance.choice((1.0, 1e4, 1e14 if bounded else 1e20))
            bad = self.noise(*rows.shape, dtype=torch.float64) * scale
        rows.copy_(torch.where(where, bad.to(rows.dtype), rows))
        return out


def surrounded(value: Tensor, fill: bool) -> Tensor:
    """The same as a slice of a larger tensor full of zeros or ones."""
    larger = torch.full([size + 2 for size in value.shape], fill, dtype=torch.bool, device=value.device)
    out = larger.to(value.dtype)[tuple(slice(1, size + 1) for size in value.shape)]
    return out.copy_(value)


def _linear(m: Maker, dtype: torch.dtype) -> Case:
    rows, k, n = m.size(), m.size(), m.size()
    values = [m.noise(2, rows, k, dtype=dtype), m.noise(n, k, dtype=dtype), m.noise(n, dtype=dtype)]
    return Case("linear", "linear.default", [_Value(0), _Value(1), _Value(2)], {}, values, {0: 1}, 1)


def _rows_of_a_product(m: Maker, dtype: torch.dtype) -> Case:
    rows, k, n = m.size(), m.size(), m.size()
    a, b = m.noise(rows, k, dtype=dtype), m.noise(k, n, dtype=dtype)
    if m.chance.random() < 0.5:
        a = m.noise(k, rows, dtype=dtype).T
    return Case("mm rows", "mm.default", [_Value(0), _Value(1)], {}, [a, b], {0: 0}, 0)


def _columns_of_a_product(m: Maker, dtype: torch.dtype) -> Case:
    rows, k, n = m.size(), m.size(), m.size()
    values = [m.noise(2, n, k, dtype=dtype), m.noise(2, k, rows, dtype=dtype)]
    return Case("bmm columns", "bmm.default", [_Value(0), _Value(1)], {}, values, {1: 2}, 2)


def _batched_product(m: Maker, dtype: torch.dtype) -> Case:
    rows, k, n = m.size(), m.size(), m.size()
    values = [m.noise(2, rows, k, dtype=dtype), m.noise(2, n, k, dtype=dtype).mT]
    return Case("bmm rows", "bmm.default", [_Value(0), _Value(1)], {}, values, {0: 1}, 1)


def _convolution(m: Maker, dtype: torch.dtype) -> Case:
    rows, channels, taps, dilation = m.size(), m.chance.choice((1, 2, 8, 16, 32)), m.chance.randint(1, 5), 1
    groups = channels if m.chance.random() < 0.5 else 1
    n = channels if groups > 1 else m.size()
    x = m.noise(m.chance.choice((2, 16, 33)), channels, rows + taps - 1, dtype=dtype)  # NNPACK begins at 16
    weight = m.noise(n, channels // groups, taps, dtype=dtype)
    return Case(
        "conv1d depthwise" if groups > 1 else "conv1d",
        "conv1d.default",
        [_Value(0), _Value(1), None, [1], [0], [dilation], groups],
        {},
        [x, weight],
        {0: 2},
        2,
        reach=taps - 1,
    )


def _attention(m: Maker, dtype: torch.dtype) -> Case:
    rows, dim = m.size(), m.chance.choice((1, 2, 8, 16, 32, 33, 64))
    q, k, v = (m.noise(2, 2, rows, dim, dtype=dtype) for _ in range(3))
    args: list[Any] = [_Value(0), _Value(1), _Value(2)]
    later = {0: 2, 1: 2, 2: 2}
    kind = m.chance.choice(("causal", "boolean mask", "additive mask"))
    if kind == "causal":
        return Case(f"attention {kind}", _SDPA, [*args, None, 0.0, True], {}, [q, k, v], later, 2, bounded=True)
    mask = torch.ones(rows, rows, dtype=torch.bool, device=m.device).tril()
    if kind == "additive mask":
        mask = torch.zeros(rows, rows, device=m.device).masked_fill(~mask, -math.inf).to(dtype)
    return Case(f"attention {kind}", _SDPA, [*args, _Value(3)], {}, [q, k, v, mask], later, 2, bounded=True)


_SDPA = "scaled_dot_product_attention.default"


def _gru(m: Maker, dtype: torch.dtype) -> Case:
    rows, hidden, width = min(m.size(), 40), m.chance.choice((1, 4, 8, 16)), m.chance.choice((1, 4, 9, 16))
    shapes = ((3 * hidden, width), (3 * hidden, hidden), (3 * hidden,), (3 * hidden,))
    values = [m.noise(2, rows, width, dtype=dtype), torch.zeros(1, 2, hidden, device=m.device)]
    values += [m.noise(*shape, dtype=dtype) for shape in shapes]
    weights = [_Value(at) for at in range(2, 6)]
    args = [_Value(0), _Value(1), weights, True, 1, 0.0, False, False, True]
    return Case("gru", "gru.input", args, {}, values, {0: 1}, 1)


def _over_features(op: str, *rest: Any) -> Callable[[Maker, torch.dtype], Case]:
    def make(m: Maker, dtype: torch.dtype) -> Case:
        x = m.noise(2, m.size(), m.size(), dtype=dtype)
        told = [[x.shape[-1]] if one is _WIDTH else one for one in rest]
        return Case(op.partition(".")[0], op, [_Value(0), *told], {}, [x], {0: 1}, 1)

    return make


def _across(op: str, *rest: Any, kwargs: dict[str, Any] | None = None) -> Callable[[Maker, torch.dtype], Case]:
    """Reductions over the middle of [2, features, rows]."""
    name = op.partition(".")[0]

    def make(m: Maker, dtype: torch.dtype) -> Case:
        x = m.noise(2, m.size(), m.size(), dtype=dtype)
        return Case(name + " in the middle", op, [_Value(0), *rest], kwargs or {}, [x], {0: 2}, -1)

    return make


_WIDTH = object()
KINDS: tuple[Callable[[Maker, torch.dtype], Case], ...] = (
    *(_linear, _linear, _rows_of_a_product, _columns_of_a_product, _batched_product),
    *(_convolution, _convolution, _attention, _attention, _gru),
    *(_over_features("_softmax.default", -1, False), _over_features("_log_softmax.default", -1, False)),
    *(_over_features("layer_norm.default", _WIDTH), _over_features("rms_norm.default", _WIDTH)),
    *(_over_features("cumsum.default", 1), _over_features("cumprod.default", 1)),
    *(_over_features("logcumsumexp.default", 1), _over_features("sort.default", -1)),
    *(_over_features("sin.default"), _over_features("cos.default"), _over_features("tanh.default")),
    *(_over_features("exp.default"), _over_features("erf.default"), _over_features("gelu.default")),
    *(_across("sum.dim_IntList", [1]), _across("mean.dim", [1]), _across("amax.default", [1])),
    *(_across("logsumexp.default", [1]), _across("argmax.default", 1), _across("_softmax.default", 1, False)),
    *(_across("var.correction", [1], kwargs={"correction": 0}), _across("linalg_vector_norm.default", 2, [1])),
)


def examine(seed: int, seconds: float, device: torch.device, make: Callable[[Maker], Case] = Maker.case) -> Any:
    """Run cases for so long; {"cases", "kinds", "refused", "coupled": examples, "seconds"}."""
    maker, began = Maker(seed, device), time.monotonic()
    count, coupled, refused = Counter[str](), list[dict[str, Any]](), 0
    with torch.no_grad():
        while time.monotonic() - began < seconds:
            case = make(maker)
            first, dim = next(iter(case.poisoned.items()))
            at = maker.chance.randrange(case.values[first].shape[dim])
            changed = [
                maker.poison(value, case.poisoned[i], at, case.bounded) if i in case.poisoned else value
                for i, value in enumerate(case.values)
            ]
            try:
                before, after = case.run(case.values), case.run(changed)
                inside = [case.run([surrounded(value, fill) for value in case.values]) for fill in (False, True)]
            except RuntimeError:  # no kernel for this type on this device
                refused += 1
                continue
            count[f"{case.kind} {str(case.values[0].dtype).removeprefix('torch.')}"] += 1
            rows = max(0, min(at - case.reach, before.shape[case.out]))
            apart = _same(before.narrow(case.out, 0, rows), after.narrow(case.out, 0, rows))
            if not (apart and _same(*inside)):
                shapes = [list(value.shape) for value in case.values]
                coupled.append({"kind": case.kind, "dtype": str(case.values[0].dtype), "shapes": shapes, "row": at})
    return {
        "cases": count.total(),
        "kinds": dict(sorted(count.items())),
        "refused": refused,
        "coupled": coupled[:MAX_COUPLED],
        "seconds": round(time.monotonic() - began, 1),
    }


def _same(a: Tensor, b: Tensor) -> bool:
    return bool(((a == b) | (torch.isnan(a) & torch.isnan(b))).all()) if a.is_floating_point() else torch.equal(a, b)


def main(argv: list[str]) -> int:
    """Examine this machine and print what was found; returns 0 if nothing is coupled."""
    kernels.settle()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = examine(int(argv[1]), float(argv[2]), device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    print(json.dumps({**found, "torch": torch.__version__, "device": f"{device.type} {name}"}))
    return 1 if found["coupled"] or not found["cases"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
