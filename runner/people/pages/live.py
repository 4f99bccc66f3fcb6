"""What `glovebox serve` shows: one tag as it is now, and a list of what there is, as HTML. TRUSTED, reads only.

Everything is escaped; there is one script of ours, which puts what the server sends in its place.
"""

from __future__ import annotations

import re
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from runner.core.artifacts import begun
from runner.core.base import locks, steering
from runner.core.base.errors import GloveboxError
from runner.core.base.home import Home
from runner.core.base.values import Experiment, Rerun
from runner.core.decision import standing
from runner.core.evidence import ledger_file
from runner.core.evidence.ledger import Ledger
from runner.core.evidence.texts import Texts
from runner.people.pages import plot, watch
from runner.people.pages.events import Events

TEMPLATES = Path(__file__).parent / "templates"
PARTS = ("now", "plot", "rest")
SHOWN_ROWS, SHOWN_TAGS, SHOWN_HINTS = 20, 50, 20
_FRESH = 1.0  # seconds that a look is good for, however many ask
_WIDTH, _HEIGHT = 640.0, 120.0
_ENVIRONMENT = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
Curve = Sequence[tuple[int, float]]


class Names(Protocol):
    """people/host/tag_book.py, which pages know nothing of."""

    @property
    def names(self) -> Mapping[str, str]:
        """By tag."""

    @property
    def archived(self) -> frozenset[str]:
        """Tags."""


@dataclass(frozen=True)
class Line:
    """A tag in a list."""

    bench: int
    tag: str
    name: str  # as people call it
    experiments: int
    best: float | None
    running: bool


class View:
    """One tag of one bench, looked at again and again; in PARTS, each sent when it has changed."""

    def __init__(self, home: Home, tag: str) -> None:
        self.home, self.tag = home, tag
        self._file = _identity(home)
        self._book = Ledger(home.ledger, read_only=True)
        self._policies = begun.under_or_now(home, self._book.run_info(tag)["policy"])
        self._look = watch.Look(home, self._policies, self._book, tag)
        self._texts = Texts(self._book)
        self._events = Events(home, tag, self._policies.decision.uneven_processors, lambda _: None)
        self._lock = threading.Lock()
        self._until, self._parts = 0.0, dict[str, str]()
        self._count = 0
        self._drawn: tuple[tuple[int, int], str] = (-1, -1), ""  # of how many rows and reruns

    def current(self) -> bool:
        """Whether the bench still has the ledger that is looked at: a restored one is another file, or has less."""
        return _identity(self.home) == self._file and self._book.glance(self.tag).experiments >= self._count

    def parts(self) -> dict[str, str]:
        """The page's parts as they are now; raises GloveboxError, OSError, sqlite3.Error."""
        with self._lock:
            if time.monotonic() >= self._until:
                self._parts = self._render()
                self._until = time.monotonic() + _FRESH
            return self._parts

    def page(self, bench: int, found: Sequence[Line], *, several: bool) -> str:
        """The whole page."""
        parts = {name: Markup(text) for name, text in self.parts().items()}  # noqa: S704 - rendered, escaped, by us
        here = {"tag": self.tag, "bench": bench, "home": str(self.home.root)}
        template = _ENVIRONMENT.get_template("live.html.j2")
        return template.render(**here, parts=parts, lines=found, several=several)

    def _render(self) -> dict[str, str]:
        state = self._look.now()
        with self._book.at_once():
            reruns = self._book.reruns(self.tag)
        rows, self._count = state.rows, len(state.rows)
        kept = standing.line(rows)
        now = _ENVIRONMENT.get_template("live_now.html.j2").render(
            state=state,
            baseline=kept[0] if kept else None,
            best=kept[-1] if kept else None,
            expected=standing.expected(rows),
            lanes=[(one, curves(one.curve, kept[-1].curve if kept else ())) for one in state.running],
        )
        asked = [request for _, request in steering.waiting(self.home, self.tag) if request is not None]
        rest = _ENVIRONMENT.get_template("live_rest.html.j2").render(
            shown=list(reversed(rows[-SHOWN_ROWS:])),
            hints=[steer.text for steer in steering.hints(self._texts.steers(self.tag))][-SHOWN_HINTS:],
            asked=asked[-SHOWN_HINTS:],
            events=self._events.found(rows, reruns),
        )
        return dict(zip(PARTS, (now, self._frontier(rows, reruns), rest), strict=True))

    def _frontier(self, rows: Sequence[Experiment], reruns: Sequence[Rerun]) -> str:
        """Drawn when there is a new row or rerun, not at every look."""
        key = (len(rows), len(reruns))
        if self._drawn[0] != key:
            noise = standing.noise(self._policies.decision, rows, reruns)
            pictures = [plot.frontier(rows, noise.sigma if noise else 0.0, narrow=narrow) for narrow in (False, True)]
            wide, small = (re.sub(r"(?s)<style.*?</style>", "", text) for text in pictures)  # our policy forbids it
            self._drawn = key, f'<div class="plot wide">{wide}</div><div class="plot narrow">{small}</div>'
        return self._drawn[1]


def _identity(home: Home) -> tuple[object, ...]:
    """Which file the ledger is, and how it is opened: one that nobody wrote to is read as it lies, where we may not
    write, and that view of it sees neither who begins to nor what was written since."""
    try:
        told, way = home.ledger.stat(), ledger_file.way(home.ledger, read_only=True)
        lies = (told.st_size, told.st_mtime_ns) if "immutable" in way else ()
        return told.st_dev, told.st_ino, way, lies
    except (GloveboxError, OSError):
        return ()


def lines(benches: Sequence[Home], names: Callable[[Home], Names]) -> tuple[list[Line], dict[int, str]]:
    """The newest tags of every bench, and by its number what keeps one from being looked at.

    `names`: what people call a bench's tags, and have put away.
    """
    found, wrong = [], dict[int, str]()
    for number, home in enumerate(benches):
        try:
            found += _tags(number, home, names)
        except (GloveboxError, OSError, sqlite3.Error) as error:
            wrong[number] = str(error)
    return found, wrong


def _tags(number: int, home: Home, names: Callable[[Home], Names]) -> list[Line]:
    if not home.ledger.exists():
        return []
    book, known = Ledger(home.ledger, read_only=True), names(home)
    works = book.latest() if locks.held(home.runner_lock) else None
    tags = [tag for tag in book.tags() if tag not in known.archived][:SHOWN_TAGS]
    told = [(tag, book.glance(tag)) for tag in tags]
    return [Line(number, tag, known.names.get(tag, tag), one.experiments, one.best, tag == works) for tag, one in told]


def overview(benches: Sequence[Home], found: Sequence[Line], wrong: dict[int, str]) -> str:
    """All benches and their tags."""
    names = [str(home.root) for home in benches]
    return _ENVIRONMENT.get_template("live_all.html.j2").render(names=names, lines=found, wrong=wrong)


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
