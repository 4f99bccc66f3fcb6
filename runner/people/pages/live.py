"""What `glovebox serve` shows: one tag as it is now, and a list of what there is, as HTML. TRUSTED, reads only.

Everything is escaped; there is one script of ours, which puts what the server sends in its place.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from runner.core.artifacts import begun
from runner.core.base import locks, steering
from runner.core.base.home import Home
from runner.core.base.values import Experiment, Status
from runner.core.decision import standing
from runner.core.evidence.ledger import Ledger
from runner.core.evidence.texts import Texts
from runner.people.pages import plot, watch
from runner.people.pages.events import Events

TEMPLATES = Path(__file__).parent / "templates"
SHOWN_ROWS, SHOWN_TAGS, SHOWN_HINTS = 20, 50, 20
_FRESH = 1.0  # seconds that a look is good for, however many ask
_WIDTH, _HEIGHT = 640.0, 120.0
_ENVIRONMENT = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
Curve = Sequence[tuple[int, float]]


@dataclass(frozen=True)
class Line:
    """A tag in a list."""

    bench: int
    tag: str
    experiments: int
    best: float | None
    running: bool


class View:
    """One tag of one bench, looked at again and again."""

    def __init__(self, home: Home, tag: str) -> None:
        self.home, self.tag = home, tag
        self._book = Ledger(home.ledger, read_only=True)
        self._policies = begun.under_or_now(home, self._book.run_info(tag)["policy"])
        self._look = watch.Look(home, self._policies, self._book, tag)
        self._texts = Texts(self._book)
        self._events = Events(home, tag, self._policies.decision.uneven_processors, lambda _: None)
        self._lock = threading.Lock()
        self._until, self._text = 0.0, ""
        self._drawn: tuple[tuple[int, int], Markup] | None = None  # of how many rows and reruns

    def fragment(self) -> str:
        """What changes of the page, as it is now; raises GloveboxError."""
        with self._lock:
            if time.monotonic() >= self._until:
                self._text = self._render()
                self._until = time.monotonic() + _FRESH
            return self._text

    def page(self, bench: int, lines: Sequence[Line], *, several: bool) -> str:
        """The whole page."""
        template = _ENVIRONMENT.get_template("live.html.j2")
        here = {"tag": self.tag, "bench": bench, "home": str(self.home.root)}
        return template.render(**here, live=Markup(self.fragment()), lines=lines, several=several)  # noqa: S704

    def _render(self) -> str:
        state = self._look.now()
        with self._book.at_once():
            reruns = self._book.reruns(self.tag)
        rows = state.rows
        kept = [row for row in rows if row.status is Status.KEEP]
        steers = self._texts.steers(self.tag)
        asked = [request for _, request in steering.waiting(self.home, self.tag) if request is not None]
        return _ENVIRONMENT.get_template("live_part.html.j2").render(
            state=state,
            works=bool(state.running) or locks.held(self.home.runner_lock),
            baseline=kept[0] if kept else None,
            best=kept[-1] if kept else None,
            expected=next((row.total for row in reversed(rows) if row.total is not None), None),
            lanes=[(now, curves(now.curve, kept[-1].curve if kept else ())) for now in state.running],
            frontier=self._frontier(rows, reruns),
            shown=list(reversed(rows[-SHOWN_ROWS:])),
            hints=[steer.text for steer in steering.hints(steers)][-SHOWN_HINTS:],
            asked=asked[-SHOWN_HINTS:],
            events=self._events.found(rows, reruns),
        )

    def _frontier(self, rows: Sequence[Experiment], reruns: Sequence[Any]) -> Markup:
        """Drawn when there is a new row or rerun, not at every look."""
        key = (len(rows), len(reruns))
        if self._drawn is None or self._drawn[0] != key:
            noise = standing.noise(self._policies.decision, rows, reruns)
            drawn = plot.frontier(rows, noise.sigma if noise else 0.0)
            small = plot.frontier(rows, noise.sigma if noise else 0.0, narrow=True)
            drawn, small = (
                re.sub(r"(?s)<style.*?</style>", "", svg) for svg in (drawn, small)
            )  # the policy forbids it
            both = f'<div class="plot wide">{drawn}</div><div class="plot narrow">{small}</div>'
            self._drawn = key, Markup(both)  # noqa: S704 - made by matplotlib, labels are drawn as paths
        return self._drawn[1]


def lines(benches: Sequence[Home]) -> list[Line]:
    """The newest tags of every bench; one whose ledger cannot be read raises GloveboxError."""
    found = []
    for number, home in enumerate(benches):
        book = Ledger(home.ledger, read_only=True)
        works = locks.held(home.runner_lock)
        for at, tag in enumerate(book.tags()[:SHOWN_TAGS]):
            rows = book.experiments(tag)
            best = standing.best(rows)
            found.append(Line(number, tag, len(rows), best.val_bpb if best else None, works and not at))
    return found


def overview(benches: Sequence[Home], found: Sequence[Line]) -> str:
    """All benches and their tags."""
    names = [str(home.root) for home in benches]
    return _ENVIRONMENT.get_template("live_all.html.j2").render(names=names, lines=found)


def curves(now: Curve, best: Curve) -> Markup:
    """Training loss of what runs, and of the best, as an <svg> element; numbers alone are in it."""
    points = [*now, *best]
    if not now or not points:
        return Markup("")
    last = max(step for step, _ in points) or 1
    low, high = min(loss for _, loss in points), max(loss for _, loss in points)
    span = high - low or 1.0

    def line(curve: Curve, kind: str) -> str:
        places = " ".join(f"{_WIDTH * x / last:.1f},{_HEIGHT * (high - y) / span:.1f}" for x, y in curve)
        return f'<polyline class="{kind}" points="{places}"/>' if curve else ""

    told = f"training loss, {high:.3f} to {low:.3f} over {last} steps; the best's is the thin line"
    return Markup(  # noqa: S704 - numbers of ours
        f'<svg class="curve" viewBox="0 -4 {_WIDTH:.0f} {_HEIGHT + 8:.0f}" role="img" aria-label="{told}" '
        f'preserveAspectRatio="none">{line(best, "best")}{line(now, "now")}</svg><p class="soft">{told}</p>'
    )
