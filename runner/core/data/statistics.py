"""What an artifact's text is like, in figures: documents, tokens, lengths, use of the vocabulary. TRUSTED; pure.

Told from the signed files alone, so it is the same for own text, shards and the demo's, whoever prepared it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runner.core.artifacts.manifest import Statement
from runner.core.artifacts.profiles import SPECIAL_TOKENS
from runner.core.artifacts.progress import Stages
from runner.core.base.errors import ArtifactError

_SLICE = 1 << 24  # tokens that are counted at a time
_LONGEST = 31  # lengths are below 2^31


@dataclass(frozen=True)
class Side:
    """Training text whole; of what is scored its rows as they are, in which documents begin and are cut off."""

    name: str  # train, val or holdout
    begun: int  # documents that begin in it; where there is little to score one begins several times
    tokens: int
    text_bytes: int
    used: int  # tokens of the vocabulary that occur
    frequent: float  # share of the hundredth of the vocabulary that occurs most
    lengths: tuple[int, ...]  # documents of 2^i tokens and more, below 2^(i+1), without the one each begins with

    @property
    def bytes_per_token(self) -> float:
        """How much text a token stands for; what val_bpb divides by."""
        return self.text_bytes / self.tokens if self.tokens else 0.0


@dataclass(frozen=True)
class Statistics:
    """Of one artifact."""

    version: str
    expires: str
    profile: dict[str, int | str]
    provenance: dict[str, str]  # as signed
    vocabulary: int
    sides: tuple[Side, ...]


def of(folder: Path, statement: Statement, stages: Stages) -> Statistics:
    """Of an artifact whose files are what was signed, at `folder`; raises ArtifactError for one without text."""
    try:
        return _of(folder, statement, stages)
    except (ValueError, IndexError, TypeError) as error:
        fix = "run: glovebox prepare again"
        raise ArtifactError(f"its arrays are not as ours: {error}", where=str(folder), fix=fix) from None


def _of(folder: Path, statement: Statement, stages: Stages) -> Statistics:
    names = {subject.name for subject in statement.subject}
    said = statement.predicate
    if "tokenizer/token_bytes_true.npy" not in names:
        raise ArtifactError("holds no text", where=f"artifact {said.version}", fix="name one that is made of text")
    text_bytes = _load(folder / "tokenizer" / "token_bytes_true.npy").astype(np.int64)
    shards = {name: size for name, size in sorted(said.sizes.items()) if name.startswith("train/tokens_")}
    sides = [_train(folder, shards, text_bytes, stages)]
    sides += [_scored(folder, name, text_bytes) for name in ("val", "holdout") if f"{name}/rows.npy" in names]
    return Statistics(
        version=said.version,
        expires=said.expires.isoformat(timespec="seconds"),
        profile=said.profile,
        provenance=said.provenance,
        vocabulary=len(text_bytes),
        sides=tuple(sides),
    )


def _train(folder: Path, shards: dict[str, int], text_bytes: NDArray[np.int64], stages: Stages) -> Side:
    counts, lengths = np.zeros(len(text_bytes), dtype=np.int64), np.zeros(_LONGEST, dtype=np.int64)
    with stages.stage("counting tokens", sum(shards.values())) as advance:
        for name, size in shards.items():
            path = folder / name
            counts += _counts(_load(path), len(counts))
            texts = _load(path.with_name(path.name.replace("tokens_", "lengths_"))).astype(np.int64) - 1
            lengths += np.bincount(_powers(texts), minlength=_LONGEST)
            advance(size)
    return _side("train", int(lengths.sum()), counts, text_bytes, lengths)


def _scored(folder: Path, name: str, text_bytes: NDArray[np.int64]) -> Side:
    """Of the positions that are scored: all but the first of each row."""
    rows = _load(folder / name / "rows.npy")
    begins = int(np.count_nonzero(rows == len(text_bytes) - len(SPECIAL_TOKENS)))
    counts = _counts(rows[:, 1:].reshape(-1), len(text_bytes))
    return _side(name, begins, counts, text_bytes, np.zeros(0, dtype=np.int64))


def _side(
    name: str, documents: int, counts: NDArray[np.int64], text_bytes: NDArray[np.int64], lengths: NDArray[np.int64]
) -> Side:
    words = np.where(text_bytes > 0, counts, 0)  # special tokens stand for no text
    total = int(words.sum())
    most = int(np.sort(words)[::-1][: max(1, len(words) // 100)].sum())
    last = int(np.max(np.nonzero(lengths)[0], initial=-1)) + 1
    return Side(
        name=name,
        begun=documents,
        tokens=total,
        text_bytes=int(counts @ text_bytes),
        used=int(np.count_nonzero(words)),
        frequent=most / total if total else 0.0,
        lengths=tuple(int(count) for count in lengths[:last]),
    )


def _counts(tokens: NDArray[Any], vocabulary: int) -> NDArray[np.int64]:
    """How often each token occurs, a slice at a time: numpy counts in eight bytes a token."""
    found = np.zeros(vocabulary, dtype=np.int64)
    for at in range(0, len(tokens), _SLICE):
        found += np.bincount(tokens[at : at + _SLICE], minlength=vocabulary)
    return found


def _powers(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """The power of two that each is at least; of an empty document 0."""
    return np.frexp(np.maximum(lengths, 1).astype(np.float64))[1].astype(np.int64) - 1


def _load(path: Path) -> NDArray[Any]:
    found: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return found
