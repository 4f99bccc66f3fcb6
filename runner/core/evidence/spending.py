"""What a tag's calls of the model API have cost, read from the broker's meter. TRUSTED, reads only."""

from __future__ import annotations

import sqlite3
from pathlib import Path

NANO = 1_000_000_000


def spent(path: Path, tag: str) -> dict[str, float] | None:
    """What a tag's calls have cost: {"dollars", "tokens", "requests"}; None if it made none. Reads only."""
    if not path.exists():
        return None
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        nano, tokens, requests = db.execute(
            "SELECT COALESCE(SUM(COALESCE(nano, reserved_nano)), 0),"
            " COALESCE(SUM(COALESCE(tokens, reserved_tokens)), 0), COUNT(*) FROM calls WHERE tag = ?",
            (tag,),
        ).fetchone()
    finally:
        db.close()
    return {"dollars": nano / NANO, "tokens": tokens, "requests": requests} if requests else None
