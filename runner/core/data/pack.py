"""From documents to files: tokenizer, token arrays, packed validation rows. TRUSTED. Nothing is pickled.

Every file appears whole or not at all, and one that is there is not made again: a preparation that was killed
goes on where it was.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import rustbpe
import tiktoken
from numpy.typing import NDArray

from runner.core.artifacts.profiles import BOS_TOKEN, SPECIAL_TOKENS, SPLIT_PATTERN, Profile
from runner.core.artifacts.progress import Advance, Stages
from runner.core.base.errors import ArtifactError
from runner.core.base.files import whole
from runner.core.data.corpus import Corpus, Shard
from trainer.wire.packing import Documents, pack_rows

_BATCH = 512  # documents tokenized at a time
_BLANKS = re.compile(r"\s{10001,}")  # the split pattern goes back over every one of them: a million is a stack overflow
FEWEST = 4  # times that validation text may be scored
Arrays = tuple[NDArray[np.uint16], NDArray[np.int32], NDArray[np.int64]]
Ranks = dict[bytes, int]


def build(corpus: Corpus, profile: Profile, folder: Path, stages: Stages, ranks: Ranks | None = None) -> None:
    """Write tokenizer/, train/, val/ and, where text is held back, holdout/ under `folder`.

    `ranks` is a tokenizer that exists already.
    """
    encoding = _tokenizer(corpus, profile, folder / "tokenizer", stages, ranks)
    with stages.stage("tokenizing the training documents", sum(s.documents for s in corpus.train)) as advance:
        for number, shard in enumerate(corpus.train):
            _tokens(encoding, shard, folder / "train", number, advance)
    _rows(encoding, corpus.val, profile.eval_rows, profile, folder / "val", stages)
    if corpus.holdout is not None and profile.holdout_rows:
        _rows(encoding, corpus.holdout, profile.holdout_rows, profile, folder / "holdout", stages)


def _rows(
    encoding: tiktoken.Encoding, shard: Shard, count: int, profile: Profile, folder: Path, stages: Stages
) -> None:
    """rows.npy: uint16 [count, max_seq_len + 1], what an evaluator scores."""
    path = folder / "rows.npy"
    if path.exists():
        return
    with stages.stage(
        f"packing {count} {'validation' if folder.name == 'val' else folder.name} rows", shard.documents
    ) as advance:
        tokens = tokenize(encoding, shard, advance)
        _enough(shard, count * profile.max_seq_len, tokens, stages)
        packed = pack_rows(Documents([tokens]), profile.max_seq_len + 1)
        array = np.stack([next(packed)[0].astype(np.uint16) for _ in range(count)])
    _save(path, array)


def _enough(shard: Shard, needed: int, tokens: Arrays, stages: Stages) -> None:
    """Refuse validation text that is none, or would be scored over and over; say what is scored more than once."""
    texts = int(tokens[1].sum()) - len(tokens[1])
    told = f"{texts:,} tokens of validation text, {needed:,} are scored"
    if not texts:
        raise ArtifactError("the validation shard has no text", where=shard.name, fix="use another")
    if texts * FEWEST < needed:
        what = f"{told}: each would count {needed // texts} times"
        fix = "more text to score, or a smaller eval_tokens (holdout_tokens) in the profile"
        raise ArtifactError(what, where=shard.name, fix=fix)
    if texts < needed:
        stages.say(f"note: {told}: some count several times")


def _tokenizer(
    corpus: Corpus, profile: Profile, folder: Path, stages: Stages, ranks: Ranks | None
) -> tiktoken.Encoding:
    spec = folder / "tokenizer.json"  # written last
    if spec.exists():
        return _encoding(read_ranks(folder / "ranks.tiktoken"))
    if ranks is None:
        with stages.stage(f"training the tokenizer ({profile.vocab_size} tokens)", profile.tokenizer_chars) as advance:
            ranks = train_tokenizer(_capped(corpus, profile, advance), profile)
    encoding = _encoding(ranks)
    write_tokenizer(encoding, profile, folder)
    return encoding


def train_tokenizer(texts: Iterator[str], profile: Profile) -> Ranks:
    """BPE by rustbpe over the training documents."""
    trainer = rustbpe.Tokenizer()
    wanted = profile.vocab_size - len(SPECIAL_TOKENS)
    trainer.train_from_iterator(texts, wanted, pattern=SPLIT_PATTERN)
    ranks = {bytes(token): rank for token, rank in trainer.get_mergeable_ranks()}
    if len(ranks) != wanted:
        raise ArtifactError(f"the corpus yields {len(ranks)} tokens, {wanted} are needed", fix="use a larger corpus")
    return ranks


def _encoding(ranks: Ranks) -> tiktoken.Encoding:
    """A tiktoken encoding with upstream's split pattern and specials."""
    specials = {name: len(ranks) + i for i, name in enumerate(SPECIAL_TOKENS)}
    return tiktoken.Encoding("glovebox", pat_str=SPLIT_PATTERN, mergeable_ranks=ranks, special_tokens=specials)


