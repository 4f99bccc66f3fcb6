"""What is kept of the files of one run (their names: mountable.py), and what a run is called. TRUSTED."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from runner.core.base.mountable import HAND_OVER

_INPUTS = ("train.py", "trainer.go.json", "evaluator.go.json")  # the snapshots folder keeps every train.py


def new_run_id() -> str:
    """Unguessable name of one container's files."""
    return secrets.token_hex(8)


def tidy(folder: Path, telemetry_bytes: int = 0) -> None:
    """What a candidate left is large and of no more use: telemetry keeps what was read, the model goes."""
    for name in (*HAND_OVER, *_INPUTS):
        path = folder / name
        if name != "telemetry.jsonl":
            path.unlink(missing_ok=True)
        elif path.exists() and path.stat().st_size > telemetry_bytes:
            os.truncate(path, telemetry_bytes)
