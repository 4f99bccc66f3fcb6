"""The desk as a process of its own. TRUSTED.

    python -m runner.rooms.desk SETTINGS   settings.py as JSON, from `glovebox`
    python -m runner.rooms.desk            as a service of compose: settings from the environment

Tells whoever started it what happens: one event a line, as JSON, on stdout.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from pydantic import ValidationError

from runner.core.base import benches, compose
from runner.core.base.errors import FINAL_CODES, GloveboxError, PolicyError
from runner.core.base.launching import Lane
from runner.rooms.desk import session
from runner.rooms.desk.settings import Prune, Settings


def main(argv: list[str]) -> int:
    """Run one session; returns the exit code."""
    if len(argv) > 1:
        return session.run(Settings.model_validate_json(argv[1]), _emit)
    try:
        code = session.run(_of_compose(), _emit)
    except GloveboxError as error:
        _emit("failed", {"code": error.exit_code, "error": str(error)})
        code = error.exit_code
    return 0 if code in FINAL_CODES else code  # to compose any failure means: start again


def _of_compose() -> Settings:
    """GLOVEBOX_TAG; GLOVEBOX_EXPERIMENTS in all, empty: no end; GLOVEBOX_PRUNE runs after it; GLOVEBOX_GPU, or CPU."""
    home, tag = benches.of_service(), compose.setting("GLOVEBOX_TAG")
    count, pruning = os.environ.get("GLOVEBOX_EXPERIMENTS"), os.environ.get("GLOVEBOX_PRUNE")
    if pruning and not count:
        fix = "set GLOVEBOX_EXPERIMENTS too: pruning begins when the tag has them all"
        raise PolicyError("is set for a tag without an end", where="GLOVEBOX_PRUNE", fix=fix)
    try:
        return Settings(
            home=str(home.root),
            tag=tag,
            doors=str(compose.DOORS.root),
            seed=str(home.first()),
            meter=True,
            until=int(count) if count else None,
            prune=Prune(runs=int(pruning)) if pruning else None,
            lanes=(Lane(gpu=os.environ.get("GLOVEBOX_GPU") or None),),
        )
    except (ValidationError, ValueError):
        fix = (
            "GLOVEBOX_TAG: lower case letters, digits, . _ -; GLOVEBOX_EXPERIMENTS, GLOVEBOX_PRUNE: a number; "
            "GLOVEBOX_GPU: GPU-UUID"
        )
        raise PolicyError("a setting is malformed", where="environment", fix=fix) from None


def _emit(event: str, data: dict[str, Any]) -> None:
    """In one write, since several threads speak."""
    sys.stdout.write(json.dumps({"event": event, **data}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv))
