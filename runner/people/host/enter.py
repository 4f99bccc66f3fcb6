"""Becomes the launcher's service of compose, once its bench is known to be ours. TRUSTED.

    python -m runner.people.host.enter runner.rooms.launcher

The launcher is root on the host to whoever can write the policies it goes by, and is kept small enough to be read. So
whose they are is looked at here, by a process that is gone when the launcher's begins.
"""

from __future__ import annotations

import os
import sys

from runner.core.base import benches, compose
from runner.core.base.errors import GloveboxError


def main(argv: list[str]) -> int:
    """Become the room; returns an exit code only if that may not be."""
    room = argv[1]
    try:
        home = benches.of_service()
    except GloveboxError as error:
        return compose.failed(room.rpartition(".")[2], error.exit_code, str(error))
    os.execv(sys.executable, [sys.executable, "-P", "-m", room, "--service", str(home.root)])  # noqa: S606 - there is no shell here


if __name__ == "__main__":
    sys.exit(main(sys.argv))
