"""Whether what is scored of other people's shards was learned, or says the same over and over. TRUSTED, pure.

Document by document, by their words (splitting.py: capitals and white space are no difference). Documents of one's own
(own_data.py) are kept apart as they are read; shards come with a validation shard, and nobody looked whether it is one.
What is scored is the beginning of a shard, however long that is in text: so every beginning that may be it is looked
at. Near duplicates, and documents that were cut or joined, pass.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from runner.core.artifacts.profiles import Profile
from runner.core.artifacts.progress import Advance, Stages
from runner.core.base.errors import ArtifactError
from runner.core.data import splitting
from runner.core.data.corpus import Corpus, Shard
from runner.core.data.pack import FEWEST

_SHARED = 0.1  # of the scored text, from where on it is a mistake; public corpora have a few documents twice


class _Scored(NamedTuple):
    """The documents of a shard in their order, 12 bytes each: 64 bits of the words' hash, and bytes of text."""

    shard: Shard
    words: str
    tokens: int  # that are scored; a token is a byte of text at least
    keys: array[int]
    sizes: array[int]


def check(corpus: Corpus, profile: Profile, stages: Stages) -> Corpus:
    """The corpus with what was found, to be signed; raises ArtifactError where a score would say nothing."""
    val = _scored(corpus.val, "validation", profile.eval_tokens)
    held = None
    if corpus.holdout is not None and profile.holdout_tokens:
        held = _scored(corpus.holdout, "held-back", profile.holdout_tokens)
    sides = [side for side in (val, held) if side is not None]
    for side in sides:
        _once(side, stages)
    count = sum(shard.documents for shard in corpus.train)
    with stages.stage("looking for what is scored in the training text", count) as advance:
        learned = _learned(corpus, {key for side in sides for key in side.keys}, advance)
    told = {}
    for name, side in zip(("val", "holdout"), sides, strict=False):
        told[f"{name}_documents_learned"] = _shared(side, learned, "training", corpus.source, stages)
    if held is not None:
        told["holdout_documents_scored"] = _shared(held, set(val.keys), "validation", corpus.source, stages)
    return replace(corpus, told=corpus.told | told)


def _scored(shard: Shard, words: str, tokens: int) -> _Scored:
    found = _Scored(shard, words, tokens, array("Q"), array("L"))
    for group in shard.groups():
        for text in group:
            found.keys.append(splitting.key(text).order)
            found.sizes.append(len(text.encode()))
    return found


def _largest(side: _Scored, counts: Iterator[bool]) -> float:
    """Of the beginnings that may be what is scored, the largest share of text that `counts`."""
    whole = some = 0
    largest = 0.0
    last = len(side.sizes) - 1
    for at, (size, one) in enumerate(zip(side.sizes, counts, strict=True)):
        whole, some = whole + size, some + size * one
        if whole and (whole >= side.tokens or at == last):
            largest = max(largest, some / whole)
    return largest


def _once(side: _Scored, stages: Stages) -> None:
    """Refuse text that says the same over and over, and say what is there twice."""
    seen, again = set[int](), array("b")
    for key in side.keys:
        again.append(key in seen)
        seen.add(key)
    if not any(again):
        return
    what = f"{len(side.keys):,} documents to score are {len(seen):,} different ones"
    share = _largest(side, (bool(one) for one in again))
    if share > 1 - 1 / FEWEST:
        told = f"{what}: each would count {round(1 / (1 - share))} times"
        raise ArtifactError(told, where=side.shard.name, fix="use another")
    stages.say(f"note: {side.shard.name}: {what}")


def _shared(side: _Scored, others: set[int], where: str, source: str, stages: Stages) -> str:
    """How many of the documents are among others; raises ArtifactError if that is more than a few."""
    count = sum(key in others for key in side.keys)
    what = f"{count} of {len(side.keys)} {side.words} documents are {where} documents"
    share = _largest(side, (key in others for key in side.keys))
    if share > _SHARED:
        told = f"{what}, up to {share:.0%} of what is scored"
        raise ArtifactError(told, where=source, fix="other shards to score; or --data, which keeps them apart")
    if count:
        stages.say(f"note: {what}")
    return f"{count} of {len(side.keys)}"


def _learned(corpus: Corpus, scored: set[int], advance: Advance) -> set[int]:
    found: set[int] = set()
    for shard in corpus.train:
        for group in shard.groups():
            found |= scored.intersection(splitting.key(text).order for text in group)
            advance(len(group))
    return found
