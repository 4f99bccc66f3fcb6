"""The frontier plot as inline SVG: grey discards, green keeps, the running best. TRUSTED."""

from __future__ import annotations

import io

import matplotlib
from matplotlib.figure import Figure

from runner.records import Experiment, Status

_LABEL_CHARS = 32


def frontier(rows: list[Experiment]) -> str:
    """An <svg> element without scripts, links or metadata; empty when nothing is scored."""
    scored = [r for r in rows if r.val_bpb is not None]
    if not scored:
        return ""
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "glovebox"}):
        figure = Figure(figsize=(9, 4.2), layout="constrained")
        axes = figure.add_subplot()
        _draw(axes, scored)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _draw(axes: object, scored: list[Experiment]) -> None:
    keeps = [r for r in scored if r.status is Status.KEEP]
    others = [r for r in scored if r.status is not Status.KEEP]
    plot = axes
    plot.scatter([r.id for r in others], [r.val_bpb for r in others], s=26, color="#9aa0a6", label="discarded")  # type: ignore[attr-defined]
    plot.scatter([r.id for r in keeps], [r.val_bpb for r in keeps], s=40, color="#2e9e5b", zorder=3, label="kept")  # type: ignore[attr-defined]
    ids, values = [r.id for r in keeps], [r.val_bpb for r in keeps]
    last = scored[-1].id
    plot.step([*ids, last], [*values, values[-1] if values else None], where="post", color="#2e9e5b", lw=1.5)  # type: ignore[attr-defined]
    for row in keeps:
        text = row.description if len(row.description) <= _LABEL_CHARS else row.description[: _LABEL_CHARS - 1] + "…"
        plot.annotate(  # type: ignore[attr-defined]
            text.replace("$", r"\$"),
            (row.id, row.val_bpb),
            xytext=(5, 6),
            textcoords="offset points",
            fontsize=8,
            color="#5f6368",
        )
    for call, text in (("set_xlabel", "experiment"), ("set_ylabel", "val_bpb (lower is better)")):
        getattr(plot, call)(text, color="#5f6368")
    plot.tick_params(colors="#5f6368")  # type: ignore[attr-defined]
    for spine in plot.spines.values():  # type: ignore[attr-defined]
        spine.set_color("#9aa0a6")
    plot.grid(alpha=0.25)  # type: ignore[attr-defined]
    plot.margins(x=0.12, y=0.15)  # type: ignore[attr-defined]
    plot.legend(frameon=False, labelcolor="#5f6368")  # type: ignore[attr-defined]
    plot.xaxis.get_major_locator().set_params(integer=True)  # type: ignore[attr-defined]
