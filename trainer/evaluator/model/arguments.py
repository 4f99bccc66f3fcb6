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
        return value is None or _fits_within(value, kind.removeprefix("Optional[")[:-1])
    if kind.startswith("List["):
        inner = kind.removeprefix("List[")[:-1]
        return isinstance(value, list) and all(_fits_within(x, inner) for x in value)
    return type(value) in _KINDS.get(kind, ())


def _fits_within(value: Any, kind: str) -> bool:
    """As `fits`; but a rule would take a number for an absent bias or mask, and torch makes no tensor of it there."""
    return type(value) is Ref if kind == "Tensor" else fits(value, kind)


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