def _capped(corpus: Corpus, profile: Profile, advance: Advance) -> Iterator[str]:
    seen = 0
    for document in corpus.texts():
        text = document[: profile.tokenizer_doc_chars]
        seen += len(text)
        advance(len(text))
        yield text
        if seen >= profile.tokenizer_chars:
            return


def write_tokenizer(encoding: tiktoken.Encoding, profile: Profile, folder: Path) -> None:
    """ranks.tiktoken, both byte-length tables, profile.json and, last, tokenizer.json."""
    ranks = sorted(encoding._mergeable_ranks.items(), key=lambda item: item[1])
    upstream, true = byte_lengths(encoding)
    spec = {"name": "glovebox", "pat_str": SPLIT_PATTERN, "special_tokens": encoding._special_tokens}
    _write(folder / "ranks.tiktoken", b"".join(base64.b64encode(t) + b" %d\n" % r for t, r in ranks))
    _save(folder / "token_bytes.npy", upstream)
    _save(folder / "token_bytes_true.npy", true)
    _write(folder / "profile.json", json.dumps(asdict(profile), indent=1).encode())
    _write(folder / "tokenizer.json", json.dumps(spec, indent=1).encode())


def read_ranks(path: Path) -> Ranks:
    """What write_tokenizer wrote."""
    pairs = (line.split() for line in path.read_bytes().splitlines())
    return {base64.b64decode(token): int(rank) for token, rank in pairs}


def byte_lengths(encoding: tiktoken.Encoding) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Per token: UTF-8 length of its decoded text (U+FFFD counts three bytes, as upstream), and its own length."""
    upstream, true = [], []
    for token in range(encoding.n_vocab):
        special = token in encoding._special_tokens.values()
        upstream.append(0 if special else len(encoding.decode([token]).encode()))
        true.append(0 if special else len(encoding.decode_single_token_bytes(token)))
    return np.array(upstream, dtype=np.int32), np.array(true, dtype=np.int32)


def _tokens(encoding: tiktoken.Encoding, shard: Shard, folder: Path, number: int, advance: Advance) -> None:
    names = [folder / f"{part}_{number:05d}.npy" for part in ("groups", "lengths", "tokens")]
    if all(path.exists() for path in names):
        advance(shard.documents)
        return
    tokens, lengths, groups = tokenize(encoding, shard, advance)
    _save(names[0], groups)
    _save(names[1], lengths)
    _save(names[2], tokens)


def tokenize(encoding: tiktoken.Encoding, shard: Shard, advance: Advance) -> Arrays:
    """One shard's tokens uint16 (each document behind its BOS), document lengths int32, row group sizes int64."""
    bos = np.array([encoding.encode_single_token(BOS_TOKEN)], dtype=np.uint16)
    parts: list[NDArray[np.uint16]] = []
    lengths: list[int] = []
    groups: list[int] = []
    for group in shard.groups():
        groups.append(len(group))
        for at in range(0, len(group), _BATCH):
            batch = [_BLANKS.sub(lambda run: run[0][:10_000], text) for text in group[at : at + _BATCH]]
            for ids in encoding.encode_ordinary_batch(batch, num_threads=os.cpu_count() or 1):
                parts += [bos, np.array(ids, dtype=np.uint16)]
                lengths.append(1 + len(ids))
            advance(len(batch))
    if not parts:
        raise ArtifactError("a shard without documents", where=shard.name, fix="remove it")
    return np.concatenate(parts), np.array(lengths, dtype=np.int32), np.array(groups, dtype=np.int64)


def _save(path: Path, array: NDArray[np.generic]) -> None:
    with whole(path) as file:
        np.save(file, array)


def _write(path: Path, data: bytes) -> None:
    with whole(path) as file:
        file.write(data)
