"""Has a run's page written after each experiment, by a process of its own that nobody waits for. TRUSTED.

The desk draws no page: it decides. Whoever follows its events starts `runner.people.pages`, one at a time and at the
lowest priority; what ends meanwhile is on the next page. A page that fails is a line on stderr.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from runner.core.base.home import Home
from runner.people.host import processes

_CHANGES = ("finished", "answer")  # events after which the ledger says something new
_LAST_SECONDS = 60.0  # that a run's end waits for the last page; one of very many experiments goes on without us


class PageWriter:
    """Follows one run's events."""

    def __init__(self, home: Home, tag: str) -> None:
        self._home, self._tag = home, tag
        self._due = False
        self._process: subprocess.Popen[str] | None = None

    def event(self, event: dict[str, Any]) -> None:
        """Any event of a session."""
        self._due = self._due or event["event"] in _CHANGES
        if self._due and (self._process is None or self._process.poll() is not None):
            self._start()

    def close(self) -> None:
        """Have a page written that shows all there is, and wait for it, but not for ever."""
        ended = self._ended()
        if self._due:
            if not ended and self._process is not None:  # what it shows is old, and it would lie over the last one
                self._process.kill()
                self._process.wait()
            self._start()
            self._ended()

    def _start(self) -> None:
        self._due = False
        with suppress(OSError):  # no process could be made: the next event tries again
            self._process = processes.start(
                "runner.people.pages",
                str(self._home.root),
                self._tag,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )

    def _ended(self) -> bool:
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_LAST_SECONDS)
        return self._process is None or self._process.poll() is not None


@contextmanager
def writing(home: Home, tag: str) -> Iterator[PageWriter]:
    """A writer that is told a run's events within."""
    writer = PageWriter(home, tag)
    try:
        yield writer
    finally:
        writer.close()
