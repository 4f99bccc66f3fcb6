"""`glovebox watch`: what a bench is doing, for people, while it does it. TRUSTED, reads only.

The ledger, the broker's meter and the telemetry of the experiments in progress, which passes the same filter as what
the agent is told. A frame is built from a State alone, so it is the same on a terminal, in a pipe and in a test.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from runner.core.airlock import leak_budget, telemetry_file
from runner.core.artifacts import store
from runner.core.base import benches, gpus, steering
from runner.core.base.errors import GloveboxError
from runner.core.base.home import Home
from runner.core.base.launching import MAX_LANES
from runner.core.base.values import Experiment, Rerun, Status
from runner.core.evidence import ledger, spending, texts
from runner.core.policy.policy_files import Policies
from runner.people.pages import console, views

SHOWN_ROWS = 8
MOST_KEEPS = 400  # of the frontier; no terminal is wider


@dataclass(frozen=True)
class Running:
    """An experiment in progress; lanes run several at a time."""

    number: int
    description: str
    seconds: float  # since it was accepted
    curve: list[tuple[int, float]]
    rerun: str = ""  # what is run for its sake, if its own run is over


@dataclass(frozen=True)
class State:
    """All that a frame shows."""

    tag: str
    count: int
    rows: Sequence[Experiment]  # the newest at least
    keeps: Sequence[float]  # their scores
    running: list[Running]
    cost: spending.Spent | None
    budget: float  # seconds of training an experiment has
    dollars: float  # policy's ceiling for the tag
    away: str | None  # until when the model API is left alone
    gpus: list[str]
    hours: float  # since the tag began, to now or to its end
    leak_bits: float
    leak_limit: int
    leak_left: int  # experiments that may still be told
    paused: bool
    works: bool  # whether a session does
    hints: int  # that stand

    @property
    def leak_ends_at(self) -> int:
        """Number of the last experiment that may be told."""
        return self.count + self.leak_left


class Look:
    """Looks at one tag again and again: a row is read once."""

    def __init__(self, home: Home, policies: Policies, book: ledger.Ledger, tag: str) -> None:
        """`policies`: those the tag was begun under."""
        self._home, self._policies, self._book, self._tag = home, policies, book, tag
        self._budget = 0.0
        with suppress(GloveboxError):  # its artifact may be gone
            self._budget = float(store.shown(home, book.run_info(tag)["artifact"]).predicate.profile["time_budget_s"])
        self._account = leak_budget.Account(policies)
        self._texts = texts.Texts(book)
        self._seen, self._keeps = 0, list[float]()

    def now(self) -> State:
        """The state of the tag; raises GloveboxError."""
        home, book, tag = self._home, self._book, self._tag
        with book.at_once():
            began, rows = book.run_info(tag)["started"], book.experiments(tag)
            running = _running(home, self._policies, book, tag)
            works = bool(running) or benches.tag_at_work(home) == tag
        told = self._account.catch_up(rows)
        new = rows[self._seen :]
        self._keeps += [row.val_bpb for row in new if row.status is Status.KEEP and row.val_bpb is not None]
        self._seen = len(rows)
        return State(
            tag=tag,
            count=len(rows),
            rows=rows,
            keeps=self._keeps,
            running=running,
            cost=spending.spent(home.spent, tag),
            budget=self._budget,
            dollars=self._policies.broker.night.dollars,
            away=_clock(spending.away(home.broker)),
            gpus=gpus.lines(),
            hours=_hours(began, rows, running=works),
            leak_bits=told.bits,
            leak_limit=told.limit,
            leak_left=told.left,
            paused=texts.paused(home, self._texts, tag),
            works=works,
            hints=len(steering.hints(self._texts.steers(tag))),
        )


def _clock(moment: datetime | None) -> str | None:
    return None if moment is None else f"{moment.astimezone():%H:%M:%S}"


def _hours(began: str, rows: Sequence[Experiment], *, running: bool) -> float:
    """Since the tag began; of one that nobody works on, to the end of its last experiment."""
    if running or not rows:
        return _since(began) / 3600
    ended = max(datetime.fromisoformat(row.started) + timedelta(seconds=row.seconds) for row in rows[-MAX_LANES:])
    return max(0.0, (ended - datetime.fromisoformat(began)).total_seconds() / 3600)


def _running(home: Home, policies: Policies, book: ledger.Ledger, tag: str) -> list[Running]:
    """Experiments in progress, each with the rerun that helps to decide it; then what a person asked for."""
    again = book.open_reruns(tag)
    helping = {rerun.during: rerun for rerun in again}

    def curve(run: str) -> list[tuple[int, float]]:
        return telemetry_file.read(home.run(run) / "telemetry.jsonl", policies.metrics, policies.errors).telemetry.curve

    found = []
    for number in book.open_numbers(tag):
        opened = book.opened(tag, number)
        if (rerun := helping.get(number)) is None:
            found.append(Running(number, opened.description, _since(opened.started), curve(opened.run)))
        else:
            found.append(_rerun(rerun, number, opened.description, curve(rerun.run)))
    shown = {one.number for one in found}
    asked = (rerun for rerun in again if rerun.during not in shown)
    return found + [_rerun(rerun, rerun.experiment, "", curve(rerun.run)) for rerun in asked]


def _rerun(rerun: Rerun, number: int, description: str, curve: list[tuple[int, float]]) -> Running:
    what = f"rerun of experiment {rerun.experiment}, seed {rerun.seed}" + (", text held back" if rerun.holdout else "")
    return Running(number, description, _since(rerun.started), curve, what)


def _since(moment: str) -> float:
    return max(0.0, (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds())


def frame(state: State, width: int, *, unicode: bool) -> RenderableType:
    """One picture of a state, at most `width` columns wide."""
    keeps = state.keeps
    head = f"{state.tag}: {state.count} experiments in {state.hours:.1f} h"
    if keeps:
        head += f", val_bpb {keeps[0]:.4f} -> {keeps[-1]:.4f}"
    parts: list[RenderableType] = [Text(head, style="bold", no_wrap=True, overflow="ellipsis")]
    if len(keeps) > 1:
        every = 1 + len(keeps) // MOST_KEEPS
        frontier = [(number, keeps[number]) for number in (*range(0, len(keeps) - 1, every), len(keeps) - 1)]
        parts += [_line(f"frontier  {views.chart(frontier, width - 12, unicode=unicode)[1]}")]
    parts += [line for now in state.running for line in _now(now, state.budget, width, unicode)]
    if not state.running:
        parts.append(_line("now       nothing is running"))
    if state.rows:
        parts.append(_results(state.rows[-SHOWN_ROWS:]))
    if state.cost is not None:
        spent = f"${state.cost['dollars']:.2f} of ${state.dollars:.2f}, {state.cost['requests']:.0f} calls"
        parts.append(_line(f"model     {spent}"))
    if state.away is not None:
        parts.append(_line(f"model     away: asked again at {state.away}"))
    if state.paused:
        parts.append(_line("paused    no experiment begins before glovebox resume"))
    if state.hints:
        parts.append(_line(f"hints     {state.hints} stand (glovebox hint)"))
    share = 100 * state.leak_bits / state.leak_limit
    parts.append(
        _line(
            f"told      {share:.0f}% of the leak budget, room for {state.leak_left} experiments more, "
            f"up to number {state.leak_ends_at}"
        )
    )
    parts += [_line(f"GPU       {line}") for line in state.gpus]
    return Group(*parts)


def _now(now: Running, budget: float, width: int, unicode: bool) -> list[RenderableType]:
    left = budget - now.seconds
    clock = f"{now.seconds:.0f} s, {left:.0f} s of training left at most" if left > 0 else f"{now.seconds:.0f} s"
    what = f"{now.rerun}, " if now.rerun else ""
    lines: list[RenderableType] = [_line(f"now       experiment {now.number}, {what}{clock}: {now.description}")]
    return lines + [_line(f"          {text}") for text in views.chart(now.curve, width - 12, unicode=unicode)]


def _line(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="ellipsis")


def _results(rows: Sequence[Experiment]) -> Table:
    view = Table(box=None, pad_edge=False, show_header=False)
    for justify in ("right", "left", "right", "right", "left"):
        view.add_column(justify=justify, no_wrap=True, overflow="ellipsis")
    for row in reversed(rows):
        color = console.COLORS.get(row.outcome, "red")
        score = f"{row.val_bpb:.6f}" if row.val_bpb is not None else ""
        gain = f"{row.claimed:+.4f}" if row.claimed is not None else ""
        if row.gain is not None and row.probability is not None:
            gain = f"{row.gain:+.4f} real {row.probability:.2f}"
        view.add_row(f"#{row.id}", f"[{color}]{row.outcome}[/]", score, gain, escape(row.description))
    return view
