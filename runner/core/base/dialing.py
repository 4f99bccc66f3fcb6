"""The side of a door that calls. TRUSTED."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

from runner.core.base.doors import Line
from runner.core.base.errors import DoorError


def connect(path: Path, timeout: float | None = None) -> Line:
    """A line to the door at `path`; raises DoorError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(timeout)
    try:
        sock.connect(str(path))
    except OSError as error:
        sock.close()
        raise DoorError(f"cannot be reached: {error.strerror}", where=str(path)) from None
    return Line(sock)


def main(argv: list[str]) -> int:
    """`python -m runner.core.base.dialing SOCKET`: exit 0 if somebody accepts connections there, for compose."""
    try:
        connect(Path(argv[1]), 3).close()
    except DoorError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
