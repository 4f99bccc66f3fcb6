"""What train.py imports: upstream's prepare.py interface over signed, read-only artifacts.

Trust level: runs inside the untrusted trainer, next to code the agent wrote. Nothing here guards
anything; every promise below is kept by the walls around the container and by the evaluator.

Same names and contracts as karpathy/autoresearch's prepare.py, with these differences:

* the tokenizer is read from a ranks file and a JSON file, never from a pickle;
* make_dataloader reads pre-tokenized documents from memory-mapped arrays (same batches, same order)
  and knows only the "train" split: the validation data is not in this container;
* evaluate_bpb hands the model over as data and returns NaN: the score is computed elsewhere.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tiktoken
import torch

from trainer.wire.packing import load, pack_rows

ARTIFACTS = Path(os.environ.get("GLOVEBOX_ARTIFACTS", "/artifacts"))
TOKENIZER_DIR = ARTIFACTS / "tokenizer"
TRAIN_DIR = ARTIFACTS / "train"
OUT_DIR = Path(os.environ.get("GLOVEBOX_OUT", "/out"))

_PROFILE: dict[str, Any] = json.loads((TOKENIZER_DIR / "profile.json").read_bytes())

MAX_SEQ_LEN: int = _PROFILE["max_seq_len"]  # context length, tokens
TIME_BUDGET = int(os.environ.get("GLOVEBOX_TIME_BUDGET", _PROFILE["time_budget_s"]))  # of training, seconds
EVAL_TOKENS: int = _PROFILE["eval_tokens"]  # tokens the evaluator scores
VOCAB_SIZE: int = _PROFILE["vocab_size"]  # including special tokens
EVAL_BATCH: int = _PROFILE["eval_batch"]  # rows per forward pass in the evaluator
BOS_TOKEN = "<|reserved_0|>"


# ---------------------------------------------------------------------------
# Tokenizer
# ---------------------------------------------------------------------------


class Tokenizer:
    """Wrapper over a tiktoken encoding with upstream's four methods."""

    def __init__(self, enc: tiktoken.Encoding) -> None:
        self.enc = enc
        self.bos_token_id = enc.encode_single_token(BOS_TOKEN)

    @classmethod
    def from_directory(cls, tokenizer_dir: str | os.PathLike[str] = TOKENIZER_DIR) -> Tokenizer:
        """Build the encoding from `ranks.tiktoken` (base64 and rank per line) and `tokenizer.json`."""
        folder = Path(tokenizer_dir)
        ranks = {}
        for line in (folder / "ranks.tiktoken").read_bytes().splitlines():
            token, rank = line.split()
            ranks[base64.b64decode(token)] = int(rank)
        spec = json.loads((folder / "tokenizer.json").read_bytes())
        enc = tiktoken.Encoding(
            name=spec["name"],
            pat_str=spec["pat_str"],
            mergeable_ranks=ranks,
            special_tokens=spec["special_tokens"],
        )
        return cls(enc)

    def get_vocab_size(self) -> int:
        return self.enc.n_vocab

    def get_bos_token_id(self) -> int:
        return self.bos_token_id

    def encode(
        self, text: str | list[str], prepend: int | str | None = None, num_threads: int = 8
    ) -> list[int] | list[list[int]]:
        """Token ids of one text (list of int) or of several (list of lists), `prepend` in front of each."""
        head = (
            [] if prepend is None else [prepend if isinstance(prepend, int) else self.enc.encode_single_token(prepend)]
        )
        if isinstance(text, str):
            return head + self.enc.encode_ordinary(text)
        if isinstance(text, list):
            return [head + row for row in self.enc.encode_ordinary_batch(text, num_threads=num_threads)]
        raise ValueError(f"Invalid input type: {type(text)}")

    def decode(self, ids: list[int]) -> str:
        return self.enc.decode(ids)


def get_token_bytes(device: str | torch.device = "cpu") -> torch.Tensor:
    """UTF-8 length of every token as upstream counts it, int32 [vocab]; special tokens are 0."""
    return torch.from_numpy(np.load(TOKENIZER_DIR / "token_bytes.npy", allow_pickle=False)).to(device)


