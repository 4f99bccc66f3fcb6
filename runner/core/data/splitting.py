"""Which documents are trained on and which are scored: told from what they say alone. TRUSTED, pure.

A document that is there twice, in whatever files, is on one side: training text is never validation text. Capitals and
white space are no difference.
"""

from __future__ import annotations

import hashlib
from typing import Literal, NamedTuple

Side = Literal["train", "val", "holdout"]
_WHOLE = 1 << 64


class Key(NamedTuple):
    """Three numbers of 64 bits that a document's words decide."""

    side: int  # which side it is on
    order: int  # where it comes among the others
    share: int  # whether it is there at a weight below one


def key(text: str) -> Key:
    """Of SHA-256 over its words."""
    digest = hashlib.sha256(" ".join(text.casefold().split()).encode("utf-8", "surrogatepass")).digest()
    return Key(*(int.from_bytes(digest[at : at + 8], "big") for at in (0, 8, 16)))


def side(of: Key, ppm: int, *, holdout: bool) -> Side:
    """Of a million documents `ppm` are validation, and as many the holdout where there is one."""
    at = of.side * 1_000_000 // _WHOLE
    if at < ppm:
        return "val"
    return "holdout" if holdout and at < 2 * ppm else "train"


def copies(of: Key, weight: float) -> int:
    """How often a document of a source of this weight is there: as often as it says, on average."""
    whole = int(weight)
    return whole + (of.share < (weight - whole) * _WHOLE)
