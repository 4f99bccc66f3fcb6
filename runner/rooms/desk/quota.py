"""How often an agent may ask, and how many experiments may still begin. TRUSTED."""

from __future__ import annotations

import threading
import time


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
