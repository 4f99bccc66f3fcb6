"""Evaluation: export, load, validate, prove and score, over upstream's in-process evaluate_bpb on the same rows.

    python -m bench.evaluator [--rows N] [--seq-len T] [--json]

Fixed costs (export, load, proof) are paid once per model and scoring grows with the rows, so both are reported
apart: `ratio` is for the rows measured, `ratio_full` for upstream's 10,240 rows, from the measured parts. `discard` and
`keep` are whole evaluations at 10,240 rows, audit included, over one without any.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from bench import upstream
from trainer import hand_over
from trainer.evaluator import __main__ as evaluator
from trainer.evaluator import score
from trainer.evaluator.audit import Auditor
from trainer.evaluator.causality import prove
from trainer.evaluator.model import kernels

FULL_ROWS = 10_240


def main() -> None:
    """Measure and print; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--seq-len", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=4, help="rows per pass, both sides")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = upstream.Config(sequence_len=options.seq_len, n_layer=options.layers)
    gpt = upstream.model(config).to(device)
    rows = torch.randint(0, config.vocab_size, (options.rows, options.seq_len + 1))
    token_bytes = torch.randint(0, 9, (config.vocab_size,))
    kernels.settle()
    kernels.warm(device)
    autocast = torch.autocast(device.type, dtype=torch.bfloat16)
    theirs_bpb, theirs = _repeat(
        options.repeats, lambda: _theirs(gpt, rows, token_bytes, options.batch, device, autocast)
    )
    fixed, program, watch = _fixed(gpt, options, config, device, autocast)
    ours_bpb, ours = _repeat(options.repeats, lambda: _score(program, rows, token_bytes.to(device), watch))
    some, every = _audited(program, rows, options.repeats)
    per_row, scale = ours / theirs, FULL_ROWS / options.rows
    whole = fixed["total"] + ours * scale
    discard = whole + ours / (options.rows / options.batch) + some * scale  # a first pass, a share of the rows
    result = {
        "ratio": round((fixed["total"] + ours) / theirs, 3),
        "ratio_full": round((fixed["total"] + ours * scale) / (theirs * scale), 3),
        "ratio_per_row": round(per_row, 3),
        "discard": round(discard / whole, 3),
        "keep": round((discard + every * scale) / whole, 3),
        "fixed_seconds": {k: round(v, 2) for k, v in fixed.items()},
        "theirs_seconds": round(theirs, 2),
        "rows": options.rows,
        "bpb_difference": abs(ours_bpb - theirs_bpb),
        "device": str(device),
        "model": "published" if upstream.checkout() else "restated",
    }
    if not options.json:
        print(f"upstream in process {theirs:.2f} s, ours {fixed['total']:.2f} s fixed + {ours:.2f} s", file=sys.stderr)
    print(json.dumps(result))


def _repeat(times: int, action: Any) -> tuple[float, float]:
    """(value, best time) of an action."""
    best, value = float("inf"), 0.0
    for _ in range(times):
        begin = time.perf_counter()
        value = action()
        best = min(best, time.perf_counter() - begin)
    return value, best


def _audited(program: Any, rows: torch.Tensor, repeats: int) -> tuple[float, float]:
    """Seconds of the audit of a discard, and of what a keep adds: a share of these rows; all of them, some alone."""
    settings = evaluator.Settings()
    order = torch.randperm(len(rows))
    found = score.losses(program, rows, order, {}, lambda _: None)
    auditor = Auditor(program, rows, found, order)
    _, batch = _repeat(repeats, lambda: auditor.suffixes(order[: program.rows]))
    passes = len(rows) / program.rows
    return batch * settings.audit_share * passes, batch * (1 + settings.audit_alone_share) * passes


def _theirs(
    gpt: Any, rows: torch.Tensor, token_bytes: torch.Tensor, batch: int, device: torch.device, autocast: Any
) -> float:
    split = ((r[:, :-1].contiguous().to(device), r[:, 1:].contiguous().to(device)) for r in rows.split(batch))
    with autocast:
        return upstream.evaluate_bpb(gpt, split, token_bytes.to(device))


def _fixed(
    gpt: Any, options: argparse.Namespace, config: upstream.Config, device: torch.device, autocast: Any
) -> tuple[dict[str, float], Any, Any]:
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        with autocast:
            hand_over.hand_over(gpt, Path(folder), rows=options.batch, seq_len=options.seq_len)
        exported = time.perf_counter()
        profile = {"eval_batch": options.batch, "max_seq_len": options.seq_len, "vocab_size": config.vocab_size}
        program = evaluator.load(evaluator.Settings(), Path(folder), profile, device)
        loaded = time.perf_counter()
    proof = prove(program)
    proved = time.perf_counter()
    if not proof.proved:
        raise SystemExit(f"not proved: {proof}")
    parts = {"export": exported - begin, "load": loaded - exported, "proof": proved - loaded}
    return parts | {"total": proved - begin}, program, proof.obligations


def _score(program: Any, rows: torch.Tensor, token_bytes: torch.Tensor, obligations: Any) -> float:
    return score.score(
        program, rows, token_bytes, token_bytes, obligations.watch(), lambda _: obligations.discharge()
    ).upstream


if __name__ == "__main__":
    main()
