"""From documents to files: tokenizer, token arrays, packed validation rows. TRUSTED. Nothing is pickled."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import rustbpe
import tiktoken
from numpy.typing import NDArray

from runner.artifacts.corpus import Corpus, Split
from runner.artifacts.profiles import BOS_TOKEN, SPECIAL_TOKENS, SPLIT_PATTERN, Profile
from runner.errors import ArtifactError
from trainer.packing import pack_rows

Say = Callable[[str], None]
_BATCH = 512  # documents tokenized at a time


def build(corpus: Corpus, profile: Profile, folder: Path, say: Say) -> None:
    """Write tokenizer/, train/ and val/ under `folder`."""
    for name in ("tokenizer", "train", "val"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    say(f"training the tokenizer ({profile.vocab_size} tokens)")
    encoding = train_tokenizer(corpus.train, profile)
    write_tokenizer(encoding, profile, folder / "tokenizer")
    say("tokenizing the training documents")
    tokens, offsets = tokenize(encoding, corpus.train)
    np.save(folder / "train" / "tokens.npy", tokens)
    np.save(folder / "train" / "offsets.npy", offsets)
    np.save(folder / "train" / "row_groups.npy", _row_groups(corpus.train))
    say(f"packing {profile.eval_rows} validation rows")
    tokens, offsets = tokenize(encoding, corpus.val)
    rows = pack_rows(tokens, offsets, _row_groups(corpus.val), profile.max_seq_len + 1)
    packed = np.stack([next(rows)[0].astype(np.uint16) for _ in range(profile.eval_rows)])
    np.save(folder / "val" / "rows.npy", packed)


def train_tokenizer(split: Split, profile: Profile) -> tiktoken.Encoding:
    """BPE by rustbpe over the training documents, as a tiktoken encoding with upstream's specials."""
    trainer = rustbpe.Tokenizer()
    trainer.train_from_iterator(
        _capped(split, profile), profile.vocab_size - len(SPECIAL_TOKENS), pattern=SPLIT_PATTERN
    )
    ranks = {bytes(token): rank for token, rank in trainer.get_mergeable_ranks()}
    if len(ranks) + len(SPECIAL_TOKENS) != profile.vocab_size:
        raise ArtifactError(
            f"the corpus yields {len(ranks)} tokens, {profile.vocab_size - len(SPECIAL_TOKENS)} are needed",
            fix="use a larger corpus",
        )
    specials = {name: len(ranks) + i for i, name in enumerate(SPECIAL_TOKENS)}
    return tiktoken.Encoding("glovebox", pat_str=SPLIT_PATTERN, mergeable_ranks=ranks, special_tokens=specials)


def _capped(split: Split, profile: Profile) -> Iterator[str]:
    seen = 0
    for document in split.documents():
        text = document[: profile.tokenizer_doc_chars]
        seen += len(text)
        yield text
        if seen >= profile.tokenizer_chars:
            return


def write_tokenizer(encoding: tiktoken.Encoding, profile: Profile, folder: Path) -> None:
    """ranks.tiktoken, tokenizer.json, profile.json and both byte-length tables."""
    ranks = sorted(encoding._mergeable_ranks.items(), key=lambda item: item[1])
    (folder / "ranks.tiktoken").write_bytes(b"".join(base64.b64encode(t) + b" %d\n" % r for t, r in ranks))
    spec = {"name": "glovebox", "pat_str": SPLIT_PATTERN, "special_tokens": encoding._special_tokens}
    (folder / "tokenizer.json").write_text(json.dumps(spec, indent=1))
    (folder / "profile.json").write_text(json.dumps(asdict(profile), indent=1))
    upstream, true = byte_lengths(encoding)
    np.save(folder / "token_bytes.npy", upstream)
    np.save(folder / "token_bytes_true.npy", true)


def byte_lengths(encoding: tiktoken.Encoding) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Per token: UTF-8 length of its decoded text (U+FFFD counts three bytes, as upstream), and its own length."""
    upstream, true = [], []
    for token in range(encoding.n_vocab):
        special = token in encoding._special_tokens.values()
        upstream.append(0 if special else len(encoding.decode([token]).encode()))
        true.append(0 if special else len(encoding.decode_single_token_bytes(token)))
    return np.array(upstream, dtype=np.int32), np.array(true, dtype=np.int32)


def tokenize(encoding: tiktoken.Encoding, split: Split) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
    """(tokens uint16, each document behind its BOS; document starts int64 [documents + 1])."""
    bos = np.array([encoding.encode_single_token(BOS_TOKEN)], dtype=np.uint16)
    parts: list[NDArray[np.uint16]] = []
    starts = [0]
    for batch in _batches(split):
        for ids in encoding.encode_ordinary_batch(batch):
            parts += [bos, np.array(ids, dtype=np.uint16)]
            starts.append(starts[-1] + 1 + len(ids))
    return np.concatenate(parts), np.array(starts, dtype=np.int64)


def _batches(split: Split) -> Iterator[list[str]]:
    batch: list[str] = []
    for document in split.documents():
        batch.append(document)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _row_groups(split: Split) -> NDArray[np.int64]:
    return np.array([len(group) for group in split.groups], dtype=np.int64)
