"""What compose tells a room through its environment. TRUSTED; the names are those of compose.yaml."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from runner.core.base.doors import Places
from runner.core.base.errors import FINAL_CODES, PolicyError

DOORS = Places(Path("/run/glovebox"))


def setting(name: str, default: str | None = None) -> str:
    """A variable; raises PolicyError if it is needed and missing."""
    value = os.environ.get(name) or default
    if value is None:
        raise PolicyError("is not set", where=name, fix="run: glovebox init, which writes .env beside compose.yaml")
    return value


def over(door: Path) -> Path:
    """Beside a door: the runner's word that the tag is over, after which the services end too."""
    return door.with_name("over")


def until_over(ending: threading.Event, door: Path) -> None:
    """Return when told to end, or when the tag is over."""
    while not (ending.wait(1.0) or over(door).exists()):
        pass


def failed(room: str, code: int, error: str) -> int:
    """Tell people why a service cannot go on; its exit code, to which compose starts it again unless it is 0."""
    print(f"glovebox {room}: {error}", file=sys.stderr, flush=True)
    return 0 if code in FINAL_CODES else code
