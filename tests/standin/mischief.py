"""A server that says what it is told to, byte by byte: what no HTTP library would send.

A fault is a list of steps: bytes are sent, a number of seconds is waited, RESET cuts the connection off. Each connection is
one request and one fault; without one left it answers as the API does. It keeps what it was asked.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import Any

RESET = "reset"
UNREAD = "unread"  # before any other step: the request is not read
Step = bytes | float | str
INPUT = 60  # tokens of every prompt, as it counts them


def sse(**value: Any) -> bytes:
    """One event of a stream."""
    return f"event: {value['type']}\ndata: {json.dumps(value)}\n\n".encode()


def start(**usage: Any) -> bytes:
    """The event that a stream begins with."""
    told = {"input_tokens": INPUT, "output_tokens": 1} | usage
    message = {"id": "msg_1", "type": "message", "role": "assistant", "content": [], "usage": told}
    return sse(type="message_start", message=message)


def text(words: str) -> bytes:
    """A piece of what was written."""
    return sse(type="content_block_delta", index=0, delta={"type": "text_delta", "text": words})


def stop(**usage: Any) -> bytes:
    """The event that says what was written in all."""
    return sse(type="message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 2} | usage)


OPEN = sse(type="content_block_start", index=0, content_block={"type": "text", "text": ""})
SHUT = sse(type="content_block_stop", index=0)
END = sse(type="message_stop")
WHOLE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "content": [{"type": "text", "text": "ok"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": INPUT, "output_tokens": 2},
}


def head(status: str = "200 OK", kind: str = "text/event-stream", **more: str) -> bytes:
    """Status line and headers; the body ends with the connection unless one of `more` says otherwise."""
    fields = {"content-type": kind, "connection": "close"} | {name.replace("_", "-"): v for name, v in more.items()}
    return f"HTTP/1.1 {status}\r\n".encode() + b"".join(f"{k}: {v}\r\n".encode() for k, v in fields.items()) + b"\r\n"


def whole(body: bytes, status: str = "200 OK", kind: str = "application/json", **more: str) -> bytes:
    """An answer in one piece, of the length that it says."""
    return head(status, kind, content_length=str(len(body)), **more) + body


def good(asked: dict[str, Any]) -> list[Step]:
    """What a healthy API says."""
    if asked.get("stream"):
        return [head() + start() + OPEN + text("ok") + SHUT + stop() + END]
    return [whole(json.dumps(WHOLE).encode())]


class Mischief:
    """Serves from threads of this process; used as a context."""

    def __init__(self) -> None:
        self.faults: deque[list[Step]] = deque()
        self.bodies: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Mischief:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                line, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(line,), daemon=True).start()

    def _serve(self, line: socket.socket) -> None:
        steps: Iterable[Step] = self.faults.popleft() if self.faults else ()
        with line, contextlib.suppress(OSError):  # the other side may leave, which is its right
            first = next(iter(steps), b"")
            body = b"{}" if first == UNREAD else _request(line)
            if first != UNREAD:
                self.bodies.append(body)
            for step in steps or good(json.loads(body)):
                if isinstance(step, bytes):
                    line.sendall(step)
                elif step == RESET:
                    line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    return
                elif isinstance(step, float):
                    time.sleep(step)
            line.shutdown(socket.SHUT_WR)
            line.settimeout(5.0)
            while line.recv(1 << 16):  # else what was not read would reset the connection, and the answer with it
                pass


def drip(data: bytes, pause: float) -> list[Step]:
    """One byte at a time."""
    return list(itertools.chain.from_iterable((data[at : at + 1], pause) for at in range(len(data))))


def _request(line: socket.socket) -> bytes:
    """The body of the request that arrives."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = line.recv(1 << 16)
        if not piece:
            raise ConnectionError
        data += piece
    fields, _, body = data.partition(b"\r\n\r\n")
    length = next(int(one.split(b":")[1]) for one in fields.split(b"\r\n") if one.lower().startswith(b"content-length"))
    while len(body) < length and (piece := line.recv(1 << 16)):
        body += piece
    return body
