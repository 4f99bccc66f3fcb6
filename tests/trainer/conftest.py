"""What the trainer's side tells: its telemetry, as if the process had just begun."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainer import telemetry

Told = Callable[[], list[dict[str, Any]]]


def strict(line: bytes | str) -> dict[str, Any]:
    """One line as JSON, without what Python writes and nobody else reads: NaN and Infinity."""

    def no_json(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    return json.loads(line, parse_constant=no_json)


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Told:
    """Events so far. Nothing was said before, and no step is left out for coming too soon."""
    monkeypatch.setenv("GLOVEBOX_OUT", str(tmp_path))
    monkeypatch.setattr(telemetry, "_said", set())
    monkeypatch.setattr(telemetry, "_MIN_INTERVAL", 0.0)
    path = tmp_path / "telemetry.jsonl"
    return lambda: [strict(line) for line in path.read_bytes().splitlines()] if path.exists() else []
