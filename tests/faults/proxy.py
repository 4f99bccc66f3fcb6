"""A socket in front of the engine's that can fall silent or hang up, as an engine does that stalls or is restarted."""

from __future__ import annotations

import selectors
import socket
import threading
from contextlib import suppress
from pathlib import Path

ENGINE = "/var/run/docker.sock"


class Proxy:
    """Relays connections; `stall` stops passing bytes, `drop` cuts every connection and refuses new ones."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.silent = threading.Event()
        self.down = threading.Event()
        self._open: list[socket.socket] = []
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._server.bind(str(path))
        self._server.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def drop(self) -> None:
        """The engine is gone."""
        self.down.set()
        for sock in self._open:
            _cut(sock)

    def back(self) -> None:
        """The engine is there again."""
        self.down.clear()
        self.silent.clear()

    def close(self) -> None:
        self.drop()
        _cut(self._server)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            if self.down.is_set():
                client.close()
                continue
            engine = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            engine.connect(ENGINE)
            self._open += [client, engine]
            threading.Thread(target=self._relay, args=(client, engine), daemon=True).start()

    def _relay(self, client: socket.socket, engine: socket.socket) -> None:
        with selectors.DefaultSelector() as ready, client, engine:
            ready.register(client, selectors.EVENT_READ, engine)
            ready.register(engine, selectors.EVENT_READ, client)
            try:
                while ready.get_map():
                    for key, _ in ready.select(1.0):
                        data = key.fileobj.recv(65536)  # type: ignore[union-attr]
                        while self.silent.is_set() and not self.down.is_set():
                            self.down.wait(0.1)
                        if data:
                            key.data.sendall(data)
                        else:
                            ready.unregister(key.fileobj)
                            key.data.shutdown(socket.SHUT_WR)
            except OSError:
                return


def _cut(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()
