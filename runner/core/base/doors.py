"""Unix-socket doors between rooms: one JSON object per line, capped, peers checked. TRUSTED. How to call: dialing.py.

A door is a socket in a directory of its own, so a container can be given the one without the others.
The kernel names the peer (SO_PEERCRED); a peer of another uid is hung up on without an answer.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.core.base.errors import DoorError
from trainer.wire import strict_json

MAX_LINE = 64 << 10
PREFIX = "glovebox-"  # of the short-lived folder that holds the doors of one run
MAX_PEERS = 8  # connections served at a time, unless told otherwise; more are hung up on
_CREDENTIALS = struct.Struct("3i")
_CLOSED = (errno.EBADF, errno.EINVAL)
_SEND_TIMEOUT = struct.pack("ll", 30, 0)  # seconds, microseconds: a peer that does not read is left


@dataclass(frozen=True)
class Places:
    """Where the doors of one run are; each socket in a directory of its own."""

    root: Path

    @property
    def launch(self) -> Path:
        """Runner to launcher."""
        return self.root / "launch" / "launch.sock"

    @property
    def bench(self) -> Path:
        """Agent to runner."""
        return self.desk(0)

    def desk(self, lane: int, seat: int = 0) -> Path:
        """Agent of a lane to runner; a lane may have several."""
        name = f"bench-{lane}.{seat}" if seat else f"bench-{lane}" if lane else "bench"
        return self.root / name / "bench.sock"

    @property
    def llm(self) -> Path:
        """Agent to broker."""
        return self.root / "llm" / "llm.sock"

    @property
    def meter(self) -> Path:
        """Runner to broker."""
        return self.root / "meter" / "meter.sock"


class Line:
    """A connected socket that speaks lines of JSON."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._buffer = b""

    def send(self, message: dict[str, Any]) -> None:
        """Write one object; raises DoorError if the peer is gone."""
        try:
            self.sock.sendall(json.dumps(message, allow_nan=False).encode() + b"\n")
        except OSError as error:
            raise DoorError(f"peer hung up: {error.strerror}") from None

    def receive(self, max_bytes: int = MAX_LINE) -> dict[str, Any] | None:
        """The next object, None at end of stream; raises DoorError on anything else."""
        while b"\n" not in self._buffer:
            if len(self._buffer) > max_bytes:
                raise DoorError("line too long")
            try:
                chunk = self.sock.recv(65536)
            except TimeoutError:
                raise DoorError("timed out") from None
            except OSError as error:
                raise DoorError(f"peer hung up: {error.strerror}") from None
            if not chunk:
                return None
            self._buffer += chunk
        line, self._buffer = self._buffer.split(b"\n", 1)
        try:
            value = strict_json.loads(line, max_bytes=max_bytes)
        except strict_json.StrictJsonError as error:
            raise DoorError(f"refused line: {error.reason}") from None
        if not isinstance(value, dict):
            raise DoorError("refused line: not an object")
        return value

    def finish(self) -> None:
        """Say nothing more, and go on listening."""
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Hang up; safe to call twice."""
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()


def peer_uid(sock: socket.socket) -> int:
    """Uid of the process at the other end, from the kernel."""
    _, uid, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return int(uid)


@contextmanager
def listening(path: Path, *, gid: int, mode: int) -> Iterator[socket.socket]:
    """A listening socket at `path`; its directory is created 0750 for `gid` and the socket removed at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.parent.stat().st_gid != gid:
        os.chown(path.parent, -1, gid)
    path.parent.chmod(0o750)
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(str(path))
        os.chown(path, -1, gid)
        path.chmod(mode)
        sock.listen(8)
        yield sock
    finally:
        sock.close()
        path.unlink(missing_ok=True)
        remove_if_empty(path.parent, path.parent.parent)


def remove_if_empty(*folders: Path) -> None:
    """Doors leave nothing behind, even if whoever made their folder was killed."""
    for folder in folders:
        if folder.name.startswith(PREFIX) or folder.parent.name.startswith(PREFIX):
            with suppress(OSError):
                folder.rmdir()


def serve(
    sock: socket.socket,
    uids: frozenset[int],
    handle: Callable[[Line], None],
    peers: int = MAX_PEERS,
    pause: float = 0.0,
) -> None:
    """Accept until the socket is closed; a peer of an allowed uid gets a thread while there are few of them.

    `pause`: seconds between two connections, where a peer may be one that makes them without end.
    """
    free = threading.BoundedSemaphore(peers)
    while True:
        try:
            peer, _ = sock.accept()
        except OSError as error:
            if error.errno in _CLOSED:
                return
            time.sleep(0.1)  # out of descriptors, or the peer left: others may still come
            continue
        if peer_uid(peer) not in uids or not free.acquire(blocking=False):
            peer.close()
            continue
        peer.settimeout(None)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _SEND_TIMEOUT)
        threading.Thread(target=_handle, args=(Line(peer), handle, free), daemon=True).start()
        if pause:
            time.sleep(pause)


def _handle(line: Line, handle: Callable[[Line], None], free: threading.BoundedSemaphore) -> None:
    try:
        handle(line)
    except DoorError:
        pass  # the peer broke the protocol or left; nothing it said is repeated
    finally:
        line.close()
        free.release()
