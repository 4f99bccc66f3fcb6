"""Upstream's train.py, unmodified, on the bench's path; and its own evaluation beside ours on the same rows.

As a program it is the trainer's entry with one addition: after the hand-over the model is scored the way upstream
does, in the same process, and what that gave is written beside the hand-over.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from bench.gpu_acceptance import rooms
from bench.gpu_acceptance.figures import Figure, above, below, holds, measured, noted
from bench.gpu_acceptance.host import SEED, watched
from bench.gpu_acceptance.rooms import POLICIES, Bench

ROWS = 10_240  # of upstream's evaluation
# Percent. Upstream's train.py reports 39.8 on an H100, with FlashAttention-3; torch's own kernel is FlashAttention-2.
_MFU = {"package": 36.0, "flash": 27.0}


def upstream(bench: Bench) -> Iterator[Figure]:
    """Upstream's file, where one was given."""
    if bench.upstream is None:
        yield noted("skipped", "no --upstream train.py")
        return
    yield from _whole(bench, "upstream", bench.upstream.read_text())


def seed(bench: Bench) -> Iterator[Figure]:
    """Our own seed, in the same way."""
    yield from _whole(bench, "seed", SEED.read_text())


def _whole(bench: Bench, name: str, source: str) -> Iterator[Figure]:
    folder = bench.folder(name)
    (folder / "train.py").write_text(source)
    with watched(bench, 1.0) as seen:
        seconds = bench.run(folder, ["-m", __spec__.name], GLOVEBOX_TIME_BUDGET=str(bench.budget))
    told = rooms.summary(folder)
    training = told["training_seconds"]
    yield measured("training", training, "s")
    yield measured("tokens a second", told["total_tokens_M"] * 1e6 / training)
    ways = rooms.attention(folder)
    yield noted("attention", ", ".join(ways) or "none")
    if "mfu_percent" in told:
        least = _MFU["package" if "package" in ways else "flash"]
        yield above("model FLOPs, of an H100's", told["mfu_percent"], least, "%")
    yield measured("memory of the GPU, most", seen.gpu_mib / 1024, "GiB")
    hand_over = rooms.phase(folder, "done") - rooms.phase(folder, "hand_over")
    theirs = json.loads((folder / "theirs.json").read_text())
    yield measured("beyond the budget, without their evaluation", seconds - training - theirs["whole"], "s")
    yield measured("hand-over", hand_over - theirs["whole"], "s")
    yield measured("operations", len(json.loads((folder / "graph.json").read_bytes())["nodes"]))
    yield measured("weights", (folder / "weights.safetensors").stat().st_size / 2**20, "MiB")
    yield from _scored(bench, folder, theirs)


def _scored(bench: Bench, folder: Path, theirs: dict[str, Any]) -> Iterator[Figure]:
    """The evaluator's score of what was handed over, beside theirs."""
    settings = POLICIES.evaluator.model_dump_json()
    (folder / "go.json").write_text('{"audit_below":null,"baseline":null}\n')
    whole = bench.run(folder, ["-m", "trainer.evaluator", settings], "evaluator")
    score = json.loads((folder / "score.json").read_text())
    yield holds("scored", score["status"] == "scored", score.get("reason", "scored"))
    if score["status"] != "scored":
        return
    share = ROWS / theirs["rows"]
    fixed = whole - score["seconds"]
    expected = fixed + score["seconds"] * share
    yield noted("causality", score["causality"])
    yield measured("val_bpb", score["val_bpb"])
    yield below("val_bpb beside upstream's, relative", abs(score["val_bpb"] / theirs["bpb"] - 1), 2e-4)
    yield measured("scoring a row", 1000 * score["scoring_seconds"] / theirs["rows"], "ms")
    yield measured("upstream's scoring a row, same rows", 1000 * theirs["seconds"] / theirs["rows"], "ms")
    yield measured("scoring, times upstream's", score["scoring_seconds"] / theirs["seconds"])
    yield below("evaluation of upstream's 10,240 rows", expected, POLICIES.decision.evaluation_seconds, "s")


def beside() -> None:
    """The trainer's entry; upstream's evaluation follows each hand-over."""
    import numpy as np  # noqa: PLC0415 - as late as a trainer imports it
    import torch  # noqa: PLC0415

    from bench import upstream as theirs  # noqa: PLC0415
    from trainer import entry, hand_over  # noqa: PLC0415
    from trainer.wire import device  # noqa: PLC0415

    ours = hand_over.hand_over

    def both(model: Any, out_dir: Path, *, rows: int, **what: Any) -> None:
        ours(model, out_dir, rows=rows, **what)
        began = time.monotonic()
        artifact = Path(os.environ["GLOVEBOX_ARTIFACTS"])
        data = torch.from_numpy(np.load(artifact / "val" / "rows.npy").astype(np.int64))
        token_bytes = torch.from_numpy(np.load(artifact / "tokenizer" / "token_bytes.npy")).to(device.name())
        batches = [(b[:, :-1].contiguous(), b[:, 1:].contiguous()) for b in data.to(device.name()).split(rows)]
        with torch.no_grad():
            model(*batches[0], reduction="none")  # compiles, where it does
        scoring = time.monotonic()
        bpb = theirs.evaluate_bpb(model, batches, token_bytes)
        told = {"bpb": bpb, "rows": len(data), "seconds": time.monotonic() - scoring}
        told["whole"] = time.monotonic() - began
        (out_dir / "theirs.json").write_text(json.dumps(told))

    mock.patch.object(hand_over, "hand_over", both).start()
    code = entry.main()
    raise SystemExit(code)


if __name__ == "__main__":
    beside()
