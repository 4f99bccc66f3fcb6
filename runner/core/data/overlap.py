"""Whether what is scored of other people's shards was learned, or says the same over and over. TRUSTED, pure.

Word for word, document by document, by a hash of eight bytes. Documents of one's own (own_data.py) are kept apart as
they are read; shards come with a validation shard, and nobody looked whether it is one.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

from runner.core.artifacts.progress import Advance, Stages
from runner.core.base.errors import ArtifactError
from runner.core.data.corpus import Corpus, Shard

_LEARNED = 0.1  # share of the scored text in which it is a mistake; public corpora have a few documents twice
_FEWEST = 4  # times that a text may be scored (pack.py)


def check(corpus: Corpus, stages: Stages) -> Corpus:
    """The corpus with what was found, to be signed; raises ArtifactError where a score would say nothing."""
    scored = {name: _sizes(shard) for name, shard in (("val", corpus.val), ("holdout", corpus.holdout)) if shard}
    for name, sizes in scored.items():
        _once(corpus.val if name == "val" else corpus.holdout, sizes, stages)
    count = sum(shard.documents for shard in corpus.train)
    with stages.stage("looking for what is scored in the training text", count) as advance:
        learned = _learned(corpus, set().union(*scored.values()), advance)
    told = {}
    for name, sizes in scored.items():
        found = [size for key, (size, _) in sizes.items() if key in learned]
        told[f"{name}_documents_learned"] = f"{len(found)} of {len(sizes)}"
        whole = sum(size for size, _ in sizes.values())
        words = "validation" if name == "val" else "held-back"
        if whole and sum(found) / whole > _LEARNED:
            what = f"{len(found)} of {len(sizes)} {words} documents are training documents, word for word"
            fix = "other shards to score; or glovebox prepare --data, which keeps them apart"
            raise ArtifactError(what, where=corpus.source, fix=fix)
        if found:
            stages.say(f"note: {len(found)} of {len(sizes)} {words} documents are training documents, word for word")
    return replace(corpus, told=corpus.told | told)


def _sizes(shard: Shard) -> dict[bytes, tuple[int, int]]:
    """Of each document: its bytes, and how often it is there."""
    found: dict[bytes, tuple[int, int]] = {}
    for group in shard.groups():
        for text in group:
            key = _key(text)
            found[key] = (len(text.encode()), found.get(key, (0, 0))[1] + 1)
    return found


def _once(shard: Shard | None, sizes: dict[bytes, tuple[int, int]], stages: Stages) -> None:
    distinct = sum(size for size, _ in sizes.values())
    whole = sum(size * times for size, times in sizes.values())
    if shard is None or distinct == whole:
        return
    what = f"{sum(times for _, times in sizes.values()):,} documents to score are {len(sizes):,} different ones"
    if distinct * _FEWEST < whole:
        raise ArtifactError(f"{what}: each would count {whole // distinct} times", where=shard.name, fix="use another")
    stages.say(f"note: {shard.name}: {what}")


def _learned(corpus: Corpus, scored: set[bytes], advance: Advance) -> set[bytes]:
    found: set[bytes] = set()
    for shard in corpus.train:
        for group in shard.groups():
            found |= scored.intersection(map(_key, group))
            advance(len(group))
    return found


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8).digest()
