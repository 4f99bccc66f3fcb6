"""Where documents come from: parquet shards, or the demo's own language. TRUSTED reader.

A shard is read group by group, so that a corpus of any size fits in memory (shards.py, by a process of its own).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from runner.core.artifacts.parallel import in_parallel
from runner.core.base.errors import ArtifactError
from runner.core.base.files import hash_file
from runner.core.data import demo_text
from runner.core.data import shards as parquet
from runner.core.data.shard_reader import COLUMN

DEMO_DOC_CHARS = 4000
DEMO_VAL_DOC_CHARS = 500  # short, so that a small validation set still fills its rows without repeating
_DEMO_CHARS, _DEMO_VAL_CHARS = 6_000_000, 400_000
VAL_SHARD = "shard_06542.parquet"  # upstream's pinned validation shard


@dataclass(frozen=True)
class Shard:
    """Documents in row groups; `groups()` yields the same every time."""

    name: str
    documents: int
    text_bytes: int
    sha256: str  # of the file, or of the texts
    groups: Callable[[], Iterator[list[str]]]


@dataclass(frozen=True)
class Corpus:
    """Training shards in upstream's order, the validation shard, and where they came from."""

    train: list[Shard]
    val: Shard
    source: str
    holdout: Shard | None = None  # what only `confirm` scores
    told: dict[str, str] = field(default_factory=dict)  # what else is signed of where it came from

    @property
    def text_bytes(self) -> int:
        """Uncompressed text of the training shards."""
        return sum(shard.text_bytes for shard in self.train)

    def texts(self) -> Iterator[str]:
        """All training documents in order."""
        for shard in self.train:
            for group in shard.groups():
                yield from group


def demo(secret: bytes) -> Corpus:
    """Documents of demo_text, the same for training on every machine; needs no network.

    Those that are scored are drawn by `secret`, the bench's own: no code of an agent can draw them again.
    """
    language = demo_text.Language()
    train = list(language.documents(b"training", _DEMO_CHARS, DEMO_DOC_CHARS))
    val, holdout = (
        list(language.documents(drawn, _DEMO_VAL_CHARS, DEMO_VAL_DOC_CHARS)) for drawn in (secret, secret + b" holdout")
    )
    source = "a made-up language, from a seed"
    return Corpus([_in_memory("demo", train)], _in_memory("demo val", val), source, _in_memory("demo holdout", holdout))


def held_back(corpus: Corpus) -> Corpus:
    """The last training shard as the holdout, where there is none yet; raises ArtifactError with none to spare."""
    if corpus.holdout is not None:
        return corpus
    if len(corpus.train) < 2:
        what = "the profile holds text back for confirm, and there is one training shard alone"
        raise ArtifactError(what, where=corpus.source, fix="add a shard, or holdout_tokens: 0 in the profile")
    *train, holdout = corpus.train
    _apart(holdout, [*train, corpus.val], corpus.source)
    return replace(corpus, train=train, holdout=holdout)


def _apart(scored: Shard, others: list[Shard], where: str) -> None:
    """Refuse text that is scored and trained on, or scored twice over."""
    same = next((shard.name for shard in others if shard.sha256 == scored.sha256), None)
    if same is not None:
        text = (
            f"the shard {scored.name}, which is scored, is the training shard {same}: it would be of what was learned"
        )
        raise ArtifactError(text, where=where, fix="remove one of the two, and add another shard")


def _in_memory(name: str, texts: list[str]) -> Shard:
    data = "\0".join(texts).encode()
    return Shard(name, len(texts), len(data), hashlib.sha256(data).hexdigest(), lambda: iter([texts]))


def shards(folder: Path, source: str = "parquet shards", column: str = COLUMN) -> Corpus:
    """Parquet shards with a column of text; the pinned validation shard, or else the last one, is held out."""
    paths = sorted(path for path in folder.glob("[!.]*") if path.suffix.lower() == ".parquet")  # "._x" are a Mac's
    if len(paths) < 2:
        raise ArtifactError("needs at least two .parquet shards", where=str(folder), fix="add a training shard")
    held_out = next((p for p in paths if p.name == VAL_SHARD), paths[-1])
    how = parquet.Form(column=column)
    *train, val = in_parallel(lambda path: _parquet(path, how), [*(p for p in paths if p != held_out), held_out])
    _apart(val, train, str(folder))
    return Corpus(train, val, f"{source}, validation {held_out.name}")


def _parquet(path: Path, how: parquet.Form) -> Shard:
    told = parquet.describe(path, how)
    return Shard(path.name, told.documents, told.text_bytes, hash_file(path)[0], lambda: parquet.groups(path, how))
