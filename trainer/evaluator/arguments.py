"""Checks a node's arguments against its operation's schema before torch sees them. TRUSTED.

torch's own conversion is lenient: an integer given where a dtype is expected became an invalid ScalarType and a
segmentation fault (found by fuzzing). Here a value fits only its exact kind.
"""

from __future__ import annotations

from typing import Any

import torch


class Ref:
    """An argument that stands for the value with this id."""

    __slots__ = ("id",)

    def __init__(self, id_: int) -> None:
        self.id = id_

    def __repr__(self) -> str:
        return f"%{self.id}"


MAX_ARANGE = 1 << 31
_KINDS: dict[str, tuple[type, ...]] = {
    "Tensor": (Ref, float, int, bool),  # torch makes a number a tensor of no dimensions
    "int": (int,),
    "float": (float, int),
    "number": (float, int, bool),
    "bool": (bool,),
    "str": (str,),
    "Device": (torch.device,),
    "ScalarType": (torch.dtype,),
    "MemoryFormat": (torch.memory_format,),
    "Layout": (),  # only absent
}


def fits(value: Any, kind: str) -> bool:
    """Whether `value` is of the schema type `kind`, such as `Optional[List[int]]`."""
    if kind.startswith("Optional["):
        return value is None or fits(value, kind.removeprefix("Optional[")[:-1])
    if kind.startswith("List["):
        inner = kind.removeprefix("List[")[:-1]
        return isinstance(value, list) and all(fits(x, inner) for x in value)
    return type(value) in _KINDS.get(kind, ())


def misfit(op: torch._ops.OpOverload, args: list[Any], kwargs: dict[str, Any]) -> str | None:
    """The first argument that does not fit the schema, by name; None if all do."""
    arguments = op._schema.arguments
    given = dict(zip([a.name for a in arguments], args, strict=False))
    if set(given) & set(kwargs) or len(args) > sum(not a.kwarg_only for a in arguments):
        return "positional"
    given |= kwargs
    for argument in arguments:
        if argument.name in given:
            if not fits(given[argument.name], str(argument.real_type)):
                return str(argument.name)
        elif not argument.has_default_value():
            return str(argument.name)
    return None


def trap(name: str, bound: dict[str, Any]) -> str | None:
    """Why a call is refused whose result torch 2.13 infers wrongly; None for all others.

    `name` is the ATen name without overload, `bound` the arguments by schema name with tensors, fake or real, in place
    of references. Found by a million random calls (`make fuzz-ops`); what it has not found is refused when it runs.
    """
    rule = _TRAPS.get(name)
    return rule(bound) if rule else None


def _index(bound: dict[str, Any]) -> str | None:
    """An index of no dimensions after others: the shape is taken from the last one alone."""
    given = [index for index in bound["indices"] if isinstance(index, torch.Tensor)]
    wrong = bool(given) and given[-1].dim() == 0 and any(index.dim() for index in given)
    return "an index of no dimensions after one with some" if wrong else None


def _arange(bound: dict[str, Any]) -> str | None:
    """The kernel counts in float64, the inference in integers."""
    large = any(type(value) is int and abs(value) >= MAX_ARANGE for value in bound.values())
    return "numbers beyond 2**31" if large else None


def _native_norm(bound: dict[str, Any]) -> str | None:
    """Mean and deviation of a half precision input are float32 if the weight is."""
    types = {value.dtype for key in ("input", "weight", "bias") if isinstance(value := bound.get(key), torch.Tensor)}
    return "weights of another type" if len(types) > 1 else None


def _pow(bound: dict[str, Any]) -> str | None:
    """A truth value to a truth value is one, for the kernel alone."""
    return "powers of booleans" if torch.bool in {getattr(v, "dtype", None) for v in bound.values()} else None


_TRAPS = {
    "pow": _pow,
    "index": _index,
    "arange": _arange,
    "native_layer_norm": _native_norm,
    "native_group_norm": _native_norm,
}
