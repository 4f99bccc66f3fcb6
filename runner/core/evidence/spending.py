"""What a tag's calls of the model API have cost, and whether the API is away now, by the broker's word. TRUSTED."""

from __future__ import annotations

import json
import sqlite3
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from runner.core.base import files
from runner.core.base.errors import GloveboxError
from runner.core.evidence import ledger_file

NANO = 1_000_000_000
_AWAY = "away.json"  # in the broker's folder while it makes no calls
_MAX_AWAY = 200


class Spent(TypedDict):
    """What calls have cost."""

    dollars: float
    tokens: int
    requests: int


def spent(path: Path, tag: str) -> Spent | None:
    """What a tag's calls have cost; None if it made none. Reads only."""
    query = (
        "SELECT COALESCE(SUM(COALESCE(nano, reserved_nano)), 0),"
        " COALESCE(SUM(COALESCE(tokens, reserved_tokens)), 0), COUNT(*) FROM calls WHERE tag = ?"
    )
    nano, tokens, requests = next(iter(_read(path, query, tag)), (0, 0, 0))
    return {"dollars": nano / NANO, "tokens": tokens, "requests": requests} if requests else None


def _read(path: Path, query: str, tag: str) -> list[tuple[Any, ...]]:
    """Rows of a query about a tag's calls; none if there is no meter, or it cannot be read where we may not write."""
    if not path.exists():
        return []
    try:
        way = ledger_file.way(path, read_only=True)
    except GloveboxError:
        return []
    db = sqlite3.connect(f"{path.absolute().as_uri()}?{way}", uri=True)
    try:
        return db.execute(query, (tag,)).fetchall()
    finally:
        db.close()


class Cost(NamedTuple):
    """Of one experiment's calls, by the broker's word."""

    dollars: float
    model: str  # which had the most calls


def by_experiment(path: Path, tag: str) -> dict[int, Cost]:
    """What each experiment's calls have cost; those of none are missing. Reads only."""
    query = (
        "SELECT experiment, model, SUM(COALESCE(nano, reserved_nano)) FROM calls WHERE tag = ?"
        " GROUP BY experiment, model ORDER BY experiment, COUNT(*), model"
    )
    found: dict[int, Cost] = {}
    for experiment, model, nano in _read(path, query, tag):
        before = found[experiment].dollars if experiment in found else 0.0
        found[int(experiment)] = Cost(before + nano / NANO, str(model))
    return found


def pause(broker: Path, seconds: float) -> None:
    """Note in the broker's folder that calls pause for so long; 0: they pass again. A full disk tells nobody."""
    with suppress(OSError):
        if seconds:
            until = datetime.now(UTC) + timedelta(seconds=seconds)
            files.write(broker / _AWAY, json.dumps({"until": until.isoformat(timespec="seconds")}), mode=0o600)
        else:
            (broker / _AWAY).unlink(missing_ok=True)


def away(broker: Path) -> datetime | None:
    """Until when the broker makes no calls, as it says; None if it makes some."""
    try:
        with files.open_plain(broker / _AWAY) as file:
            until = datetime.fromisoformat(json.loads(file.read(_MAX_AWAY))["until"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return until if until.tzinfo is not None and until > datetime.now(UTC) else None
