"""Known error messages: recognise one, take its numbers, say it in our own words. TRUSTED, hostile input.

A template (policies/errors.yaml) is literal text with blanks. What a blank takes is a number, a list of numbers or
a name from our own list, converted and written again: not one character of a message survives. Matching is linear:
the literal beginning is searched for once, and the rest is tried at that place only.

Messages of PyTorch 2.13; where another version words one differently, its template no longer matches and the agent
learns the class and the line, as for any unknown message.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import Annotated, Any, NamedTuple

from pydantic import Field, model_validator

from runner.core.base.strict_yaml import Strict

MAX_CHARS = 1500  # of a message; trainer/telemetry.py sends no more
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
_SPELLED = {spelling: name for name, spellings in _DTYPES.items() for spelling in spellings}
_UNITS = ("bytes", "KiB", "MiB", "GiB")
_SHAPE_DIMENSIONS, _SHAPE_DIGITS, _INT_DIGITS = 6, 7, 9


def _signed_bits(digits: int) -> float:
    return math.log2(2 * 10**digits)


class _Kind(NamedTuple):
    pattern: str
    bits: float  # of what it can carry


_KINDS = {
    "int": _Kind(rf"(-?\d{{1,{_INT_DIGITS}}})(?!\d)", _signed_bits(_INT_DIGITS)),
    "shape": _Kind(
        rf"\[((?:-?\d{{1,{_SHAPE_DIGITS}}}(?:, -?\d{{1,{_SHAPE_DIGITS}}}){{0,{_SHAPE_DIMENSIONS - 1}}})?)\]",
        _SHAPE_DIMENSIONS * _signed_bits(_SHAPE_DIGITS) + math.log2(_SHAPE_DIMENSIONS + 1),
    ),
    "bytes": _Kind(rf"(\d{{1,5}}(?:\.\d\d)? (?:{'|'.join(_UNITS)}))", math.log2(10**7 * len(_UNITS))),
    "dtype": _Kind(
        f"({'|'.join(re.escape(s) for s in sorted(_SPELLED, key=len, reverse=True))})", math.log2(len(_DTYPES))
    ),
}
_SKIP = ".{0,200}?"
_BLANK = re.compile(r"\{(\w*)\}")


class Template(Strict):
    """One message: what it begins with, and our sentence for it."""

    id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{1,39}$")]
    match: Annotated[str, Field(pattern=r"^[\x20-\x7e]+$", max_length=300)]
    say: Annotated[str, Field(pattern=r"^[\x20-\x7e]+$", max_length=160)]

    @model_validator(mode="after")
    def _sound(self) -> Template:
        kinds = _BLANK.findall(self.match)
        if unknown := set(kinds) - set(_KINDS) - {"any"}:
            raise ValueError(f"match: unknown blank {{{min(unknown)}}}; use {{int}}, {{shape}}, {{bytes}}, {{dtype}}")
        if len(_BLANK.split(self.match)[0]) < _LEAST_LITERAL:
            raise ValueError(f"match must begin with at least {_LEAST_LITERAL} characters of plain text")
        if kinds.count("any") > 3:
            raise ValueError("match: at most three times {any}")
        known = {str(number) for number in range(len(self.blanks))}
        if beyond := set(_BLANK.findall(self.say)) - known:
            raise ValueError(f"say: there is no blank {{{min(beyond)}}}")
        return self

    @property
    def blanks(self) -> list[str]:
        """The kinds of the blanks that carry something, in order."""
        return [kind for kind in _BLANK.findall(self.match) if kind != "any"]

    @property
    def bits(self) -> float:
        """The most that its blanks can carry."""
        return sum(_KINDS[kind].bits for kind in self.blanks)


class Told(NamedTuple):
    """A recognised message, in our words."""

    template: str
    text: str


def tell(message: object, templates: list[Template]) -> Told | None:
    """The first template that fits, with its numbers; None for anything that is not a known message."""
    if not isinstance(message, str):
        return None
    for template in templates:
        if text := _fit(message[:MAX_CHARS], template):
            return Told(template.id, text)
    return None


def _fit(message: str, template: Template) -> str | None:
    literal, pattern = _compiled(template.match)
    at = message.find(literal)
    found = pattern.match(message, at) if at >= 0 else None
    if not found:
        return None
    values = [_value(kind, text) for kind, text in zip(template.blanks, found.groups(), strict=True)]
    return _BLANK.sub(lambda blank: values[int(blank[1])], template.say)


@lru_cache(maxsize=1024)
def _compiled(match: str) -> tuple[str, re.Pattern[str]]:
    parts = _BLANK.split(match)  # literal, kind, literal, kind, ..., literal
    text = "".join(
        (_SKIP if part == "any" else _KINDS[part].pattern) if number % 2 else re.escape(part)
        for number, part in enumerate(parts)
    )
    return parts[0], re.compile(text, re.DOTALL | re.ASCII)


def _value(kind: str, text: str) -> str:
    """What a blank took, through a value of its own kind into our spelling."""
    convert: dict[str, Any] = {
        "int": lambda: str(int(text)),
        "shape": lambda: str([int(size) for size in text.split(", ")] if text else []),
        "bytes": lambda: _size(*text.split(" ")),
        "dtype": lambda: _SPELLED[text],
    }
    return str(convert[kind]())


def _size(number: str, unit: str) -> str:
    return f"{float(number):.2f} {_UNITS[_UNITS.index(unit)]}"
