"""A run's training loss while it trains: at shares of its budget, by the host's clock, and whether it is one. TRUSTED.

The losses are the run's own word, as the filter lets them through. The clock of the looks starts when the first step
is seen; a run that reports none is never looked at.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

_DIGITS = 6
_LAST = 5  # losses whose median stands for a look
_INTERVAL = 0.2  # seconds between two looks for the first step
_LOST_INTERVAL = 3.0  # seconds between two looks for a loss that is no number
_REST = 5.0  # times what such a look took: whoever floods its telemetry is looked at less often


@dataclass
class Pace:
    """(share of the budget, loss) at the looks so far; `ended` once the run was ended for it."""

    looks: list[tuple[float, float]] = field(default_factory=list)
    ended: bool = False


@contextmanager
def ended_if(lost: Callable[[], bool], stop: Callable[[], None]) -> Iterator[Pace]:
    """Call `stop` once a run was `lost` at two looks in a row: a loss that is no number seldom becomes one again."""
    found = Pace()

    def keep(over: threading.Event) -> None:
        before, wait = False, _LOST_INTERVAL
        while not over.wait(wait):
            looked = time.monotonic()
            now = lost()
            if now and before:
                found.ended = True
                stop()
                return
            before, wait = now, _LOST_INTERVAL + _REST * (time.monotonic() - looked)

    with _beside(keep):
        yield found


@contextmanager
def watched(
    losses: Callable[[], list[float]],
    budget: float,
    shares: Sequence[float],
    judge: Callable[[float, float], bool],
    stop: Callable[[], None],
) -> Iterator[Pace]:
    """Note the pace of a run from a thread; `stop` is called once `judge(share, loss)` gives it up.

    `losses` reads what the run has reported so far.
    """
    pace = Pace()

    def keep(over: threading.Event) -> None:
        while True:
            looked = time.monotonic()
            if losses():
                break
            if over.wait(_INTERVAL + _REST * (time.monotonic() - looked)):
                return
        began = time.monotonic()
        for share in shares:
            if over.wait(max(0.0, began + share * budget - time.monotonic())):
                return
            last = losses()[-_LAST:]
            if not last:
                continue  # it emptied its telemetry
            loss = round(statistics.median(last), _DIGITS)
            pace.looks.append((share, loss))
            if judge(share, loss):
                pace.ended = True
                stop()
                return

    with _beside(keep) if shares else nullcontext():
        yield pace


@contextmanager
def _beside(keep: Callable[[threading.Event], None]) -> Iterator[None]:
    """`keep` in a thread of its own until the block ends: then the event it was given is set."""
    over = threading.Event()
    thread = threading.Thread(target=keep, args=(over,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(10)
