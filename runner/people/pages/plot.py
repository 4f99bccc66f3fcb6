"""The pictures of a report as inline SVG, the frontier in upstream's style, also as a PNG. TRUSTED."""

from __future__ import annotations

import bisect
import io
import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from runner.core.base.values import Experiment, Status
from runner.core.findings.analysis import Tally
from runner.core.findings.comparing import Part
from runner.core.findings.transfers import gain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Corner = Literal["lower left", "lower right", "upper right"]
MAX_LABELS = 40
MAX_POINTS = 1000  # discards that are drawn
MAX_MARKS = 400  # keeps that have a mark of their own, besides the labelled ones; the line goes through all of them
_LABEL_CHARS = 36
_TICKS, _MOST_TICKS = 6, 60  # of the time
_STEPS = [60 * n for n in (1, 2, 5, 10, 15, 30)] + [3600 * n for n in (1, 2, 4, 8, 12, 24, 48, 96, 168, 336, 672)]
MAX_CURVES = 60  # of what was kept
# As in a picture; in a page's text they are replaced, so that its light and dark colours apply.
_COLOURS = {"#5f6368": "currentColor", "#1e7e45": "var(--good)", "#9aa0a6": "var(--grey)", "#b3261e": "var(--bad)"}
_SOFT, _GOOD, _GREY, _BAD = _COLOURS
_ONE = threading.Lock()  # settings of the library are of the whole process


def frontier(rows: Sequence[Experiment], noise: float = 0.0, *, narrow: bool = False) -> str:
    """An <svg> element without scripts, links or metadata; empty when nothing is scored.

    The frontier has a band of one standard deviation of a run, `noise`, around it.

    `narrow`: for a phone, without descriptions. Runs without a score are marks at the lower edge.
    Scores far above the baseline are drawn at the upper edge, so that one bad idea does not flatten the rest.
    """
    scored = [row for row in rows if row.val_bpb is not None]
    if not scored:
        return ""
    return _svg(lambda: _frontier(rows, scored, noise, narrow=narrow))


def png(rows: Sequence[Experiment], noise: float = 0.0, title: str = "") -> bytes:
    """The same as a picture to show around, on white, 1500 by 750 points; empty when nothing is scored."""
    scored = [row for row in rows if row.val_bpb is not None]
    if not scored:
        return b""
    buffer = io.BytesIO()
    figure = _frontier(rows, scored, noise, narrow=False)
    figure.suptitle(title, color=_SOFT, fontsize=11)
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()


def losses(keeps: Sequence[Experiment]) -> str:
    """Training loss of what was kept over that of the baseline, as an <svg> element; empty without curves."""
    drawn = [row for row in (keeps[0], *keeps[1:][-MAX_CURVES:]) if row.curve] if keeps else []
    if len(drawn) < 2:
        return ""

    def figure() -> Figure:
        made, axes = _made((10, 3.6))
        for row in drawn:
            steps, found = zip(*row.curve, strict=True)
            style: dict[str, Any] = {"color": _GREY, "lw": 0.6, "alpha": 0.7}
            if row is keeps[0]:
                style = {"color": _SOFT, "lw": 1.4, "ls": "--", "label": f"#{row.id}, the baseline"}
            elif row is keeps[-1]:
                style = {"color": _GOOD, "lw": 1.8, "label": f"#{row.id}, the best"}
            axes.plot(steps, found, **style)
        if not (keeps[0].curve or keeps[-1].curve):
            axes.plot([], [], color=_GREY, label="kept")
        _frame(axes, "step", "training loss", "upper right")
        return made

    return _svg(figure)


def kinds(tallies: Mapping[str, Tally]) -> str:
    """How often each kind of edit was tried and kept, as an <svg> element; empty without any."""
    if not tallies:
        return ""

    def figure() -> Figure:
        made, axes = _made((10, 1.1 + 0.32 * len(tallies)))
        names = [name.replace("_", " ") for name in tallies]
        axes.barh(names, [tally.tried for tally in tallies.values()], color=_GREY, alpha=0.5, label="tried")
        axes.barh(names, [tally.kept for tally in tallies.values()], color=_GOOD, height=0.5, label="kept")
        axes.invert_yaxis()
        _frame(axes, "experiments", "", "lower right")
        return made

    return _svg(figure)


def lengths(counts: Sequence[int]) -> str:
    """Documents by length, `counts[i]` of 2^i tokens and more, as an <svg> element; empty without any."""
    if not any(counts):
        return ""

    def figure() -> Figure:
        made, axes = _made((10, 3.2))
        first = next(at for at, count in enumerate(counts) if count)
        names = [f"{2**at:,}" for at in range(first, len(counts))]
        axes.bar(names, counts[first:], color=_GOOD, alpha=0.7, width=0.9, label="documents")
        _frame(axes, "tokens, at least", "documents", "upper right")
        return made

    return _svg(figure)


def _svg(draw: Callable[[], Figure]) -> str:
    """A figure as an <svg> element in the page's own colours."""
    import matplotlib as mpl  # noqa: PLC0415 - half a second, which every other command would wait for

    with _ONE, mpl.rc_context({"svg.fonttype": "path", "svg.hashsalt": "glovebox"}):
        buffer = io.StringIO()
        draw().savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    for colour, name in _COLOURS.items():
        text = text.replace(colour, name)
    return text[text.index("<svg") :]


def _made(size: tuple[float, float]) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure  # noqa: PLC0415 - as above

    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.add_subplot()


def _frontier(rows: Sequence[Experiment], scored: list[Experiment], noise: float, *, narrow: bool) -> Figure:
    figure, axes = _made((4.2, 4) if narrow else (10, 5))
    place = {row.id: number for number, row in enumerate(rows, 1)}  # in which they ended
    _draw(axes, scored, place, noise, labels=not narrow)
    _without_score(axes, [place[row.id] for row in rows if row.val_bpb is None])
    _frame(axes, "experiment", "val_bpb (lower is better)", "lower left")
    _hours(axes, rows)
    return figure


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
    rarely = max(1, -(-len(keeps) // MAX_MARKS))
    labelled = _labelled(keeps) if labels else []
    marked = list({row.id: row for row in (*keeps[::-1][::rarely], *labelled)}.values())
    among = "" if rarely == 1 else f", one in {rarely} marked"
    inside = [row for row in others if (row.val_bpb or 0.0) <= top]
    above = [row for row in others if (row.val_bpb or 0.0) > top]
    for some, marker, size, colour, label in (
        (inside, "o", 22, _GREY, f"discarded{part}"),
        (above, "^", 22, _GREY, f"discarded, off the scale{part}"),
        (marked, "o", 42, _GOOD, f"kept{among}"),
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
    for row in labelled:
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


def _frame(axes: Axes, across: str, up: str, legend: Corner) -> None:
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    axes.set_xlabel(across, color=_SOFT)
    axes.set_ylabel(up, color=_SOFT)
    axes.tick_params(colors=_SOFT)
    for spine in axes.spines.values():
        spine.set_color(_GREY)
    axes.grid(alpha=0.2, color=_GREY)
    axes.margins(x=0.08, y=0.12)
    axes.legend(frameon=False, labelcolor=_SOFT, loc=legend)
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
