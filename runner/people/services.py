"""What compose starts: one trusted room per container. TRUSTED.

    python -m runner.people.services runner|launcher|broker     serve until SIGTERM

Settings come from the environment: GLOVEBOX_HOME, GLOVEBOX_TAG, GLOVEBOX_EXPERIMENTS (in all; empty: no end),
GLOVEBOX_GPU (UUID; empty: CPU), GLOVEBOX_API_KEY_FILE. The same code runs under `glovebox up`.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from runner.core.base import doors
from runner.core.base.errors import GAVE_UP_CODE, GloveboxError, PolicyError
from runner.core.base.home import Home, place
from runner.core.base.values import Lane
from runner.people.pages import console
from runner.rooms.broker import __main__ as broker
from runner.rooms.broker.settings import Settings as BrokerSettings
from runner.rooms.desk import session
from runner.rooms.desk.settings import Settings as DeskSettings
from runner.rooms.launcher import server

DOORS = doors.Places(Path("/run/glovebox"))


def _set(name: str, default: str | None = None) -> str:
    value = os.environ.get(name) or default
    if value is None:
        raise PolicyError("is not set", where=name, fix="run: glovebox init, which writes .env beside compose.yaml")
    return value


def _home() -> Home:
    _set("GLOVEBOX_HOME")
    return place()


def _emit(event: str, data: dict[str, Any]) -> None:
    """Events as lines for people: compose shows them."""
    text = data["error"] if event == "failed" else console.sentence({"event": event, **data})
    if text:
        console.stdout().print(text, markup=False)


def _runner() -> int:
    count = os.environ.get("GLOVEBOX_EXPERIMENTS")
    try:
        settings = DeskSettings(
            home=str(_home().root),
            tag=_set("GLOVEBOX_TAG"),
            doors=str(DOORS.root),
            seed=str(_home().first()),
            meter=True,
            until=int(count) if count else None,
            lanes=(Lane(gpu=os.environ.get("GLOVEBOX_GPU") or None),),
        )
    except (ValidationError, ValueError):
        fix = "GLOVEBOX_TAG: lower case letters, digits, . _ -; GLOVEBOX_EXPERIMENTS: a number; GLOVEBOX_GPU: GPU-UUID"
        raise PolicyError("a setting is malformed", where="environment", fix=fix) from None
    code = session.run(settings, _emit)
    return 0 if code == GAVE_UP_CODE else code  # to compose any failure means: start again


def _launcher() -> int:
    ending = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ending.set())
    return server.serve(_home(), DOORS, ending.wait, watch=True)


def _broker() -> int:
    home = _home()
    broker.serve(
        BrokerSettings(
            policies=[str(folder) for folder in home.policies],
            state=str(home.broker),
            doors=str(DOORS.root),
            tag=_set("GLOVEBOX_TAG"),
            key_file=_set("GLOVEBOX_API_KEY_FILE", "/run/secrets/anthropic_api_key"),
            held=False,
        )
    )
    return 0


def main(argv: list[str]) -> int:
    """Start one room; returns its exit code."""
    rooms = {"runner": _runner, "launcher": _launcher, "broker": _broker}
    try:
        if len(argv) == 2 and argv[1] in rooms:
            return rooms[argv[1]]()
    except GloveboxError as error:
        console.stderr().print(f"glovebox {argv[1]}: {error}", markup=False)
        return error.exit_code
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv))
