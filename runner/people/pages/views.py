"""What `glovebox history` and `glovebox show` print: rows, one experiment with its diff and its curve. TRUSTED, pure.

Sources and descriptions were checked for control and bidirectional characters before they were recorded, so they are
printed as they are, without markup.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from typing import Any

from runner.core.airlock import leak_budget
from runner.core.base.values import Experiment, Hopeless, Rerun, Status
from runner.core.decision import standing
from runner.core.findings.transfers import text_of
from runner.core.policy.policy_files import Policies
from runner.people.pages import reasons

_BARS = "▁▂▃▄▅▆▇█"
_ASCII = "_.-=+*#@"
_PLAIN = (
    "status", "reason", "val_bpb", "val_bpb_bytes", "claimed", "gain", "confirmed", "causality", "memory_gb"
)  # fmt: skip


def details(row: Experiment, before: Experiment | None, reruns: Sequence[Rerun] = ()) -> list[tuple[str, str]]:
    """Lines of (name, value) about one experiment; `reruns` are those of its own train.py."""
    found = [("description", row.description), *_said(row)]
    for name in _PLAIN:
        value = getattr(row, name)
        if value not in (None, 0.0):
            found.append((name, f"{value:.6f}" if isinstance(value, float) else _explained(name, str(value))))
    if row.probability is not None and row.sigma is not None:
        found.append(("probably real", f"{row.probability:.2f}: more than a quarter of the noise, {row.sigma:.2g}"))
    if row.lane:
        found.append(("lane", row.lane))
    if row.hopeless is not None:
        found.append(("hopeless", _hopeless(row.hopeless, ended=row.val_bpb is None)))
    if row.interval is not None:
        of = f"of the mean of {row.pairs} pairs" if row.pairs else "of the claimed gain"
        found.append(("interval", f"{row.interval[0]:+.6f} to {row.interval[1]:+.6f}, {of}"))
    for rerun in reruns:
        found.append((f"rerun {rerun.id}", _rerun(rerun)))
    if row.crash is not None:
        told = f": {row.crash.message}" if row.crash.message else ""
        found.append(
            (
                "crash" if row.val_bpb is None else "beside the score",
                f"{row.crash.error} in line {row.crash.line}{told}",
            )
        )
    seconds = f"{row.seconds:.1f} in all, {row.train_seconds:.1f} training, {row.eval_seconds:.1f} evaluating"
    found.append(("seconds", seconds))
    found += [(name, f"{value:g}") for name, value in sorted(row.summary.items())]
    found += [("compared with", "nothing: the baseline" if before is None else f"experiment {before.id}")]
    found += [("train.py", f"{row.snapshot_size} bytes, sha256 {row.snapshot}"), ("commit", row.commit)]
    if row.parent is not None:
        found.append(("made from", f"experiment {row.parent}"))
    if row.program is not None:
        found.append(("directive", f"{row.program[:12]} (glovebox program show {row.program[:12]})"))
    return [*found, ("artifact", row.artifact), ("policy", row.policy), ("started", row.started)]


def _said(row: Experiment) -> list[tuple[str, str]]:
    """What its agent said beforehand."""
    said = row.proposal
    if said is None:
        return []
    expected = None if said.expected is None else f"{said.expected:+.5f}"
    found = [("hypothesis", said.hypothesis), ("expected gain", expected), ("kind, it said", said.kind)]
    return [(name, value) for name, value in found if value]


def _explained(name: str, value: str) -> str:
    known = reasons.REASONS.get(value) if name == "reason" else None
    return value if known is None else f"{value}: {known.means}"


def _hopeless(found: Hopeless, *, ended: bool) -> str:
    then = "ended" if ended else "run to its end to see whether that is so"
    return f"at {found.look:.0%} of its budget: {found.bound:.6f} at least, {found.against:.6f} to beat; {then}"


def _rerun(rerun: Rerun) -> str:
    score = "no score" if rerun.val_bpb is None else f"{rerun.val_bpb:.6f}"
    depth = "" if rerun.depth is None else f", depth {rerun.depth}"
    why = (
        f"to decide experiment {rerun.during}"
        if rerun.during
        else f"{rerun.budget:.0f} s{depth}, {text_of(rerun.artifact, rerun.holdout)}"
    )
    where = f" on {rerun.lane}" if rerun.lane else ""
    return f"seed {rerun.seed}{where}: {score} ({why})"


def chart(curve: Sequence[tuple[int, float]], width: int, *, unicode: bool) -> list[str]:
    """The loss curve in three lines: highest loss, bars over the steps, lowest loss; empty without a curve."""
    if not curve:
        return []
    steps, losses = [step for step, _ in curve], [loss for _, loss in curve]
    low, high, first, last = min(losses), max(losses), steps[0], steps[-1]
    marks = _BARS if unicode else _ASCII
    bars = ""
    for column in range(min(width, max(1, len(curve) * 3))):
        at = first + (last - first) * column / max(1, min(width, len(curve) * 3) - 1)
        loss = _at(curve, at)
        bars += marks[round((loss - low) / (high - low) * (len(marks) - 1)) if high > low else 0]
    return [f"loss {losses[0]:.3f} at step {first}, {losses[-1]:.3f} at step {last}, lowest {low:.3f}", bars]


def _at(curve: Sequence[tuple[int, float]], step: float) -> float:
    """The loss at a step, by linear interpolation."""
    after = bisect.bisect_left(curve, step, key=lambda point: point[0])
    if after in (0, len(curve)):
        return curve[min(after, len(curve) - 1)][1]
    (a, x), (b, y) = curve[after - 1 : after + 1]
    return x + (y - x) * (step - a) / (b - a)


def history(rows: Sequence[Experiment], policies: Policies) -> dict[str, Any]:
    """A tag at a glance: how often what happened, how long without a keep, what the agent was told in bits."""
    keeps = [row for row in rows if row.status is Status.KEEP]
    return {
        "outcomes": standing.outcomes(rows),
        "since_keep": len(rows) - (rows.index(keeps[-1]) + 1 if keeps else 0),
        "hours": round(sum(row.seconds for row in rows) / 3600, 2),
        **leak(leak_budget.told(policies, rows), len(rows)),
    }


def leak(told: leak_budget.Told, count: int) -> dict[str, Any]:
    """Bits that a tag of so many experiments told its agents, and how far that goes."""
    return {
        "leak_bits": round(told.bits),
        "leak_limit": told.limit,
        "leak_experiments_left": told.left,
        "leak_ends_at": count + told.left,
    }


def leak_line(found: Mapping[str, Any]) -> str:
    """The same in words, of anything that has these values."""
    left = f"room for {found['leak_experiments_left']} experiments more, up to number {found['leak_ends_at']}"
    return f"{found['leak_bits']} of {found['leak_limit']} bits, {left}"
