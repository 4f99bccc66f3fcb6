"""How often an agent may ask, how many experiments may still begin, and whose turn it is on a lane. TRUSTED."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class Pace:
    """So many requests a second from one agent, whatever number of connections; a burst is made up for by waiting.

    The desk's work is done on the processors that candidates train on.
    """

    def __init__(self, per_second: float, burst: int) -> None:
        self._gap, self._ahead = 1.0 / per_second, burst / per_second
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Return when it is this request's turn."""
        with self._lock:
            now = time.monotonic()
            self._next = max(self._next, now - self._ahead) + self._gap
            due = self._next
        if due > now:
            time.sleep(due - now)


class Quota:
    """Experiments that may still begin, for all lanes together; None: no end."""

    def __init__(self, experiments: int | None) -> None:
        self.left = experiments
        self._lock = threading.Lock()

    def take(self) -> bool:
        """One of them, if there is one left."""
        with self._lock:
            if self.left == 0:
                return False
            self.left = None if self.left is None else self.left - 1
            return True

    def give_back(self) -> None:
        """One that came to nothing."""
        with self._lock:
            self.left = None if self.left is None else self.left + 1


class Turns:
    """Who trains on a lane next, of those that propose for it: whoever asked first. Others wait, one each."""

    def __init__(self, seats: int = 1) -> None:
        self._there = seats
        self._queue: deque[object] = deque()
        self._change = threading.Condition()

    @contextmanager
    def take(self) -> Iterator[None]:
        """It is this one's turn within."""
        mine = object()
        with self._change:
            self._queue.append(mine)
            while self._queue[0] is not mine:
                self._change.wait()
        try:
            yield
        finally:
            with self._change:
                self._queue.remove(mine)
                self._change.notify_all()

    def leave(self) -> bool:
        """One of them is gone; whether it was the last."""
        with self._change:
            self._there -= 1
            return self._there == 0
