"""What people see while a run goes on: progress on a terminal, plain lines elsewhere. TRUSTED.

Data goes to stdout, progress to stderr. Descriptions come from the agent and are printed without markup.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from runner.core.base.values import INTERRUPTED
from runner.core.findings.transfers import text_of

_PLAIN_WIDTH = 140  # columns where there is no terminal to ask
COLORS = {"keep": "green", "discard": "bright_black", INTERRUPTED: "bright_black"}


def stdout() -> Console:
    """Console for data."""
    return Console(highlight=False, width=None if os.isatty(1) else _PLAIN_WIDTH)


def stderr() -> Console:
    """Console for progress and errors."""
    return Console(stderr=True, highlight=False, soft_wrap=not os.isatty(2))


def follow(events: Iterable[dict[str, Any]], console: Console) -> Iterable[dict[str, Any]]:
    """Show events as they pass by, and pass them on."""
    view = _Live(console) if console.is_terminal else _Plain(console)
    try:
        for event in events:
            view.show(event)
            yield event
    finally:
        view.close()


class _Plain:
    def __init__(self, console: Console) -> None:
        self.console = console

    def show(self, event: dict[str, Any]) -> None:
        text = sentence(event)
        if text:
            self.console.print(f"[{time.strftime('%H:%M:%S')}] {text}", markup=False)

    def close(self) -> None:
        """Nothing to tidy."""


class _Live:
    def __init__(self, console: Console) -> None:
        self.console = console
        columns = (TextColumn("{task.description}"), BarColumn(30), TimeElapsedColumn())
        self.progress = Progress(*columns, console=console, transient=True)
        self.progress.start()
        self.tasks: dict[int, Any] = {}  # by experiment: lanes run several at a time

    def show(self, event: dict[str, Any]) -> None:
        task = self.tasks.get(event["during"] if event["event"] == "rerun" else event.get("experiment", 0))
        if event["event"] == "started":
            name = escape(event["description"][:60])
            number = event["experiment"]
            self.tasks[number] = self.progress.add_task(f"experiment {number}: {name}", total=None)
        elif event["event"] == "trained" and task is not None:
            self.progress.update(task, description=f"experiment {event['experiment']}: evaluating")
        elif event["event"] == "rerun" and task is not None:
            self.progress.update(task, description=rerun(event))
        elif event["event"] == "finished" and task is not None:
            self.progress.remove_task(self.tasks.pop(event["experiment"]))
        if event["event"] not in ("started", "trained", "rerun"):
            text = sentence(event)
            if text:
                self.progress.console.print(text, markup=False)

    def close(self) -> None:
        self.progress.stop()


def sentence(event: dict[str, Any]) -> str | None:
    """One line for one event; None for those that need none."""
    words = _SENTENCES.get(event["event"])
    where = f"lane {event['lane']}: " if "lane" in event else ""
    return where + words(event) if words else None


def _began(event: dict[str, Any]) -> str:
    count = event.get("experiments")
    return f"agent started, {count} experiments" if count else "agent started"


def _trained(event: dict[str, Any]) -> str:
    then = "evaluating" if event["handed_over"] else "nothing handed over"
    return f"experiment {event['experiment']}: ran {event['seconds']:.1f} s, {then}"


def _ended(event: dict[str, Any]) -> str:
    because = f" ({event['because']})" if event["because"] else ""
    return f"the agent failed{because}, see {event['log']}" if event["failed"] else f"agent ended{because}"


def _steered(event: dict[str, Any]) -> str:
    return {
        "hint": f"hint for the agent: {event['text']}",
        "clear": "all hints are taken back",
        "pause": "paused: no experiment begins before glovebox resume",
        "resume": "goes on",
        "veto": f"experiment {event['experiment']} is taken back: the best before it runs once more",
        "prune": f"pruning of experiment {event['experiment']}",
        "pruned": f"pruned: experiment {event['experiment']} is the best",
    }[str(event["verb"])]


def rerun(event: dict[str, Any]) -> str:
    """One line for a rerun that begins."""
    why = f"experiment {event['during']}: " if event["during"] else ""
    depth = f", depth {event['depth']}" if event["depth"] is not None else ""
    held = ", text held back" if event.get("holdout") else ""
    return f"{why}rerun of experiment {event['experiment']}, seed {event['seed']}, {event['budget']:.0f} s{depth}{held}"


_SENTENCES: dict[str, Callable[[dict[str, Any]], str]] = {
    "agent_started": _began,
    "serving": lambda _: "waiting for the agent to connect",
    "started": lambda e: f"experiment {e['experiment']}: training ({e['seconds']:.0f} s budget): {e['description']}",
    "trained": _trained,
    "rerun": rerun,
    "finished": lambda event: outcome(event["row"]),
    "refused": lambda event: f"train.py refused: {event['error']}",
    "agent_ended": _ended,
    "contradicted": lambda e: f"A PROOF FAILED: experiment {e['experiment']} looks ahead; its model is in {e['kept']}",
    "leak_budget": lambda e: (
        f"the tag's leak budget is used: {e['bits']:.0f} of {e['limit']} bits (fix: go on under a new --tag with "
        "--from-tag, or raise leak.night_bits in policies/metrics.yaml before a tag begins)"
    ),
    "lost": lambda e: f"experiment {e['experiment']}: its train.py is lost; recorded as interrupted (glovebox verify)",
    "leak_short": lambda e: (
        f"the tag's leak budget has room for {e['room']} experiments more, {e['wanted']} are asked for (fix: raise "
        "leak.night_bits in policies/metrics.yaml before a tag begins, or go on under another with --from-tag)"
    ),
    "measured": lambda e: measured(e["transfers"]),
    "pruned": lambda e: pruned(e["pruned"]),
    "steered": _steered,
    "not_asked": lambda e: f"{e['file']} was no request of yours, and is removed",
    "program_unreadable": lambda e: f"the directive cannot be read ({e['error']}): the last one stays in force",
    "stopped": lambda _: "stopped: the running experiment is recorded as interrupted",
}


def measured(found: list[dict[str, Any]]) -> str:
    """One line for the whole gain of a tag that ended."""
    if not found:
        return "nothing was kept over the baseline: there is no gain to measure"
    (one,) = found
    runs = f"{len(one['others'])} runs of the baseline and {len(one['scores'])} of the best, set apart"
    runs += ", on text that was held back" if one["holdout"] else ""
    return f"gain over the baseline, confirmed: {_gain(one)}, by {runs}"


def _gain(one: dict[str, Any]) -> str:
    """A measured gain, with its interval if there is one."""
    interval = "" if one["interval"] is None else f" ({one['interval'][0]:+.4f} to {one['interval'][1]:+.4f})"
    return f"{one['gain']:+.4f}{interval}"


def pruned(found: dict[str, Any]) -> str:
    """In a few lines what was taken out of the best, and how the smaller one did beside it."""
    if not any(found[name] for name in _LISTS):
        return "no keep is doubtful: there is nothing to take out"
    named = {name: ", ".join(f"#{number}" for number in found[name]) for name in _LISTS}
    lines = [f"{words}: {named[name]}" for name, words in _LISTS.items() if named[name]]
    size = f"{found['bytes_before']:,} to {found['bytes_after']:,} bytes in {found['runs']} runs"
    told = "" if found["before"] == found["after"] else f", experiment {found['after']} is the best now"
    lines.insert(0, f"train.py: {size}{told}")
    if found["measured"] is not None:
        lines.append(_beside(found["measured"]))
    if found["undone"]:
        lines.append(f"that is worse: the file of experiment {found['before']} is the best again")
    return "\n".join([*lines, *_ENDS[found["ended"]]])


def _beside(one: dict[str, Any]) -> str:
    """How what a pruning left did beside what it began with, and what that leaves open."""
    count = len(one["others"])
    runs = f"{count} run{'s' if count != 1 else ''} of the best before and {len(one['scores'])} of the smaller file"
    failed = f", {one['failed']} without a score" if one["failed"] else ""
    if one["gain"] is None:
        return f"not measured beside the best before: {runs}{failed}"
    bound = ""
    if one["interval"] is not None and one["interval"][0] < 0 <= one["interval"][1]:
        bound = f"; if it is worse, then by no more than {-one['interval'][0]:.4f}"
    return f"beside the best before, in {runs}{failed}: {_gain(one)}{bound}"


_ENDS = {
    "done": [],
    "runs": ["no runs are left: glovebox prune goes on"],
    "leak": ["the tag's leak budget is used: no more can be tried"],
    "stopped": ["stopped: glovebox prune goes on"],
}
_LISTS = {
    "taken_out": "taken out",
    "undone": "taken out and put back",
    "needed": "not as good without",
    "failed": "no score without",
    "refused": "a person took the file without it back",
    "built_on": "cannot be taken out alone",
    "small": "too small to matter",
    "untried": "not tried",
}


def outcome(row: dict[str, Any]) -> str:
    """One line for a finished experiment."""
    score = f"val_bpb {row['val_bpb']:.6f}" if row["val_bpb"] is not None else "no score"
    gain = f", gain {row['claimed']:+.4f}" if row["claimed"] is not None else ""
    gain += f" (confirmed {row['confirmed']:+.4f})" if row["confirmed"] is not None else ""
    if row.get("gain") is not None:
        gain = f", expected gain {row['gain']:+.4f}, probably real: {row['probability']:.2f}"
    return f"experiment {row['id']}: {_how(row)}, {score}{gain}, {row['seconds']:.1f} s"


def _outcome(row: dict[str, Any]) -> str:
    return INTERRUPTED if row["reason"] == INTERRUPTED else str(row["status"])  # as Experiment.outcome


def _how(row: dict[str, Any]) -> str:
    """Outcome and reason."""
    return _outcome(row) + (f" ({row['reason']})" if row["reason"] not in (None, INTERRUPTED) else "")


def table(document: dict[str, Any], console: Console) -> None:
    """The closing table of a tag; on a narrow screen without some columns, never with half a number."""
    rows = document["experiments"]
    view = Table(title=f"{document['tag']}: {len(rows)} experiments", title_justify="left")
    odds = any(row.get("probability") is not None for row in rows)
    numbers = [column for column in _columns(odds) if console.width >= column.from_width]
    view.add_column("#", justify="right", no_wrap=True)
    view.add_column("outcome", overflow="fold")
    for column in numbers:
        view.add_column(column.name, justify="right", min_width=column.least)
    view.add_column("description", overflow="fold", ratio=1, min_width=11)
    for row in rows:
        how = f"[{COLORS.get(_outcome(row), 'red')}]{_how(row)}[/]"
        view.add_row(str(row["id"]), how, *(column.text(row) for column in numbers), escape(row["description"]))
    console.print(view)
    if document["best"] is not None:
        console.print(f"val_bpb {document['baseline']:.4f} -> {document['best']:.4f}", markup=False)


class _Column(NamedTuple):
    """Of numbers: shown on screens of so many columns, and then whole."""

    name: str
    from_width: int
    least: int
    text: Callable[[dict[str, Any]], str]


def _columns(odds: bool) -> list[_Column]:
    gain, real = ("expected gain", "probably real") if odds else ("gain", "confirmed")
    return [
        _Column("val_bpb", 0, 8, lambda row: "" if row["val_bpb"] is None else f"{row['val_bpb']:.6f}"),
        _Column(gain, 70, 8, lambda row: _signed(row["gain" if odds else "claimed"])),
        _Column(real, 55, 9, lambda row: _odds(row["probability"]) if odds else _signed(row["confirmed"])),
        _Column("s", 80, 6, lambda row: f"{row['seconds']:.1f}"),
    ]


def _odds(probability: float | None) -> str:
    return "" if probability is None else f"{probability:.2f}"


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.4f}"


def transfers(found: list[dict[str, Any]], console: Console) -> None:
    """What reruns under other terms say."""
    view = Table()
    for name in ("#", "against", "budget", "depth", "artifact", "runs", "gain", "interval"):
        view.add_column(name, justify="left" if name == "artifact" else "right")
    for one in found:
        low_high = one["interval"]
        view.add_row(
            str(one["experiment"]),
            "" if one["against"] is None else str(one["against"]),
            f"{one['budget']:.0f} s",
            "" if one["depth"] is None else str(one["depth"]),
            text_of(one["artifact"], one["holdout"]),
            f"{len(one['scores'])}+{len(one['others'])}" + (f", {one['failed']} failed" if one["failed"] else ""),
            "" if one["gain"] is None else f"{one['gain']:+.4f}",
            "" if low_high is None else f"{low_high[0]:+.4f} to {low_high[1]:+.4f}",
        )
    console.print(view)
