"""One train.py as upstream runs it: a bare process, upstream's loader, the score computed in the same process.

    python -m bench.bare ARTIFACT SHARDS TRAIN_PY

Profile, tokenizer and packed validation rows come from the artifact; training text is read from the parquet shards and
tokenized while it trains. Upstream tokenizes its validation text too; here the rows are given, in its favour. Prints
what train.py prints, then one JSON line.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

STARTED = time.monotonic()


def module(artifact: Path, shards: Path) -> ModuleType:
    """What `import prepare` finds."""
    os.environ["GLOVEBOX_ARTIFACTS"] = str(artifact)
    import numpy as np  # noqa: PLC0415 - after the clock started, as for anybody
    import torch  # noqa: PLC0415

    import trainer.prepare as ours  # noqa: PLC0415 - the tokenizer is the same
    from bench import loader, upstream  # noqa: PLC0415

    found = ModuleType("prepare")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def evaluate_bpb(model: Any, _: Any, __: int) -> float:
        rows = torch.from_numpy(np.load(artifact / "val" / "rows.npy").astype(np.int64))
        token_bytes, size = ours.get_token_bytes(device), ours.EVAL_BATCH
        batches = (rows[at : at + size].to(device) for at in range(0, len(rows), size))
        pairs = ((batch[:, :-1].contiguous(), batch[:, 1:].contiguous()) for batch in batches)
        return upstream.evaluate_bpb(model, pairs, token_bytes)

    checkout = upstream.checkout()
    theirs = loader.published(checkout, shards) if checkout else loader.restated(shards)

    def make_dataloader(tokenizer: Any, rows: int, length: int, _: str) -> Any:
        for x, y, epoch in theirs(tokenizer, rows, length):
            yield x.to(device), y.to(device), epoch

    for name in ("MAX_SEQ_LEN", "TIME_BUDGET", "Tokenizer", "get_token_bytes"):
        setattr(found, name, getattr(ours, name))
    found.make_dataloader = make_dataloader  # type: ignore[attr-defined]
    found.evaluate_bpb = evaluate_bpb  # type: ignore[attr-defined]
    return found


def main(argv: list[str]) -> None:
    """Run the script."""
    from trainer import kernels_offline  # noqa: PLC0415

    sys.modules["prepare"] = module(Path(argv[1]), Path(argv[2]))
    kernels_offline.install()
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(Path(argv[3]).read_bytes(), argv[3], "exec"), space)  # noqa: S102 - the file the user named
    seconds = space["trained"]
    told = {"tokens_per_second": space["tokens"] / seconds, "training": seconds, "val_bpb": float(space["val_bpb"])}
    print(json.dumps({**told, "total": time.monotonic() - STARTED}))


if __name__ == "__main__":
    main(sys.argv)
