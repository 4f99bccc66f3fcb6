"""The frontier plot as inline SVG, in upstream's style: grey discards, green keeps, the running best. TRUSTED."""

from __future__ import annotations

import bisect
import io
import itertools
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from runner.core.base.values import Experiment, Status
from runner.core.findings.comparing import Part
from runner.core.findings.transfers import gain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_LABELS = 40
MAX_POINTS = 2000  # discards that are drawn
_LABEL_CHARS = 36
_TICKS, _MOST_TICKS = 6, 60  # of the time
_STEPS = [60 * n for n in (1, 2, 5, 10, 15, 30)] + [3600 * n for n in (1, 2, 4, 8, 12, 24, 48, 96, 168, 336, 672)]
# Stand-ins that matplotlib accepts, replaced in the text so that the page's light and dark colours apply.
_COLOURS = {"#010203": "currentColor", "#010204": "var(--good)", "#010205": "var(--grey)", "#010206": "var(--bad)"}
_SOFT, _GOOD, _GREY, _BAD = _COLOURS


def frontier(rows: Sequence[Experiment], noise: float = 0.0, *, narrow: bool = False) -> str:
    """An <svg> element without scripts, links or metadata; empty when nothing is scored.

    The frontier has a band of one standard deviation of a run, `noise`, around it.

    `narrow`: for a phone, without descriptions. Runs without a score are marks at the lower edge.
    Scores far above the baseline are drawn at the upper edge, so that one bad idea does not flatten the rest.
    """
    scored = [row for row in rows if row.val_bpb is not None]
    if not scored:
        return ""
    import matplotlib as mpl  # noqa: PLC0415 - half a second, which every other command would wait for
    from matplotlib.figure import Figure  # noqa: PLC0415

    with mpl.rc_context({"svg.fonttype": "path", "svg.hashsalt": "glovebox"}):
        figure = Figure(figsize=(4.2, 4) if narrow else (10, 5), layout="constrained")
        place = {row.id: number for number, row in enumerate(rows, 1)}  # in which they ended
        axes = figure.add_subplot()
        _draw(axes, scored, place, noise, labels=not narrow)
        _without_score(axes, [place[row.id] for row in rows if row.val_bpb is None])
        _frame(axes)
        _hours(axes, rows)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    for stand_in, colour in _COLOURS.items():
        text = text.replace(stand_in, colour)
    return text[text.index("<svg") :]


def bars(parts: Sequence[Part]) -> str:
    """Gains per hour of a lane with their intervals, as an SVG file of its own: one bar for each part."""
    import matplotlib as mpl  # noqa: PLC0415 - as above
    from matplotlib.figure import Figure  # noqa: PLC0415

    with mpl.rc_context({"svg.fonttype": "path", "svg.hashsalt": "glovebox"}):
        figure = Figure(figsize=(7, 1 + 0.5 * len(parts)), layout="constrained")
        axes = figure.add_subplot()
        places = range(len(parts))
        rates = [part.per_hour or 0.0 for part in parts]
        axes.barh(list(places), rates, color="#3a7d5c", height=0.6)
        for place, part in zip(places, parts, strict=True):
            if part.per_hour_interval is not None:
                low, high = part.per_hour_interval
                axes.plot([low, high], [place, place], color="#222222", lw=1.4)
                axes.plot([low, high], [place, place], "|", color="#222222", ms=9)
        names = [f"{part.name}\n{part.kept} of {part.experiments} kept" for part in parts]
        axes.set_yticks(list(places), names)
        axes.invert_yaxis()
        axes.axvline(0.0, color="#222222", lw=0.8)
        axes.set_xlabel("gain in val_bpb per hour of a lane, with 95 % of the luck of the draw")
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def ceiling(scored: list[Experiment]) -> float:
    """The upper end of the axis: a third of the whole way above the baseline, or the worst score if that is lower."""
    scores = [row.val_bpb or 0.0 for row in scored]
    keeps = [row.val_bpb or 0.0 for row in scored if row.status is Status.KEEP]
    if not keeps:
        return max(scores)
    span = keeps[0] - min(keeps)
    return min(max(scores), keeps[0] + (span / 3 if span > 0 else abs(keeps[0]) / 50))


