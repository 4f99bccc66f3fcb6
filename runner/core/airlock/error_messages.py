"""Known error messages: recognise one, take its numbers, say it in our own words. TRUSTED, hostile input.

A template (policies/errors.yaml) is literal text with blanks. What a blank takes is a number, a list of numbers or
a name from our own list, converted and written again: not one character of a message survives. Matching is linear:
the literal beginning is searched for once, and the rest is tried at that place only.

Messages of PyTorch 2.13; where another version words one differently, its template no longer matches and the agent
learns the class and the line, as for any unknown message.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, NamedTuple

from runner.core.policy.error_templates import BLANK, KINDS, OPERATIONS, SPELLED, UNITS, Template

MAX_CHARS = 1500  # of a message; trainer/telemetry.py sends no more


_SKIP = ".{0,200}?"


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
    return BLANK.sub(lambda blank: values[int(blank[1])], template.say)


@lru_cache(maxsize=1024)
def _compiled(match: str) -> tuple[str, re.Pattern[str]]:
    parts = BLANK.split(match)  # literal, kind, literal, kind, ..., literal
    text = "".join(
        (_SKIP if part == "any" else KINDS[part].pattern) if number % 2 else re.escape(part)
        for number, part in enumerate(parts)
    )
    return parts[0], re.compile(text, re.DOTALL | re.ASCII)


def _value(kind: str, text: str) -> str:
    """What a blank took, through a value of its own kind into our spelling."""
    convert: dict[str, Any] = {
        "int": lambda: str(int(text)),
        "shape": lambda: str([int(size) for size in text.split(", ")] if text else []),
        "bytes": lambda: _size(*text.split(" ")),
        "dtype": lambda: SPELLED[text],
        "operation": lambda: OPERATIONS[OPERATIONS.index(text)],
    }
    return str(convert[kind]())


def _size(number: str, unit: str) -> str:
    return f"{float(number):.2f} {UNITS[UNITS.index(unit)]}"
