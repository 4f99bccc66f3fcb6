"""The two scales a bench can run at. TRUSTED constants; a profile is part of what is signed."""

from __future__ import annotations

from dataclasses import dataclass

# GPT-4's split pattern with runs of at most two digits, as upstream.
SPLIT_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
SPECIAL_TOKENS = tuple(f"<|reserved_{i}|>" for i in range(4))
BOS_TOKEN = SPECIAL_TOKENS[0]

DATA_URL = "https://huggingface.co/datasets/karpathy/climbmix-400b-shuffle/resolve/main"  # upstream's
MAX_SHARDS = 6542  # training shards 0..6541; the one after is the validation shard


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

    @property
    def eval_rows(self) -> int:
        """Packed validation rows of max_seq_len + 1 tokens."""
        return self.eval_tokens // self.max_seq_len


PROFILES = {
    "upstream": Profile("upstream", 2048, 300, 8192, 40 * 524_288, 8, 1_000_000_000, 10_000),
    "demo": Profile("demo", 256, 6, 1024, 128 * 256, 4, 20_000_000, 10_000),
}
