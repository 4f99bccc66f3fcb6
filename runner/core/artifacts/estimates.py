"""What a profile will take before anything is prepared: text, memory of the card, work of an evaluation. TRUSTED, pure.

For the seed (trainer/train.py) as it stands on a GPU: 8 blocks of width 512. Fitted to what an H200 showed
(docs/gpu.md): 4.9 GiB with passes of 8 rows of 2,048 tokens, 15.4 with 32; 51.3 with 128, where this says 59.
"""

from __future__ import annotations

from dataclasses import dataclass

from runner.core.artifacts.profiles import Profile

DEPTH, WIDTH = 8, 512
CARDS = (8, 12, 16, 24, 40, 80)  # GiB
_TEXT_BYTES = 4.0  # of a token, about; more with a larger vocabulary
_FIXED_GIB = 1.0  # CUDA's context and libraries
_WEIGHT_BYTES = 18  # of a parameter: itself, its gradient, two moments, a half-precision copy
_ACTIVATION_BYTES = 32  # of a token, for each channel of each block
_LOGIT_BYTES = 12  # of a token, for each entry of the vocabulary
_RATE = 2e14  # FLOPs a second that an evaluation reaches at most
_PASS_SECONDS = 0.034  # of an evaluator's pass on an H200, bound by the processor that launches it


@dataclass(frozen=True)
class Estimate:
    """Of the seed under a profile."""

    parameters: int
    token_flops: float  # of training on a token, forward and backward
    rows: dict[int, int]  # card's GiB: the largest power of two of rows in a pass that fits; 0: none does
    text_bytes: int  # of documents, so that validation and holdout are full
    passes: int  # of an evaluation
    evaluation_flops: float
    evaluation_seconds: float  # on a large card, at least


def estimate(profile: Profile, validation_share: float) -> Estimate:
    """By the formulas above; FLOPs as in Kaplan et al. (2020): 6 a parameter and token, and attention's own."""
    blocks = 12 * DEPTH * WIDTH * WIDTH
    parameters = blocks + 2 * profile.vocab_size * WIDTH
    matrices = blocks + profile.vocab_size * WIDTH  # the embedding is looked up
    token = 6.0 * matrices + 12.0 * DEPTH * WIDTH * profile.max_seq_len / 2
    passes = profile.eval_rows // profile.eval_batch
    per_row = profile.max_seq_len * (_ACTIVATION_BYTES * WIDTH * DEPTH + _LOGIT_BYTES * profile.vocab_size)
    fixed = _FIXED_GIB * 2**30 + _WEIGHT_BYTES * parameters
    scored = max(profile.eval_tokens, profile.holdout_tokens)
    return Estimate(
        parameters=parameters,
        token_flops=token,
        rows={gib: _power_of_two((gib * 0.95 * 2**30 - fixed) / per_row) for gib in CARDS},
        text_bytes=int(scored * _TEXT_BYTES / validation_share),
        passes=passes,
        evaluation_flops=token / 3 * profile.eval_tokens,
        evaluation_seconds=max(passes * _PASS_SECONDS, token / 3 * profile.eval_tokens / _RATE),
    )


def _power_of_two(most: float) -> int:
    return 1 << (int(most).bit_length() - 1) if most >= 1 else 0
