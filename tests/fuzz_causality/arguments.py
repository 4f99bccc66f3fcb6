"""Arguments for any allowed operation: by its own chooser, or from its schema."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from tests.fuzz_causality import lookups, products, shapes
from tests.fuzz_causality.draft import Call, Draft, Unfit, Value, broadcasts, call, is_bool, is_float, is_inexact
from tests.fuzz_causality.shapes import Chooser, by_name
from trainer.evaluator.model import ops


def choose(d: Draft, operation: str) -> Call:
    """Arguments for `name.overload`; Unfit if the graph has no value for them."""
    chooser = CHOOSERS.get(operation) or CHOOSERS.get(operation.split(".", maxsplit=1)[0]) or _from_schema
    return chooser(d, operation)


def _where(d: Draft, operation: str) -> Call:
    condition = d.pick(is_bool if d.flag(0.9) else None)
    kind = operation.split(".")[1]
    if kind == "Scalar":
        return call(condition.ref, d.number(), d.number())
    a = d.beside(condition)
    if kind == "ScalarOther":
        return call(condition.ref, a.ref, d.number(a.tensor))
    if kind == "ScalarSelf":
        return call(condition.ref, d.number(a.tensor), a.ref)
    return call(condition.ref, a.ref, d.beside(a).ref)


def _masked_fill(d: Draft, operation: str) -> Call:
    mask = d.pick(is_bool)
    x = d.beside(mask)
    return call(x.ref, mask.ref, d.number(x.tensor) if operation.endswith("Scalar") else _zero_dim(d).ref)


def _zero_dim(d: Draft) -> Value:
    """A value without dimensions; one token's is made where there is none."""
    try:
        return d.pick(lambda t: t.dim() == 0)
    except Unfit:
        return d.need("select.int", d.need("select.int", d.tokens.ref, 0, 0).ref, 0, -1)


def _pair(d: Draft, operation: str) -> Call:
    a = d.pick(lambda t: t.is_floating_point() and t.element_size() > 2)
    return call(a.ref, d.pick(lambda t: t.dtype == a.tensor.dtype and broadcasts(t.shape, a.tensor.shape)).ref)


def _nan_to_num(d: Draft, operation: str) -> Call:
    x = d.pick(is_inexact if d.flag(0.9) else None)
    numbers = (None, 0.0, -0.0, 1.0, 1e30, {"f": "-inf"}, {"f": "nan"})
    return call(x.ref, *(d.rng.choice(numbers) for _ in range(d.rng.randrange(4))))


def _glu(d: Draft, operation: str) -> Call:
    x = d.pick(lambda t: is_float(t) and any(size % 2 == 0 for size in t.shape))
    return call(x.ref, *([d.dim(x.tensor)] if d.flag(0.8) else []))


def _integers(d: Draft, operation: str) -> Call:
    """Bitwise operations; numbers stay small enough to shift by, mostly."""
    shifts = "shift" in operation  # of booleans are refused

    def fits(t: Tensor) -> bool:
        return not is_inexact(t) and not (shifts and is_bool(t))

    a = d.pick(fits)
    if "Scalar" in operation:
        return call(a.ref, d.number(a.tensor) if d.flag(0.5) else d.rng.choice((0, 1, 2, 7, 31)))
    if operation.startswith("bitwise_not"):
        return call(a.ref)
    return call(a.ref, d.pick(lambda t: fits(t) and broadcasts(t.shape, a.tensor.shape)).ref)


def _from_schema(d: Draft, operation: str) -> Call:
    """Each argument by its declared kind: values that broadcast, numbers of every size."""
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    last: Value | None = None
    for argument in ops.allowed()[f"aten.{operation}"]._schema.arguments:
        kind = str(argument.real_type)
        if argument.kwarg_only:
            kwargs |= _keyword(d, argument.name)
        elif "Tensor" in kind:
            last = d.beside(last) if last else d.pick(is_inexact if d.flag(0.4) else None)
            args.append(last.ref if kind == "Tensor" or d.flag(0.7) else None)
        elif "number" in kind:
            if argument.has_default_value() and d.flag():
                break
            args.append(d.number(last.tensor if last else None))
        elif argument.has_default_value() and kind != "float":
            break
        else:
            args.append({"float": d.rng.choice((0.0, 0.5, 1.0)), "bool": False, "int": 0}[kind])
    return args, kwargs


def _keyword(d: Draft, name: str) -> dict[str, Any]:
    choices: dict[str, tuple[float, Any]] = {
        "alpha": (0.15, (1, 2, -1, 0, 1.0, True)),
        "value": (0.5, (1, 1.0, 0.0, -1.0, 1e30, {"f": "inf"})),
        "rounding_mode": (1.0, (None, "floor", "trunc")),
        "approximate": (0.5, ("tanh", "none")),
        "decimals": (0.0, (0,)),
    }
    chance, values = choices.get(name, (0.0, ()))
    return {name: d.rng.choice(values)} if d.flag(chance) else {}


_DROPOUT = {"dropout": lambda d, operation: call(d.pick().ref, 0.0, False)}
_TABLE: dict[Chooser, str] = {
    _where: "where",
    _masked_fill: "masked_fill",
    _pair: "complex polar",
    _glu: "glu",
    _nan_to_num: "nan_to_num",
    _integers: (
        "bitwise_and bitwise_or bitwise_xor bitwise_not bitwise_left_shift bitwise_right_shift __and__ __or__ "
        "__xor__ __lshift__ __rshift__"
    ),
}
CHOOSERS: dict[str, Chooser] = shapes.CHOOSERS | products.CHOOSERS | lookups.CHOOSERS | by_name(_TABLE) | _DROPOUT
