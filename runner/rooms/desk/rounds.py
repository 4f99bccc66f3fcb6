"""Rounds: lanes whose agents stand still while anything trains begin their experiments together. TRUSTED.

An agent that is frozen cannot ask. So who asked first would train alone, with everybody else's agent frozen, and the
others after it: lanes took turns, and a second GPU stood idle. Instead who asks first waits until every lane has asked,
but no longer than an experiment takes: a longer wait would cost more than it gains. Who was not there in time is waited
for again in the next round, then in every second, fourth, eighth: an agent that hangs costs a night little.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LOOK_SECONDS = 0.2


class Rounds:
    """Of all lanes of a session; with one lane nobody waits."""

    def __init__(self) -> None:
        self._missed: dict[int, int] = {}  # rounds in a row, by lane that takes part
        self._here: set[int] = set()
        self._running: set[int] = set()
        self._change = threading.Condition()

    def expect(self, lane: int) -> None:
        """Wait for this lane from now on."""
        with self._change:
            self._missed[lane] = 0

    def leave(self, lane: int) -> None:
        """It asks no more."""
        with self._change:
            self._missed.pop(lane, None)
            self._begin_if_complete()

    @contextmanager
    def turn(self, lane: int, patience: float, *, last: bool, over: Callable[[], bool]) -> Iterator[None]:
        """This lane's experiment, from when it may begin: with its round's, after `patience` seconds, or if `over`.

        `last`: no lane may begin another, so nobody is waited for. Who comes while a round is under way joins it.
        """
        with self._change:
            self._missed[lane] = 0
            self._here.add(lane)
            if last or self._running:
                self._begin()
            self._begin_if_complete()
            self._wait(lane, time.monotonic() + patience, over)
            self._running.add(lane)
        try:
            yield
        finally:
            with self._change:
                self._running.discard(lane)

    def _wait(self, lane: int, deadline: float, over: Callable[[], bool]) -> None:
        while lane in self._here and not over():
            if time.monotonic() >= deadline:
                self._begin()
            self._change.wait(_LOOK_SECONDS)
        self._here.discard(lane)

    def _begin_if_complete(self) -> None:
        awaited = {lane for lane, missed in self._missed.items() if missed & (missed - 1) == 0}  # 0, 1, 2, 4, 8 ...
        if self._here and awaited <= self._here:
            self._begin()

    def _begin(self) -> None:
        busy = self._here | self._running
        self._missed = {lane: 0 if lane in busy else missed + 1 for lane, missed in self._missed.items()}
        self._here.clear()
        self._change.notify_all()
