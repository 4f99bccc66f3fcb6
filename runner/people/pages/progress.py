"""How long work is shown: a bar on a terminal, plain lines elsewhere. TRUSTED, shows only."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from runner.core.artifacts.progress import Advance, Stages

_EVERY = 10.0  # seconds between plain lines


class ShownStages(Stages):
    """One stage after the other, on a console."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def say(self, text: str) -> None:
        """One line."""
        self._console.print(text, markup=False)

    @contextmanager
    def stage(self, text: str, total: float) -> Iterator[Advance]:
        """A stage of `total` units; yields what is called with each amount done."""
        if self._console.is_terminal:
            columns = TextColumn("{task.description}"), BarColumn(30), TaskProgressColumn(), TimeRemainingColumn()
            with Progress(*columns, console=self._console, transient=True) as bar:
                task = bar.add_task(text, total=total)
                yield lambda amount: bar.advance(task, amount)
            self.say(text)
        else:
            yield self._plain(text, total)

    def _plain(self, text: str, total: float) -> Advance:
        self.say(text)
        state = {"done": 0.0, "told": time.monotonic()}

        def advance(amount: float) -> None:
            state["done"] += amount
            if time.monotonic() - state["told"] >= _EVERY and total:
                state["told"] = time.monotonic()
                self.say(f"{text}: {100 * min(1.0, state['done'] / total):.0f}%")

        return advance