# ---------------------------------------------------------------------------
# Data loading
# ---------------------------------------------------------------------------


_latest: list[Any] = []  # (inputs, targets) of the newest batch: evaluate_bpb asks the model about it


def make_dataloader(
    tokenizer: Tokenizer,
    B: int,
    T: int,
    split: str,
    buffer_size: int = 1000,
    device: str | torch.device | None = None,
) -> Iterator[tuple[torch.Tensor, torch.Tensor, int]]:
    """Endless (inputs [B, T], targets [B, T], epoch) of int64 on the training device (or `device`), as upstream.

    Raises ValueError for any split but "train" (validation runs in another container, after evaluate_bpb has handed
    the model over), and for a batch or a length that is not positive.
    """
    for name, size in (("B", B), ("T", T), ("buffer_size", buffer_size)):
        if size < 1:
            raise ValueError(f"make_dataloader: {name} must be at least 1, not {size}")
    if split != "train":
        raise ValueError(
            f"make_dataloader: split {split!r} is not available here, only 'train'. "
            "The validation data never enters this container: call evaluate_bpb(model, tokenizer, batch_size)."
        )
    cuda = torch.cuda.is_available() if device is None else torch.device(device).type == "cuda"
    return _batches(pack_rows(load(TRAIN_DIR), T + 1, buffer_size), B, T, cuda)


def _batches(
    rows: Iterator[tuple[np.ndarray, int]], B: int, T: int, cuda: bool
) -> Iterator[tuple[torch.Tensor, torch.Tensor, int]]:
    row_buffer = np.empty((B, T + 1), dtype=np.int64)
    packed = torch.from_numpy(row_buffer)
    cpu_buffer = torch.empty(2 * B * T, dtype=torch.long, pin_memory=cuda)
    out_buffer = torch.empty(2 * B * T, dtype=torch.long, device="cuda") if cuda else cpu_buffer
    cpu_inputs, cpu_targets = cpu_buffer[: B * T].view(B, T), cpu_buffer[B * T :].view(B, T)
    inputs, targets = out_buffer[: B * T].view(B, T), out_buffer[B * T :].view(B, T)
    copied = torch.cuda.Event() if cuda else None
    while True:
        for i in range(B):
            row_buffer[i], epoch = next(rows)
        if copied is not None:
            copied.synchronize()  # the pinned buffer may still be on its way to the device
        cpu_inputs.copy_(packed[:, :-1])
        cpu_targets.copy_(packed[:, 1:])
        if cuda:
            out_buffer.copy_(cpu_buffer, non_blocking=True)
        if copied is not None:
            copied.record()
        _latest[:] = inputs, targets
        yield inputs, targets, epoch


# ---------------------------------------------------------------------------
# Evaluation
# ---------------------------------------------------------------------------


def evaluate_bpb(model: Any, tokenizer: Tokenizer, batch_size: int = 0, **extra: Any) -> float:
    """Hand the trained model over to the evaluator as data; returns NaN. Of several calls the last to succeed counts.

    Writes `graph.json` (ATen graph of `model(idx) -> logits` at [EVAL_BATCH, MAX_SEQ_LEN]) and
    `weights.safetensors`. val_bpb is computed by the evaluator container over rows this one never
    sees, in batches of its own, so neither batch_size nor whatever else is given has an influence on the score. A model
    is a module, one that torch.compile or DistributedDataParallel wraps, or a function of tokens.
    """
    from trainer import hand_over
    from trainer.export.capture import Batch
    from trainer.wire import device

    if not device.there():  # lost since the start: what was trained on the CPU is not to be compared
        raise SystemExit(device.NO_DEVICE)
    batch = Batch(*_latest) if _latest else None
    hand_over.hand_over(model, OUT_DIR, rows=EVAL_BATCH, seq_len=MAX_SEQ_LEN, vocab=VOCAB_SIZE, batch=batch)
    return float("nan")
