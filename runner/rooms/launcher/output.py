"""What a container prints: taken from the engine's attach stream, counted and capped. TRUSTED; bytes are not read."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator


class Output:
    """What a container prints: taken out of the attached stream into a sink, counted, at most `cap` bytes kept."""

    def __init__(self, stream: socket.socket, sink: Callable[[bytes], None], cap: int) -> None:
        self._stream, self._sink, self._cap = stream, sink, cap
        self._demultiplexer = Demultiplexer()
        self.total = 0

    def fileno(self) -> int:
        """For select."""
        return self._stream.fileno()

    def read(self) -> bool:
        """Take what is there; False at the end of the stream."""
        data = self._stream.recv(65536)
        for chunk in self._demultiplexer.feed(data):
            self._sink(chunk[: max(0, self._cap - self.total)])
            self.total += len(chunk)
        return bool(data)

    @property
    def flooded(self) -> bool:
        """Whether it was more than is kept."""
        return self.total > self._cap


class Demultiplexer:
    """Incremental parser of the attach stream: 8-byte header (stream, 3 zero, length), then payload."""

    def __init__(self) -> None:
        self._header = b""
        self._left = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Payload chunks in `data`; holds no more than an incomplete header between calls."""
        at = 0
        while at < len(data):
            if self._left == 0:
                need = 8 - len(self._header)
                self._header += data[at : at + need]
                at += need
                if len(self._header) == 8:
                    (self._left,) = struct.unpack(">I", self._header[4:])
                    self._header = b""
                continue
            chunk = data[at : at + self._left]
            self._left -= len(chunk)
            at += len(chunk)
            yield chunk
