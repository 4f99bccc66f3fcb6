"""How much of the validation text nearly is in the training text: MinHash (Broder, 1997). TRUSTED, pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

SIMILAR = 0.8  # estimated Jaccard similarity of what counts
_WORDS, _CHARS = 5, 8  # in a row
_SPACED = 20  # characters a word, on average: text with fewer blanks is taken by characters
_HASHES, _BANDS, _SEED = 128, 16, 42


def share(scored: Sequence[str], trained: Iterable[str]) -> float:
    """Of the documents that are scored, those that are nearly one of the others; 0 of none."""
    if not scored:
        return 0.0
    from rensa import RMinHashLSH  # noqa: PLC0415 - as below

    index = RMinHashLSH(threshold=SIMILAR, num_perm=_HASHES, num_bands=_BANDS)
    known = [_hashed(text) for text in scored]
    for number, hashed in enumerate(known):
        index.insert(number, hashed)
    found: set[int] = set()
    for text in trained:
        hashed = _hashed(text)
        found |= {at for at in index.query(hashed) if at not in found and known[at].jaccard(hashed) >= SIMILAR}
    return len(found) / len(scored)


def _hashed(text: str) -> Any:
    from rensa import RMinHash  # noqa: PLC0415 - no other command waits for it

    hashed, words = RMinHash(num_perm=_HASHES, seed=_SEED), text.casefold().split()
    if len(text) > _SPACED * len(words):
        plain = "".join(words)
        hashed.update([plain[at : at + _CHARS] for at in range(max(1, len(plain) - _CHARS + 1))])
    else:
        hashed.update([" ".join(words[at : at + _WORDS]) for at in range(max(1, len(words) - _WORDS + 1))])
    return hashed
