"""Loopback to llm.sock, for agents that know the model API by ANTHROPIC_BASE_URL only. UNTRUSTED.

The container has no network but its own loopback device; what arrives there is passed to the broker's socket
byte for byte.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading

from agent.model import SOCKET

PORT = 8080
BASE_URL = f"http://127.0.0.1:{PORT}"
_CHUNK = 65536


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_CHUNK):
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
        await asyncio.gather(_copy(reader, there_writer), _copy(there_reader, writer))
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
