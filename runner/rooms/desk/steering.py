"""What a person asks of a tag while it runs: recorded and signed first, acted on then. TRUSTED.

One for all lanes of a tag. Requests lie in the bench (core/base/steering.py); every answer of a desk looks for them.
A paused tag answers no agent, so no experiment begins and no model is called; what runs runs to its end.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

from runner.core.base.errors import UsageError
from runner.core.base.mountable import SHIPPED
from runner.core.base.steering import Steer, directive, hints, paused, waiting
from runner.core.decision import standing
from runner.core.evidence.recorder import Recorder
from runner.rooms.desk.train_and_score import Emit

PROGRAM_BYTES = 64 << 10
_LOOKS = 0.5  # seconds between two looks for a paused tag's resumption
_TRIES = 2  # runs that a veto may take: the file it leads to may fail once
_HINTS = 10  # that agents are told, the newest


class Steering:
    """The requests of one tag, and the person's directive."""

    def __init__(self, recorder: Recorder, emit: Emit) -> None:
        self.turn = threading.Lock()  # one lane carries out vetoes
        self._recorder, self._emit = recorder, emit
        self._lock = threading.Lock()
        self._unread = ""
        self._left: set[Path] = set()  # what could not be removed
        self._program: tuple[str, str] | None = None  # digest and text as it was last read

    def catch_up(self) -> list[Steer]:
        """Take in what people asked since; all of it, in order."""
        with self._lock:
            for path, request in waiting(self._recorder.home, self._recorder.tag):
                if path in self._left:
                    continue
                try:
                    steer = None if request is None else self._recorder.steer(request)
                except UsageError:
                    steer = None
                if steer is None:
                    self._emit("not_asked", {"file": str(path)})
                else:
                    self._emit("steered", {"verb": steer.verb, "text": steer.text, "experiment": steer.experiment})
                try:
                    path.unlink(missing_ok=True)
                except OSError:  # a folder, perhaps: it is looked at no more
                    self._left.add(path)
            return self._recorder.texts.steers(self._recorder.tag)

    def wait(self, over: Callable[[float], bool]) -> None:
        """Until the tag is not paused, or `over`, which waits so many seconds at most and says whether it is."""
        while paused(self.catch_up()) and not over(_LOOKS):
            pass

    def hints(self) -> list[dict[str, object]]:
        """The person's words that stand, as agents are told them."""
        found = hints(self._recorder.texts.steers(self._recorder.tag))[-_HINTS:]
        return [{"after": one.after, "text": one.text} for one in found]

    def vetoes(self) -> list[int]:
        """Keeps that a person took back and that are still in the line."""
        steers = self._recorder.texts.steers(self._recorder.tag)
        asked = {one.experiment: one.after for one in steers if one.verb == "veto"}  # the newest request of each
        if not asked:
            return []
        rows = self._recorder.ledger.experiments(self._recorder.tag)
        there = [row.id for row in standing.line(rows)[1:] if row.id in asked]
        return [n for n in there if sum(row.veto == n for row in rows[asked[n] :]) < _TRIES]

    def program(self) -> tuple[str, str]:
        """(digest, text) of the person's directive as it is now; if that cannot be read, as it last was."""
        with self._lock:
            try:
                text = read_program(directive(self._recorder.home))
            except ValueError as error:
                text = read_program(SHIPPED / "program.md") if self._program is None else self._program[1]
                if str(error) != self._unread:  # once
                    self._emit("program_unreadable", {"error": str(error)})
                self._unread = str(error)
            if self._program is None or self._program[1] != text:
                with self._recorder.lock:
                    self._program = self._recorder.texts.keep(text), text
            return self._program


def read_program(path: Path) -> str:
    """A directive; raises ValueError for what is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe is not waited for
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ValueError(f"{path}: not a file")
            data = file.read(PROGRAM_BYTES + 1)
        if len(data) > PROGRAM_BYTES:
            raise ValueError(f"{path}: more than {PROGRAM_BYTES >> 10} KiB")
        text = data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {error}") from None
    if not text.strip():
        raise ValueError(f"{path}: empty")
    return text
