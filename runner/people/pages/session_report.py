"""The session report of an export: Markdown for a pull request's description, in upstream's form (its PR #44). TRUSTED.

Descriptions come from the agent. Each is put into a code span, where Markdown gives nothing a meaning: no link, no
image, no mention, no HTML; what would end the span or a table's cell is replaced.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence

from runner.core.airlock import invisible
from runner.core.base.values import INTERRUPTED, Experiment, Status
from runner.core.decision import standing
from runner.core.findings.analysis import Analysis
from runner.core.findings.transfers import Transfer, gain

TOP = 20
DEAD = 15
_MAX_CELL = 200


def code(text: str) -> str:
    """Agent's text as one harmless code span, also inside a table."""
    plain = (
        "".join(c if c.isprintable() else " " for c in invisible.blanked(text))
        .replace("`", "'")
        .replace("|", "/")
        .strip()
    )
    return f"`{plain[:_MAX_CELL] or ' '}`"


def write(
    rows: Sequence[Experiment],
    analysis: Analysis,
    transfers: Sequence[Transfer],
    *,
    tag: str,
    hardware: str,
    artifact: str,
    seconds: float,
    first: bytes,
    last: bytes,
) -> str:
    """The whole report; `first` and `last` are the train.py of baseline and best, `seconds` an experiment's budget."""
    keeps = [row for row in rows if row.status is Status.KEEP and row.val_bpb is not None]
    hours = sum(row.seconds for row in rows) / 3600
    title = f"# exp/{hardware}/{tag}"
    if keeps:
        title += f": {keeps[0].val_bpb:.4f} → {keeps[-1].val_bpb:.4f} in {len(rows)} experiments"
    counts = standing.outcomes(rows)
    parts = [
        title,
        "## Summary",
        f"- {len(rows)} experiments of {seconds:.0f} s on {hardware}, {hours:.1f} h in all: "
        + ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count),
        f"- data and tokenizer: {artifact}; scores are comparable within this artifact and this hardware only",
        _noise(analysis),
        *_wins(standing.line(rows)),
        *_dead(rows),
        *_transfers(transfers),
        *_configuration(first, last),
        *_kinds(analysis),
        "## What this does not say",
        "- A gain is what was expected at the verdict, or the claim of one run; what the whole run gained is said only "
        "by reruns of baseline and best that chose nothing.",
        "- Whoever imports this checks that the files belong together. That the scores are true is the word of the "
        "bench that signed them, until they are rerun.",
    ]
    return "\n\n".join(_tight(parts)) + "\n"


def _tight(parts: list[str]) -> list[str]:
    """List items follow each other without a gap."""
    out: list[str] = []
    for part in parts:
        if out and part.startswith("- ") and out[-1].startswith("- "):
            out[-1] += "\n" + part
        elif part:
            out.append(part)
    return out


def _noise(analysis: Analysis) -> str:
    if analysis.noise_bpb is None:
        return "- noise between seeds: not measured"
    return f"- noise between seeds: {analysis.noise_bpb:g} val_bpb (standard deviation of one run)"


def _wins(keeps: Sequence[Experiment]) -> list[str]:
    wins = sorted((row for row in keeps[1:] if row.veto is None), key=lambda row: (-gain(row), row.id))[:TOP]
    if not wins:
        return ["## Top wins", "None was kept over the baseline."]
    odds = any(row.probability is not None for row in wins)
    lines = [f"| delta | {'probably real' if odds else 'confirmed'} | experiment | description |", "|---|---|---|---|"]
    for row in wins:
        confirmed = "" if row.confirmed is None else f"{-row.confirmed:+.4f}"
        sure = confirmed if row.probability is None else f"{row.probability:.2f}"
        lines.append(f"| {-gain(row):+.4f} | {sure} | {row.id} | {code(row.description)} |")
    return ["## Top wins", "\n".join(lines)]


def _dead(rows: Sequence[Experiment]) -> list[str]:
    """What did not work: the clearest losses first, then what gave no score."""
    lost = [row for row in rows if row.status is Status.DISCARD and row.claimed is not None]
    worst = sorted(lost, key=lambda row: (row.claimed or 0.0, row.id))[:DEAD]
    failed = [row for row in rows if row.val_bpb is None and row.outcome != INTERRUPTED][:DEAD]
    lines = [f"- {-(row.claimed or 0.0):+.4f} {code(row.description)}" for row in worst]
    lines += [f"- {row.status}{f' ({row.reason})' if row.reason else ''}: {code(row.description)}" for row in failed]
    return ["## Dead ends", "\n".join(lines)] if lines else []


def _transfers(transfers: Sequence[Transfer]) -> list[str]:
    told = [one for one in transfers if one.gain is not None]
    if not told:
        return []
    lines = ["| experiment | over | budget | depth | artifact | delta | interval |", "|---|---|---|---|---|---|---|"]
    for one in told:
        interval = "" if one.interval is None else f"{-one.interval[1]:+.4f} to {-one.interval[0]:+.4f}"
        depth = "" if one.depth is None else str(one.depth)
        delta = f"{-(one.gain or 0.0):+.4f}"
        cells = (
            one.experiment,
            one.against,
            f"{one.budget:.0f} s",
            depth,
            one.scored_on,
            delta,
            interval,
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return ["## Reruns", "\n".join(lines)]


def _configuration(first: bytes, last: bytes) -> list[str]:
    """Top-level constants that differ between baseline and best."""
    old, new = dials(first), dials(last)
    changed = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
    if not changed:
        return []
    lines = ["| constant | baseline | best |", "|---|---|---|"]
    lines += [f"| {code(name)} | {code(old.get(name, 'none'))} | {code(new.get(name, 'none'))} |" for name in changed]
    return ["## Final configuration", "\n".join(lines)]


def dials(source: bytes) -> dict[str, str]:
    """Top-level upper-case constants and the text of their values; nothing if the file does not parse."""
    try:
        return _constants(ast.parse(source))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}


def _constants(tree: ast.Module) -> dict[str, str]:
    found = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            if name.isupper():
                found[name] = ast.unparse(node.value)
    return found


def _kinds(analysis: Analysis) -> list[str]:
    if not analysis.kinds:
        return []
    lines = ["| kind of edit | tried | kept | without score | best gain |", "|---|---|---|---|---|"]
    for kind, tally in analysis.kinds.items():
        best = "" if tally.best_gain is None else f"{tally.best_gain:+.4f}"
        lines.append(f"| {kind} | {tally.tried} | {tally.kept} | {tally.failed} | {best} |")
    return ["## What kinds of edits did", "\n".join(lines)]
