"""People's own text as a corpus: files and folders of documents, mixed and split by what they say. TRUSTED reader.

One pass over the files: training documents go to heaps (heaps.py), which become training shards; of those that are
scored a few times what is needed is held in memory (scored_text.py). The same files give the same shards.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from runner.core.artifacts.profiles import Profile
from runner.core.artifacts.progress import Advance, Stages
from runner.core.base.errors import ArtifactError
from runner.core.base.files import hash_file, whole
from runner.core.data import heaps, near_duplicates, shards, splitting
from runner.core.data.corpus import Corpus, Shard
from runner.core.data.scored_text import Kept

_ENOUGH = 12  # bytes of text kept for each token that is scored
_COMPARED, _COMPARED_CHARS = 2000, 5000  # validation documents that near duplicates are looked for of; of each document
_LOOKED_AT = 100_000  # training documents they are compared with
_MOST_FILES = 100_000


@dataclass(frozen=True)
class Data:
    """A file or a folder, and how often each of its documents counts."""

    path: Path
    weight: float = 1.0
    name: str = ""  # as it is signed; empty: the path's own

    @property
    def told(self) -> str:
        """What is signed of it."""
        return f"{self.name or self.path.resolve().name} x {self.weight:g}"


File = tuple[Data, Path, shards.Form]


def named(text: str) -> Data:
    """PATH or PATH:WEIGHT, also of a dataset (datasets.py); raises ValueError."""
    if not text:
        raise ValueError("an empty --data names nothing")
    path, colon, number = text.rpartition(":")
    if not colon or path == "hf" or Path(text).exists():
        return Data(Path(text).expanduser())
    weight = float(number)
    if not 0.001 <= weight <= 100:
        raise ValueError(f"the weight of {path} is {number}: from 0.001 to 100")
    return Data(Path(path).expanduser(), weight)


def corpus(sources: Sequence[Data], profile: Profile, column: str, folder: Path, stages: Stages) -> Corpus:
    """Read everything once; the heaps lie in `folder`. Raises ArtifactError for what is no text, or too little."""
    found = [(source, path, how) for source in sources for path, how in _files(source.path, column, stages)]
    before = [_state(path) for _, path, _ in found]
    shutil.rmtree(folder, ignore_errors=True)
    val, holdout = (Kept(_ENOUGH * tokens) for tokens in (profile.eval_tokens, profile.holdout_tokens))
    count = max(1, min(heaps.MOST, _at_most(found) // heaps.HEAP))
    paths = [folder / f"heap_{number:03d}" for number in range(count)]
    with ExitStack() as stack, stages.stage("reading and splitting", len(found)) as advance:
        piled = heaps.Heaps([stack.enter_context(whole(path)) for path in paths], folder)
        for file in found:
            _read(file, profile, {"val": val, "holdout": holdout}, piled)
            advance(1)
    for kept in (val, holdout):
        kept.settle()
    if not piled.count or not val.texts or (profile.holdout_tokens and not holdout.texts):
        raise _too_little(piled.count, len(val.texts), len(holdout.texts))
    train = [
        Shard(path.name, piled.documents[at], piled.sizes[at], piled.hashes[at].hexdigest(), partial(heaps.read, path))
        for at, path in enumerate(paths)
        if piled.documents[at]
    ]
    told = _told(sources, found, piled, val, holdout)
    for (_, path, _), state in zip(found, before, strict=True):
        if _state(path) != state:
            raise ArtifactError("changed while it was read", where=str(path), fix="prepare again when nobody writes it")
    return Corpus(
        train,
        _shard("validation", val),
        f"own data, {len(found)} files",
        holdout=_shard("holdout", holdout) if holdout.texts else None,
        told=told | {"near_duplicates": _near(val, train, piled.count, stages)},
    )


def _read(file: File, profile: Profile, scored: dict[str, Kept], piled: heaps.Heaps) -> None:
    """Every document of a file to its side."""
    source, path, how = file
    for text in (text for group in shards.groups(path, how) for text in group if text.strip()):
        of = splitting.key(text)
        side = splitting.side(of, profile.validation_ppm, holdout=profile.holdout_tokens > 0)
        copies = splitting.copies(of, source.weight)
        if side != "train" and copies:
            scored[side].add(of.order, text)
        for _ in range(copies if side == "train" else 0):
            piled.add(of, text.encode())


def _state(path: Path) -> tuple[int, int, int]:
    told = path.stat()
    return told.st_ino, told.st_size, told.st_mtime_ns


def _at_most(found: Sequence[File]) -> int:
    """Bytes of text there may be, about: more than there is, since heaps that are many are small."""
    return int(
        sum(
            path.stat().st_size * source.weight * (shards.MAX_RATIO if how.packed or how.kind == "parquet" else 1)
            for source, path, how in found
        )
    )


def _near(val: Kept, train: Sequence[Shard], count: int, stages: Stages) -> str:
    """How many of the first validation documents nearly are one of the first training documents; said, and signed.

    Both are in the order of their hashes, so these are samples; of fewer training documents than there are it is the
    least that there can be.
    """
    scored = [text[:_COMPARED_CHARS] for text in val.documents()[:_COMPARED]]
    documents = (text for shard in train for group in shard.groups() for text in group)
    with stages.stage("looking for near duplicates", min(count, _LOOKED_AT)) as advance:
        share = near_duplicates.share(scored, _counted(documents, advance))
    told = f"{share:.4f} of {len(scored)} validation documents, beside {min(count, _LOOKED_AT)} of {count}"
    if share:
        stages.say(f"note: nearly a training document: {told}")
    return told


def _counted(documents: Iterable[str], advance: Advance) -> Iterator[str]:
    for text in itertools.islice(documents, _LOOKED_AT):
        advance(1)
        yield text[:_COMPARED_CHARS]


def _shard(name: str, kept: Kept) -> Shard:
    texts = kept.documents()
    data = "\0".join(texts).encode()
    return Shard(name, len(texts), len(data), hashlib.sha256(data).hexdigest(), lambda: iter([texts]))


def _files(path: Path, column: str, stages: Stages) -> list[tuple[Path, shards.Form]]:
    """The files of documents at a place, by name; what is left out is said."""
    if path.is_file():
        how = shards.form(path, column)
        if how is None:
            kinds = ".parquet, .jsonl, .ndjson, .txt, .md, and all but parquet as .gz and .zst"
            raise ArtifactError("no kind of file that is read", where=str(path), fix=f"one of: {kinds}")
        return [(path, how)]
    if not path.is_dir():
        raise ArtifactError("is not there", where=str(path), fix="name a file or a folder of documents")
    found, others = [], dict[str, int]()
    for folder, folders, names in os.walk(path):
        root = Path(folder)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and not (root / name).is_symlink())
        for name in sorted(name for name in names if not name.startswith(".")):
            one = root / name
            how = shards.form(one, column)
            if how is None or one.is_symlink() or not one.is_file():
                kind = "links" if one.is_symlink() else one.suffix or "no suffix"
                others[kind] = others.get(kind, 0) + 1
            else:
                found.append((one, how))
        if len(found) > _MOST_FILES:
            raise ArtifactError(f"more than {_MOST_FILES} files", where=str(path), fix="join them: one JSON line each")
    if others:
        told = ", ".join(f"{count} {kind}" for kind, count in sorted(others.items())[:8])
        stages.say(f"note: {path}: left out, of no kind that is read: {told}")
    if not found:
        raise ArtifactError("no file of documents in it", where=str(path), fix="parquet, JSONL or text: docs/data.md")
    return found


def _too_little(train: int, val: int, holdout: int) -> ArtifactError:
    what = f"too few documents: {train} to train on, {val} to score, {holdout} held back"
    return ArtifactError(what, where="--data", fix="more text, or a larger validation_share in the profile")


def _told(
    sources: Sequence[Data],
    found: Sequence[File],
    piled: heaps.Heaps,
    val: Kept,
    holdout: Kept,
) -> dict[str, str]:
    """What is signed of the sources besides the shards' hashes."""
    lines = (hash_file(path)[0].encode() + b" " + os.fsencode(path.name) + b"\n" for _, path, _ in found)
    files = hashlib.sha256(b"".join(lines)).hexdigest()
    weights = ", ".join(source.told for source in sources)
    return {
        "files_sha256": files,
        "sources": weights.encode("utf-8", "replace").decode()[:1000],
        "train_documents": str(piled.count),
        "train_bytes": str(sum(piled.sizes)),
        "validation_documents": f"{len(val.texts)} of {val.seen}, repeated {val.repeated} times",
        "holdout_documents": f"{len(holdout.texts)} of {holdout.seen}, repeated {holdout.repeated} times",
    }
