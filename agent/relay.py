"""Loopback to llm.sock, for agents that know the model API by ANTHROPIC_BASE_URL only. UNTRUSTED.

The container has no network but its own loopback device; what arrives there is passed to the broker's socket
byte for byte; on the way it hears which answers there are, and which budget is used up.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass

from agent.model import SOCKET

PORT = 8080
BASE_URL = f"http://127.0.0.1:{PORT}"
_CHUNK = 65536
_REFUSAL_BYTES = 4096


@dataclass
class Heard:
    """What the broker said to whoever called."""

    answers: int = 0  # calls that the budget had room for
    experiment: bool = False  # the budget of this experiment is used up
    night: bool = False


HEARD = Heard()


class _Listener:
    """To the answers of one connection: their first lines, and the words of a refusal."""

    def __init__(self) -> None:
        self._refusal: bytes | None = None  # what came of one so far

    def __call__(self, data: bytes) -> None:
        if data.startswith(b"HTTP/1.1 "):
            HEARD.answers += data.startswith(b"HTTP/1.1 200")
            self._refusal = b"" if data.startswith(b"HTTP/1.1 403") else None
        if self._refusal is not None:
            self._refusal = (self._refusal + data)[:_REFUSAL_BYTES]
            HEARD.experiment = HEARD.experiment or b"glovebox: budget_experiment_" in self._refusal
            HEARD.night = HEARD.night or b"glovebox: budget_night_" in self._refusal


def _deaf(_: bytes) -> None:
    """Requests are nobody's business."""


async def _copy(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, listen: Callable[[bytes], None] = _deaf
) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_CHUNK):
            listen(data)
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


async def _join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, socket: str) -> None:
    try:
        there_reader, there_writer = await asyncio.open_unix_connection(socket)
    except OSError:
        writer.close()  # the caller sees a broken connection and tries again
        return
    try:
        await asyncio.gather(_copy(reader, there_writer), _copy(there_reader, writer, _Listener()))
    finally:
        there_writer.close()
        writer.close()


async def serve(ready: threading.Event, socket: str = SOCKET, port: int = PORT) -> None:
    """Accept on the loopback device for ever."""
    server = await asyncio.start_server(lambda r, w: _join(r, w, socket), "127.0.0.1", port)
    ready.set()
    await server.serve_forever()


def start() -> None:
    """Serve from a thread that ends with the process; returns once connections are accepted."""
    ready = threading.Event()
    threading.Thread(target=lambda: asyncio.run(serve(ready)), daemon=True).start()
    if not ready.wait(10):
        raise RuntimeError("the relay did not start")