def _draw(axes: Axes, scored: list[Experiment], place: dict[int, int], noise: float, *, labels: bool) -> None:
    top = ceiling(scored)
    keeps = [row for row in scored if row.status is Status.KEEP]
    others = [row for row in scored if row.status is not Status.KEEP]
    every = 1 + len(others) // MAX_POINTS
    others = others[::-1][::every]  # the newest is among them
    part = "" if every == 1 else f", one in {every}"
    inside = [row for row in others if (row.val_bpb or 0.0) <= top]
    above = [row for row in others if (row.val_bpb or 0.0) > top]
    for some, marker, size, colour, label in (
        (inside, "o", 22, _GREY, f"discarded{part}"),
        (above, "^", 22, _GREY, f"discarded, off the scale{part}"),
        (keeps, "o", 42, _GOOD, "kept"),
    ):
        if some:
            scores = [min(row.val_bpb or 0.0, top) for row in some]
            places = [place[row.id] for row in some]
            axes.scatter(places, scores, s=size, color=colour, marker=marker, label=label, zorder=3)
    if keeps:
        numbers, scores = [place[row.id] for row in keeps], [row.val_bpb or 0.0 for row in keeps]
        numbers, scores = [*numbers, place[scored[-1].id]], [*scores, scores[-1]]
        axes.step(numbers, scores, where="post", color=_GOOD, lw=1.6, alpha=0.7)
        if noise:
            low, high = ([score + sign * noise for score in scores] for sign in (-1, 1))
            axes.fill_between(numbers, low, high, step="post", color=_GOOD, alpha=0.12, lw=0, label="noise of one run")
    for row in _labelled(keeps) if labels else ():
        text = row.description if len(row.description) <= _LABEL_CHARS else row.description[: _LABEL_CHARS - 1] + "…"
        axes.annotate(
            text.replace("$", r"\$"),
            (place[row.id], row.val_bpb or 0.0),
            xytext=(6, 6),
            textcoords="offset points",
            fontsize=8,
            rotation=30,
            rotation_mode="anchor",
            color=_SOFT,
        )


def _without_score(axes: Axes, places: list[int]) -> None:
    """Crashes, refusals and whatever else gave no score, as many as are drawn of discards, below all that did."""
    some = places[::-1][:: 1 + len(places) // MAX_POINTS]
    if some:
        low, high = axes.dataLim.y0, axes.dataLim.y1
        floor = low - 0.08 * ((high - low) or abs(low) or 1.0)
        axes.scatter(some, [floor] * len(some), s=22, color=_BAD, marker="x", lw=1, label="no score", zorder=3)


def _labelled(keeps: list[Experiment]) -> list[Experiment]:
    """The baseline and the largest gains."""
    by_gain = sorted(keeps[1:], key=lambda row: -gain(row))
    return [*keeps[:1], *by_gain[: MAX_LABELS - 1]]


def _frame(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    axes.set_xlabel("experiment", color=_SOFT)
    axes.set_ylabel("val_bpb (lower is better)", color=_SOFT)
    axes.tick_params(colors=_SOFT)
    for spine in axes.spines.values():
        spine.set_color(_GREY)
    axes.grid(alpha=0.2, color=_GREY)
    axes.margins(x=0.08, y=0.12)
    axes.legend(frameon=False, labelcolor=_SOFT, loc="lower left")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _hours(axes: Axes, rows: Sequence[Experiment]) -> None:
    """When it was, along the upper edge."""
    if ticks := times(rows):
        upper = axes.secondary_xaxis("top")
        upper.set_xticks(list(ticks), list(ticks.values()))
        upper.tick_params(colors=_SOFT, labelsize=8)
        upper.spines["top"].set_color(_GREY)


def times(rows: Sequence[Experiment]) -> dict[int, str]:
    """By place of the experiment that was under way or done by then: the time since the first began, in round steps.

    Empty where rows do not say when they began.
    """
    try:
        begun = datetime.fromisoformat(rows[0].started)
        ended = [(datetime.fromisoformat(row.started) - begun).total_seconds() + row.seconds for row in rows]
    except (ValueError, TypeError, OverflowError):
        return {}
    ended = list(itertools.accumulate(ended, max))  # lanes, and a clock that jumps back, change no order
    step = next((step for step in _STEPS if ended[-1] <= step * _TICKS), _STEPS[-1])
    ticks: dict[int, str] = {}  # the latest of what fell together in a pause
    for number in range(1, int(min(ended[-1] // step, _MOST_TICKS)) + 1):
        ticks[bisect.bisect_left(ended, number * step) + 1] = _told(number * step)
    return ticks


def _told(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:g} h"
