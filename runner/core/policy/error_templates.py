"""Templates of error messages we know: literal text with blanks, and our own sentence. TRUSTED, pure.

What a blank takes is a number, a list of numbers or a name from our own list, so the most that it can carry is known
in bits. How a message is recognised is in airlock/error_messages.py.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field, model_validator

from runner.core.base.strict_yaml import Strict

_LEAST_LITERAL = 6


_DTYPES = {
    "bool": ("bool", "Bool"),
    "uint8": ("unsigned char", "Byte"),
    "int8": ("signed char", "Char"),
    "int16": ("short", "Short"),
    "int32": ("int", "Int"),
    "int64": ("long int", "long", "Long"),
    "float16": ("c10::Half", "Half"),
    "bfloat16": ("c10::BFloat16", "BFloat16"),
    "float32": ("float", "Float"),
    "float64": ("double", "Double"),
    "float8": ("c10::Float8_e4m3fn", "Float8_e4m3fn", "c10::Float8_e5m2", "Float8_e5m2"),
    "complex64": ("c10::complex<float>", "ComplexFloat"),
}


SPELLED = {spelling: name for name, spellings in _DTYPES.items() for spelling in spellings}


OPERATIONS = tuple((Path(__file__).parent / "aten_operations.txt").read_text(encoding="ascii").split())


UNITS = ("bytes", "KiB", "MiB", "GiB")


_SHAPE_DIMENSIONS, _SHAPE_DIGITS, _INT_DIGITS = 6, 7, 9


def _signed_bits(digits: int) -> float:
    return math.log2(2 * 10**digits)


class _Kind(NamedTuple):
    pattern: str
    bits: float  # of what it can carry


KINDS = {
    "int": _Kind(rf"(-?\d{{1,{_INT_DIGITS}}})(?!\d)", _signed_bits(_INT_DIGITS)),
    "shape": _Kind(
        rf"\[((?:-?\d{{1,{_SHAPE_DIGITS}}}(?:, -?\d{{1,{_SHAPE_DIGITS}}}){{0,{_SHAPE_DIMENSIONS - 1}}})?)\]",
        _SHAPE_DIMENSIONS * _signed_bits(_SHAPE_DIGITS) + math.log2(_SHAPE_DIMENSIONS + 1),
    ),
    "bytes": _Kind(rf"(\d{{1,5}}(?:\.\d\d)? (?:{'|'.join(UNITS)}))", math.log2(10**7 * len(UNITS))),
    "dtype": _Kind(
        f"({'|'.join(re.escape(s) for s in sorted(SPELLED, key=len, reverse=True))})", math.log2(len(_DTYPES))
    ),
    "operation": _Kind(
        f"({'|'.join(sorted(OPERATIONS, key=len, reverse=True))})(?![a-z0-9_])", math.log2(len(OPERATIONS))
    ),
}


BLANK = re.compile(r"\{(\w*)\}")


class Template(Strict):
    """One message: what it begins with, and our sentence for it."""

    id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{1,39}$")]
    match: Annotated[str, Field(pattern=r"^[\x20-\x7e]+$", max_length=300)]
    say: Annotated[str, Field(pattern=r"^[\x20-\x7e]+$", max_length=160)]

    @model_validator(mode="after")
    def _sound(self) -> Template:
        kinds = BLANK.findall(self.match)
        if unknown := set(kinds) - set(KINDS) - {"any"}:
            raise ValueError(
                f"match: unknown blank {{{min(unknown)}}}; use {{int}}, {{shape}}, {{bytes}}, {{dtype}}, {{operation}}"
            )
        if len(BLANK.split(self.match)[0]) < _LEAST_LITERAL:
            raise ValueError(f"match must begin with at least {_LEAST_LITERAL} characters of plain text")
        if kinds.count("any") > 3:
            raise ValueError("match: at most three times {any}")
        known = {str(number) for number in range(len(self.blanks))}
        if beyond := set(BLANK.findall(self.say)) - known:
            raise ValueError(f"say: there is no blank {{{min(beyond)}}}")
        return self

    @property
    def blanks(self) -> list[str]:
        """The kinds of the blanks that carry something, in order."""
        return [kind for kind in BLANK.findall(self.match) if kind != "any"]

    @property
    def bits(self) -> float:
        """The most that its blanks can carry."""
        return sum(KINDS[kind].bits for kind in self.blanks)
