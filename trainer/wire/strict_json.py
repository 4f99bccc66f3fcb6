"""JSON from an untrusted room: capped, unambiguous, finite. TRUSTED, standard library only.

Refused before or while parsing: more bytes than the cap, deeper nesting than the cap, duplicate keys,
NaN and infinities (also as 1e999), integers outside int64, anything that is not UTF-8 JSON.
The error carries a reason code and never a character of the input.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

MAX_DEPTH = 12
MAX_NUMBER_CHARS = 40
# It matches from every quote on, to the end if need be: one that failed would be tried again from the next quote.
_STRING = re.compile(rb'"(?:[^"\\]++|\\(?:.|\Z))*+(?:"|\Z)', re.DOTALL)
_ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_NOT_BRACKET = bytes(sorted(set(range(256)) - set(b"[]{}")))


class StrictJsonError(ValueError):
    """The text was refused. `reason` is one of a closed list of codes."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def loads(data: bytes, *, max_bytes: int, max_depth: int = MAX_DEPTH) -> Any:
    """Parse one JSON document of at most `max_bytes`; raises StrictJsonError with a reason code."""
    if len(data) > max_bytes:
        raise StrictJsonError("too_large")
    if _depth(data) > max_depth:
        raise StrictJsonError("too_deep")
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_object,
            parse_int=_int,
            parse_float=_float,
            parse_constant=_constant,
        )
        if _ESCAPED_SURROGATE.search(data):
            json.dumps(value, ensure_ascii=False).encode("utf-8")  # a lone surrogate is not text
        return value
    except StrictJsonError:
        raise
    except (ValueError, RecursionError):
        raise StrictJsonError("not_json") from None


def _depth(data: bytes) -> int:
    depth = deepest = 0
    for byte in _STRING.sub(b"", data).translate(None, _NOT_BRACKET):
        depth += 1 if byte in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise StrictJsonError("duplicate_key")
    return out


def _int(text: str) -> int:
    if len(text) > MAX_NUMBER_CHARS or not -(2**63) <= (value := int(text)) < 2**63:
        raise StrictJsonError("integer_range")
    return value


def _float(text: str) -> float:
    if len(text) > MAX_NUMBER_CHARS or not math.isfinite(value := float(text)):
        raise StrictJsonError("float_range")
    return value


def _constant(_: str) -> NoReturn:
    raise StrictJsonError("not_finite")
