"""The scales a bench can run at: policies/profiles/*.yaml. TRUSTED, fails closed; part of what is signed."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from runner.core.base.errors import PolicyError
from runner.core.base.mountable import SHIPPED
from runner.core.base.strict_yaml import Strict, load_yaml
from runner.core.policy import walls

# GPT-4's split pattern with runs of at most two digits, as upstream.
SPLIT_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
SPECIAL_TOKENS = tuple(f"<|reserved_{i}|>" for i in range(4))
BOS_TOKEN = SPECIAL_TOKENS[0]

DATA_URL = "https://huggingface.co/datasets/karpathy/climbmix-400b-shuffle/resolve/main"  # upstream's
MAX_SHARDS = 6542  # training shards 0..6541; the one after is the validation shard
FOLDER = "profiles"  # of policies/
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_TAKEN = ("kernels", "cache")  # artifacts of other kinds
_MOST_ROWS, _MOST_LOGITS = 1 << 20, 1 << 31  # of an evaluation; of a pass of it (4 GiB in half precision)


@dataclass(frozen=True)
class Profile:
    """Sequence length, training budget, vocabulary and evaluation size."""

    name: str
    max_seq_len: int  # tokens
    time_budget_s: int  # seconds of training
    vocab_size: int  # special tokens included
    eval_tokens: int  # a multiple of max_seq_len * eval_batch
    eval_batch: int  # rows per forward pass in the evaluator
    tokenizer_chars: int  # characters the BPE is trained on
    tokenizer_doc_chars: int  # of one document
    holdout_tokens: int = 0  # of the second validation set, which only `confirm` uses; 0: there is none
    validation_ppm: int = 10_000  # of a million documents of people's own data, those that are scored

    @property
    def eval_rows(self) -> int:
        """Packed validation rows of max_seq_len + 1 tokens."""
        return self.eval_tokens // self.max_seq_len

    @property
    def holdout_rows(self) -> int:
        """The same of the holdout."""
        return self.holdout_tokens // self.max_seq_len


class File(Strict):
    """policies/profiles/NAME.yaml."""

    about: Annotated[str, Field(min_length=1, max_length=200)]
    gpu_gib: Annotated[int, Field(ge=0, le=4096)]
    max_seq_len: Annotated[int, Field(ge=16, le=1 << 17)]
    time_budget_s: Annotated[int, Field(ge=1, le=86_400)]
    vocab_size: Annotated[int, Field(ge=256 + len(SPECIAL_TOKENS), le=1 << 16)]  # tokens are stored in two bytes
    eval_tokens: Annotated[int, Field(ge=1, le=1 << 31)]
    eval_batch: Annotated[int, Field(ge=1, le=1024)]
    tokenizer_chars: Annotated[int, Field(ge=10_000, le=10**11)]
    tokenizer_doc_chars: Annotated[int, Field(ge=100, le=1 << 24)]
    validation_share: Annotated[float, Field(ge=0.0001, le=0.4)]
    holdout_tokens: Annotated[int, Field(ge=0, le=1 << 31)]

    @model_validator(mode="after")
    def _whole_passes(self) -> File:
        logits = self.eval_batch * self.max_seq_len * self.vocab_size
        if logits > _MOST_LOGITS:
            raise ValueError(f"eval_batch * max_seq_len * vocab_size is {logits}: at most {_MOST_LOGITS} logits a pass")
        row, at_once = self.max_seq_len, self.max_seq_len * self.eval_batch
        for key in ("eval_tokens", "holdout_tokens"):
            tokens = getattr(self, key)
            if tokens % at_once:
                near = max(1, round(tokens / at_once)) * at_once
                raise ValueError(f"{key} must be a multiple of max_seq_len * eval_batch, {at_once}; {near} is near")
            if tokens // row > _MOST_ROWS:
                raise ValueError(f"{key} is more than {_MOST_ROWS} rows")
        return self

    def profile(self, name: str) -> Profile:
        """What is signed of it."""
        values = self.model_dump(exclude={"about", "gpu_gib", "validation_share"})
        return Profile(name=name, validation_ppm=round(self.validation_share * 1_000_000), **values)


def load(folders: tuple[Path, ...], name: str) -> File:
    """A profile, from the first folder of policies that has it; raises PolicyError."""
    named(name)
    path = walls.place(folders, f"{FOLDER}/{name}.yaml")
    if not path.exists():
        known = ", ".join(names(folders))
        raise PolicyError(f"no profile {name!r}", where=str(path), fix=f"one of: {known}; or: glovebox profile new")
    return load_yaml(path, File)


def named(name: str) -> None:
    """Raise PolicyError for what no profile may be called."""
    if not _NAME.fullmatch(name) or name in _TAKEN:
        what = f"{name!r} is no name for a profile"
        raise PolicyError(what, where=FOLDER, fix="lower case letters, digits, _ -; not kernels or cache")


def names(folders: tuple[Path, ...]) -> list[str]:
    """Those there are, of the bench and as shipped."""
    found = {path.stem for folder in folders for path in (folder / FOLDER).glob("[a-z]*.yaml")}
    return sorted(name for name in found if _NAME.fullmatch(name) and name not in _TAKEN)


def shipped(name: str) -> Profile:
    """A profile as it comes with Glovebox."""
    return load((SHIPPED / "policies",), name).profile(name)


def fitting(folders: tuple[Path, ...], gib: float) -> str | None:
    """The largest profile that a card with so much memory is for; None without one."""
    found = []
    for name in names(folders):
        with suppress(PolicyError):  # whoever asks for that one is told
            found.append((load(folders, name).gpu_gib, name))
    return max((one for one in found if 0 < one[0] <= gib), default=(0, None))[1]
