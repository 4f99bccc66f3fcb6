"""`glovebox watch`: what a bench is doing, for people, while it does it. TRUSTED, reads only.

The ledger, the broker's meter and the telemetry of the experiment in progress, which passes the same filter as what the
agent is told. A frame is built from a State alone, so it is the same on a terminal, in a pipe and in a test.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from runner import console, filter, ledger, views
from runner.broker import budget
from runner.home import Home
from runner.policy import Policies
from runner.records import Experiment, Rerun, Status

SHOWN_ROWS = 8
_GPU_FIELDS = "name,utilization.gpu,memory.used,memory.total,temperature.gpu"


@dataclass(frozen=True)
class Running:
    """The experiment in progress."""

    number: int
    description: str
    seconds: float  # since it was accepted
    curve: list[tuple[int, float]]
    rerun: str = ""  # what is run for its sake, if its own run is over


@dataclass(frozen=True)
class State:
    """All that a frame shows."""

    tag: str
    rows: list[Experiment]
    running: Running | None
    cost: dict[str, float] | None
    budget: float  # seconds of training an experiment has
    dollars: float  # policy's ceiling for the tag
    gpu: str
    hours: float  # since the tag began


def look(home: Home, policies: Policies, tag: str, training: float) -> State:
    """The state of a tag now; `training` is the budget of its artifact in seconds. Raises GloveboxError."""
    book = ledger.Ledger(home.ledger, read_only=True)
    try:
        number = book.running(tag)
        opened = book.opened(tag, number) if number is not None else None
        again = next(iter(book.open_reruns(tag)), None)
        running = _running(home, policies, opened, again) if opened or again else None
        began = book.run_info(tag)["started"]
        return State(
            tag=tag,
            rows=book.experiments(tag),
            running=running,
            cost=budget.spent(home.spent, tag),
            budget=training,
            dollars=policies.broker.night.dollars,
            gpu=graphics(),
            hours=_since(began) / 3600,
        )
    finally:
        book.close()


def _running(home: Home, policies: Policies, opened: ledger.Opened | None, again: Rerun | None) -> Running | None:
    """The experiment in progress, or what is run for its sake or because a person asked."""
    run = again.run if again else opened.run if opened else ""
    seen = filter.read(home.run(run) / "telemetry.jsonl", policies.metrics, policies.errors)
    curve = seen.telemetry.curve
    if again is not None:
        number, description = (opened.id, opened.description) if opened else (again.experiment, "")
        rerun = f"rerun of experiment {again.experiment}, seed {again.seed}"
        return Running(number, description, _since(again.started), curve, rerun)
    return Running(opened.id, opened.description, _since(opened.started), curve) if opened else None


def _since(moment: str) -> float:
    return max(0.0, (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds())


def graphics() -> str:
    """One line about the first GPU, empty without one."""
    if shutil.which("nvidia-smi") is None:
        return ""
    command = ["nvidia-smi", f"--query-gpu={_GPU_FIELDS}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.splitlines()[0][:120] if done.returncode == 0 and done.stdout.strip() else ""


def frame(state: State, width: int, *, unicode: bool) -> RenderableType:
    """One picture of a state, at most `width` columns wide."""
    keeps = [row.val_bpb for row in state.rows if row.status is Status.KEEP and row.val_bpb is not None]
    head = f"{state.tag}: {len(state.rows)} experiments in {state.hours:.1f} h"
    if keeps:
        head += f", val_bpb {keeps[0]:.4f} -> {keeps[-1]:.4f}"
    parts: list[RenderableType] = [Text(head, style="bold", no_wrap=True, overflow="ellipsis")]
    if len(keeps) > 1:
        frontier = [(number, score) for number, score in enumerate(keeps)]
        parts += [_line(f"frontier  {views.chart(frontier, width - 12, unicode=unicode)[1]}")]
    parts += _now(state, width, unicode)
    if state.rows:
        parts.append(_results(state.rows[-SHOWN_ROWS:]))
    if state.cost is not None:
        spent = f"${state.cost['dollars']:.2f} of ${state.dollars:.2f}, {state.cost['requests']:.0f} calls"
        parts.append(_line(f"model     {spent}"))
    if state.gpu:
        parts.append(_line(f"GPU       {state.gpu}"))
    return Group(*parts)


def _now(state: State, width: int, unicode: bool) -> list[RenderableType]:
    if state.running is None:
        return [_line("now       nothing is running")]
    now = state.running
    left = state.budget - now.seconds
    clock = f"{now.seconds:.0f} s, {left:.0f} s of training left at most" if left > 0 else f"{now.seconds:.0f} s"
    what = f"{now.rerun}, " if now.rerun else ""
    lines: list[RenderableType] = [_line(f"now       experiment {now.number}, {what}{clock}: {now.description}")]
    return lines + [_line(f"          {text}") for text in views.chart(now.curve, width - 12, unicode=unicode)]


def _line(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="ellipsis")


def _results(rows: list[Experiment]) -> Table:
    view = Table(box=None, pad_edge=False, show_header=False)
    for justify in ("right", "left", "right", "right", "left"):
        view.add_column(justify=justify, no_wrap=True, overflow="ellipsis")
    for row in reversed(rows):
        color = console.COLORS.get(row.status, "red")
        score = f"{row.val_bpb:.6f}" if row.val_bpb is not None else ""
        gain = f"{row.claimed:+.4f}" if row.claimed is not None else ""
        view.add_row(f"#{row.id}", f"[{color}]{row.status}[/]", score, gain, escape(row.description))
    return view


def document(state: State) -> dict[str, Any]:
    """A state as one JSON document."""
    now = state.running
    return {
        "tag": state.tag,
        "experiments": len(state.rows),
        "last": [row.model_dump(mode="json") for row in state.rows[-SHOWN_ROWS:]],
        "running": None if now is None else {**now.__dict__},
        "cost": state.cost,
        "gpu": state.gpu or None,
        "hours": round(state.hours, 3),
    }
