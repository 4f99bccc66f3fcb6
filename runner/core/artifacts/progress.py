"""What long work says of itself while it goes on; nobody listens, unless a command shows it. TRUSTED."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Advance = Callable[[float], None]


class Stages:
    """One stage after the other, shown to nobody."""

    def say(self, text: str) -> None:
        """One line."""

    @contextmanager
    def stage(self, text: str, total: float) -> Iterator[Advance]:  # noqa: ARG002 - for whoever shows it
        """A stage of `total` units; yields what is called with each amount done."""
        yield lambda _: None
