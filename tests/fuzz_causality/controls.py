"""Rules broken on purpose, each with the graphs in which that must show within GRAPHS of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import torch

from tests.fuzz_causality import pipelines
from tests.fuzz_causality.check import Outcome, examine
from tests.fuzz_causality.generate import Focus
from tests.fuzz_causality.pipelines import Pipeline
from trainer.evaluator.causality import contractions, pointwise, reductions, rules
from trainer.evaluator.causality.abstract import LABEL, Abstract, either, join, reduce
from trainer.evaluator.causality.context import Context, Rule
from trainer.evaluator.causality.obligations import Kind, Obligations
from trainer.evaluator.model import program
from trainer.evaluator.model.program import Program

GRAPHS = 120  # until each must be found; most are within ten


@dataclass(frozen=True)
class Control:
    """What to break, and where to look."""

    broken: Callable[[], AbstractContextManager[Any]]
    focus: Focus
    finding: str  # how the line that reports it begins


def search(control: Control) -> Outcome:
    """What the first graph that shows the broken rule says; nothing found if none of GRAPHS does."""
    out = Outcome()
    with control.broken():
        for seed in range(GRAPHS):
            out.add(examine(seed, control.focus))
            if any(line.startswith(control.finding) for line in out.lines):
                break
    return out


def _focus(operations: str, *used: Pipeline, steps: tuple[int, int] = (3, 8)) -> Focus:
    return Focus(tuple(operations.split()), used or pipelines.PIPELINES, steps)


def _replaced(names: str, rule: Rule) -> Callable[[], AbstractContextManager[Any]]:
    return lambda: patch.dict(rules.RULES, dict.fromkeys(names.split(), rule))


def _in_place(c: Context) -> list[Abstract]:
    """Every element depends on the one at its place of the first operand alone."""
    return [c.result(c.inputs[0].dep, at) for at in range(len(c.shapes))]


def _left_only(c: Context) -> list[Abstract] | None:
    a, b = c.inputs[:2]
    if a.dep.dim() < 2 or b.dep.dim() < 2 or a.dep.dim() != len(c.shapes[0]):
        return None
    return [c.result(reduce(a.dep, [a.dep.dim() - 1]))]


def _without_condition(c: Context) -> list[Abstract]:
    return [c.result(join(c.shapes[0], *(x.dep for x in c.inputs if x is not c.args["condition"])))]


def _without_index(c: Context) -> list[Abstract] | None:
    x = c.args["self"]
    return [c.result(reduce(x.dep, [c.args["dim"]]))] if x.shape == torch.Size(c.shapes[0]) else None


def _one_less(c: Context) -> list[Abstract] | None:
    found = contractions.RULES["conv1d"](c)
    return found and [c.result((x.dep - 1).clamp(-1)) for x in found]


def _always_causal(c: Context) -> list[Abstract] | None:
    c.args["is_causal"] = True
    return contractions.RULES["scaled_dot_product_attention"](c)


def _keeps_minimum(c: Context) -> list[Abstract]:
    x = c.args["self"]
    return [c.result(x.dep, neginf=x.known_neginf())]


def _depends_on_nothing(c: Context) -> list[Abstract]:
    return [c.result(torch.full((), -1, dtype=LABEL), at) for at in range(len(c.shapes))]


def _raises(c: Context) -> list[Abstract]:
    raise AssertionError("a rule raised")


_REQUIRE = Obligations.require


def _forgetting(forgotten: Kind) -> AbstractContextManager[Any]:
    def require(self: Obligations, id_: int, kind: Kind, const: torch.Tensor | None) -> None:
        if kind is not forgotten:
            _REQUIRE(self, id_, kind, const)

    return patch.object(Obligations, "require", require)


@contextmanager
def _shapes_unseen() -> Iterator[None]:
    """As it was when a score was forged: the dry run is believed, the known trap included."""
    with patch.object(Program, "_same", lambda *_: None), patch.object(program, "_refuse_traps", lambda *_: None):
        yield


def _half_zero(self: Abstract) -> torch.Tensor | None:
    """A number without a real part is not nothing."""
    if self.const is not None and self.const.is_complex():
        return self.const.real == 0
    return _KNOWN_ZERO(self)


def _any_will_do(mask: torch.Tensor | None, dims: list[int]) -> torch.Tensor | None:
    """A sum is zero if one of its terms is."""
    return mask if mask is None or not dims else mask.any(dims, keepdim=True)


_SUM = rules.RULES["add"]


def _no_imaginary_part(c: Context) -> list[Abstract] | None:
    """Minus infinity plus a complex number, as if that were a real one (believed until November 2026)."""
    return _SUM(replace(c, dtypes=[torch.float32])) if c.dtypes[0].is_complex else _SUM(c)


def _first_head(c: Context) -> list[Abstract] | None:
    """What one head sees is what each sees."""
    found = contractions.RULES["scaled_dot_product_attention"](c)
    return found and [c.result(found[0].dep[:, :1])]


def _any_term(za: torch.Tensor, zb: torch.Tensor) -> torch.Tensor:
    """One known zero on the way makes the whole product one."""
    return torch.matmul(za.float(), zb.float()) > 0


def _zero_whatever(c: Context) -> list[Abstract]:
    x = c.inputs[0]
    return [c.result(x.dep, zero=x.known_zero())]


def _either_will_do(c: Context) -> list[Abstract]:
    with patch.object(pointwise, "both", either):
        return _OR(c)


def _signless(c: Context, b: Any) -> bool:
    """Whatever is added or taken away that is no number other than zero."""
    return isinstance(b, float) and b == 0


_OR = rules.RULES["logical_or"]
_KNOWN_ZERO = Abstract.known_zero
_SCANS = "cumsum cumprod cummax cummin logcumsumexp"
_UNSOUND, _ERROR = "UNSOUND", "ERROR"
CONTROLS: dict[str, Control] = {
    "a scan sees its own position alone": Control(
        _replaced(_SCANS, _in_place),
        _focus("cumsum.default cumprod.default cummax.default cummin.default", pipelines.recurrence),
        _UNSOUND,
    ),
    "softmax does not spread": Control(
        _replaced("_softmax softmax _log_softmax log_softmax", _in_place),
        _focus("softmax.int log_softmax.int", pipelines.attention_by_hand),
        _UNSOUND,
    ),
    "scatter ignores its indices and source": Control(
        _replaced("scatter scatter_add", _in_place),
        _focus("scatter.src scatter_add.default", pipelines.doubled_targets, pipelines.ranks),
        _UNSOUND,
    ),
    "nothing sees the sign of a zero": Control(
        lambda: patch.object(Context, "require_no_signed_zero", lambda self, *values: None),
        _focus("reciprocal.default rsqrt.default div.Tensor", pipelines.silent_zero, pipelines.complex_zeros),
        _UNSOUND,
    ),
    "nothing has to be finite": Control(
        lambda: _forgetting(Kind.FINITE),
        _focus("mul.Tensor mul.Scalar exp.default matmul.default", pipelines.silent_zero, pipelines.attention_by_hand),
        _UNSOUND,
    ),
    "a product ignores its right operand": Control(
        _replaced("matmul bmm mm", _left_only),
        _focus("matmul.default bmm.default", pipelines.attention_by_hand),
        _UNSOUND,
    ),
    "flip and roll move no labels": Control(
        _replaced("flip roll", _in_place), _focus("flip.default roll.default", pipelines.flipped), _UNSOUND
    ),
    "where ignores its condition": Control(
        _replaced("where", _without_condition), _focus("where.self where.ScalarOther", pipelines.chosen), _UNSOUND
    ),
    "sorting keeps labels in place": Control(
        _replaced("sort argsort", _in_place),
        _focus("sort.default sort.stable argsort.stable", pipelines.ranks),
        _UNSOUND,
    ),
    "gather ignores its indices": Control(
        _replaced("gather", _without_index),
        _focus("gather.default", pipelines.expanded_lookup, pipelines.ranks),
        _UNSOUND,
    ),
    "a norm does not spread": Control(
        _replaced("layer_norm rms_norm", _in_place), _focus("layer_norm.default rms_norm.default"), _UNSOUND
    ),
    "a convolution sees one position less": Control(
        _replaced("conv1d", _one_less), _focus("conv1d.default", pipelines.convolution), _UNSOUND
    ),
    "attention is always causal": Control(
        _replaced("scaled_dot_product_attention", _always_causal),
        _focus("scaled_dot_product_attention.default", pipelines.attention),
        _UNSOUND,
    ),
    "a GRU knows one step alone": Control(
        _replaced(
            "gru", lambda c: [c.result(c.args["input"].dep.amax(-1, keepdim=True)), *(_depends_on_nothing(c)[1:])]
        ),
        _focus("gru.input", pipelines.recurrence),
        _UNSOUND,
    ),
    "the cosine of zero is zero": Control(
        lambda: patch.object(pointwise, "_ZERO_STAYS", pointwise._ZERO_STAYS | {"cos"}),
        _focus("cos.default tril.default", pipelines.silent_zero),
        f"{_UNSOUND} zero",
    ),
    "minus infinity is its own negative": Control(
        _replaced("neg", _keeps_minimum),
        _focus("neg.default", pipelines.silent_minimum),
        f"{_UNSOUND} neginf",
    ),
    "an operation without a rule depends on nothing": Control(
        lambda: patch.object(rules, "mix", _depends_on_nothing), _focus("fft_rfft.default index_add.default"), _UNSOUND
    ),
    "shapes are not compared": Control(
        _shapes_unseen,
        _focus("index.Tensor", pipelines.looked_up_twice, steps=(0, 1)),  # what reads it is refused in the dry run
        f"{_UNSOUND} shape",
    ),
    "a complex number without a real part is zero": Control(
        lambda: patch.object(Abstract, "known_zero", _half_zero),
        _focus("matmul.default bmm.default mul.Tensor", pipelines.complex_products),
        _UNSOUND,
    ),
    "a sum with a zero in it is zero": Control(
        lambda: patch.object(contractions, "every", _any_will_do),
        _focus("matmul.default neg.default", pipelines.sums_of_zeros, pipelines.silent_zero),
        _UNSOUND,
    ),
    "a mean with a zero in it is zero": Control(
        lambda: patch.object(reductions, "every", _any_will_do),
        _focus("sum.dim_IntList mean.dim matmul.default", pipelines.sums_of_zeros, pipelines.attention_by_hand),
        _UNSOUND,
    ),
    "a head sees what the first one sees": Control(
        _replaced("scaled_dot_product_attention", _first_head),
        _focus("scaled_dot_product_attention.default", pipelines.positions_as_heads),
        _UNSOUND,
    ),
    "a product is zero where one term is": Control(
        lambda: patch.object(contractions, "_no_term", _any_term),
        _focus("matmul.default neg.default", pipelines.triangles),
        _UNSOUND,
    ),
    "NaN becomes zero whatever it is to become": Control(
        _replaced("nan_to_num", _zero_whatever),
        _focus("nan_to_num.default neg.default", pipelines.rows_without_keys),
        _UNSOUND,
    ),
    "a number that may be NaN is false": Control(
        lambda: patch.object(Obligations, "require_zero", lambda self, *_: None),
        _focus("_to_copy.default logical_and.default", pipelines.truths),
        _UNSOUND,
    ),
    "neither is where one is not": Control(
        _replaced("logical_or bitwise_or bitwise_xor __or__ __xor__", _either_will_do),
        _focus("logical_or.default bitwise_or.Tensor bitwise_xor.Tensor", pipelines.chosen),
        _UNSOUND,
    ),
    "zero minus zero has no sign": Control(
        lambda: patch.object(pointwise, "_adds_nothing", _signless),
        _focus("add.Tensor sub.Tensor reciprocal.default", pipelines.silent_zero),
        _UNSOUND,
    ),
    "minus infinity may be added to anything": Control(
        lambda: _forgetting(Kind.BELOW),
        _focus("add.Tensor isfinite.default", pipelines.silent_minimum),
        _UNSOUND,
    ),
    "minus infinity has no imaginary part": Control(
        _replaced("add sub", _no_imaginary_part),
        _focus("view_as_real.default", pipelines.complex_minimum),
        _UNSOUND,
    ),
    "a complex square root sees no sign of a zero": Control(
        lambda: patch.object(rules, "_BLIND_TO_SIGNS", rules._BLIND_TO_SIGNS | {"sqrt", "log"}),
        _focus("sqrt.default log.default view_as_real.default", pipelines.complex_zeros, pipelines.complex_products),
        _UNSOUND,
    ),
    "a rule raises": Control(_replaced("relu", _raises), _focus("relu.default"), _ERROR),
}
