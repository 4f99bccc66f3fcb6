"""Has a run's page written after each experiment, by a process of its own that nobody waits for. TRUSTED.

The desk draws no page: it decides. Whoever follows its events keeps `runner.people.pages` at the lowest priority and
writes it a line when the ledger says something new; what ends meanwhile is on the next page. It remembers what it read,
so that a page costs the same after ten thousand experiments. A page that fails is a line on stderr.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from runner.core.base.home import Home
from runner.people.host import processes

_CHANGES = ("finished", "answer")  # events after which the ledger says something new
_LAST_SECONDS = 60.0  # that a run's end waits for the last page, which is written without us after that


class PageWriter:
    """Follows one run's events."""

    def __init__(self, home: Home, tag: str) -> None:
        self._home, self._tag = home, tag
        self._process: subprocess.Popen[str] | None = None

    def event(self, event: dict[str, Any]) -> None:
        """Any event of a session."""
        if event["event"] not in _CHANGES:
            return
        with suppress(OSError):  # no process could be made, or it ended just now: the next event tries again
            if self._process is None or self._process.poll() is not None:
                self._end()
                self._process = self._start()
            if self._process.stdin is not None:
                os.write(self._process.stdin.fileno(), b"\n")  # BlockingIOError: it has lines enough

    def close(self) -> None:
        """Wait for the page that shows all there is, but not for ever."""
        if self._process is not None:
            self._end()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_LAST_SECONDS)

    def _start(self) -> subprocess.Popen[str]:
        started = processes.start(
            "runner.people.pages",
            str(self._home.root),
            self._tag,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        if started.stdin is not None:
            os.set_blocking(started.stdin.fileno(), False)
        return started

    def _end(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()


@contextmanager
def writing(home: Home, tag: str) -> Iterator[PageWriter]:
    """A writer that is told a run's events within."""
    writer = PageWriter(home, tag)
    try:
        yield writer
    finally:
        writer.close()
