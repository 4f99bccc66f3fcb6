"""What the model is told at the start of each experiment: a pure function of typed records. UNTRUSTED.

Every experiment starts a fresh conversation, so nothing is remembered that is not in the ledger, and a night
of any length fits: the opening holds a bounded number of rows, each of bounded length, and train.py.
"""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]

TASK = "Propose and run the next experiment."
BEST_SHOWN = 12  # of the kept line
NEAR_SHOWN = 6
DEAD_SHOWN = 6
GUIDE = """
## Your tools

You work through tools only; nobody reads what you write outside of them. Edit `train.py` with view, str_replace,
insert and write, then call run_experiment(description). That ends this conversation, unless the run crashed and
you have repair attempts left. The next experiment starts afresh with the records: whatever should be remembered
belongs into the description (one line: what you changed, and why). Everything under "Records" is measured by
the bench; there is no other source of results.
"""


def system(program: str) -> str:
    """The system prompt: the person's directive, then how to work here."""
    return program.rstrip() + "\n" + GUIDE


def opening(brief: dict[str, Any], history: dict[str, Any], source: str) -> str:
    """The first message of a conversation: records and train.py."""
    rows: list[Row] = history["rows"]
    kept = [row for row in rows if row["status"] == "keep"]
    best = kept[-1] if kept else None
    parts = ["# Records", _state(brief, history, rows, best)]
    if rows:
        parts.append(_section("Kept line, oldest first", kept[-BEST_SHOWN:]))
        parts.append(_section("Most recent", rows[-int(brief["shown_rows"]) :]))
        parts.append(_section("Near misses", _near(rows)))
        parts.append(_section("Dead ends", _dead(rows)))
        parts.append(_kinds(history.get("analysis") or {}))
    limit = int(brief["source_chars"])
    cut = "" if len(source) <= limit else f"\n(cut: {len(source)} characters in all; view shows the rest)"
    parts.append(f"# train.py\n\n```python\n{source[:limit]}\n```{cut}")
    parts.append(TASK)
    return "\n\n".join(part for part in parts if part)


def _state(brief: dict[str, Any], history: dict[str, Any], rows: list[Row], best: Row | None) -> str:
    lines = [f"run: {brief['tag']}", f"experiments so far: {len(rows)}"]
    if history.get("experiments_left") is not None:
        lines.append(f"experiments left: {history['experiments_left']}")
    if best is not None:
        baseline = next(row for row in rows if row["status"] == "keep")
        lines.append(f"baseline val_bpb: {baseline['val_bpb']:.6f}")
        lines.append(f"best val_bpb: {best['val_bpb']:.6f} (experiment {best['id']}, {best['snapshot_size']} bytes)")
        lines.append(f"experiments since the last keep: {sum(row['id'] > best['id'] for row in rows)}")
    noise = (history.get("analysis") or {}).get("noise_bpb")
    if noise is not None:
        lines.append(f"noise of one run: {noise:g} val_bpb (standard deviation between seeds)")
    budget = history.get("budget")
    if budget is not None:
        lines.append(f"model budget left: ${budget['night']['dollars']:.2f}, {budget['night']['requests']} requests")
    return "\n".join(lines)


def _near(rows: list[Row]) -> list[Row]:
    """Discards that came closest to the best of their time."""
    scored = [row for row in rows if row["status"] == "discard" and row["claimed"] is not None]
    return sorted(scored, key=lambda row: (-row["claimed"], row["id"]))[:NEAR_SHOWN]


def _dead(rows: list[Row]) -> list[Row]:
    """The worst discards and the newest failures."""
    scored = [row for row in rows if row["status"] == "discard" and row["claimed"] is not None]
    worst = sorted(scored, key=lambda row: (row["claimed"], row["id"]))[: DEAD_SHOWN // 2]
    failed = [row for row in rows if row["status"] not in ("keep", "discard")][-DEAD_SHOWN // 2 :]
    near = {row["id"] for row in _near(rows)}
    return [row for row in worst if row["id"] not in near] + failed


def _kinds(analysis: dict[str, Any]) -> str:
    """What kinds of edits were tried, and how they fared."""
    lines = []
    for kind, tally in (analysis.get("kinds") or {}).items():
        gain = f", best gain {tally['best_gain']:+.6f}" if tally["best_gain"] is not None else ""
        lines.append(f"{kind}: tried {tally['tried']}, kept {tally['kept']}, without score {tally['failed']}{gain}")
    return "## What kinds of edits did\n" + "\n".join(lines) if lines else ""


def _section(title: str, rows: list[Row]) -> str:
    return f"## {title}\n" + "\n".join(line(row) for row in rows) if rows else ""


def line(row: Row) -> str:
    """One experiment in one line of bounded length."""
    parts = [f"#{row['id']} {row['status']}"]
    if row["reason"]:
        parts.append(str(row["reason"]))
    if row["crash"]:
        told = f" ({row['crash']['message']})" if row["crash"].get("message") else ""
        parts.append(f"{row['crash']['error']} in line {row['crash']['line']}{told}")
    if row["val_bpb"] is not None:
        parts.append(f"val_bpb {row['val_bpb']:.6f}")
    if row.get("probability") is not None:
        parts.append(f"expected gain {row['gain']:+.5f}, probably real {row['probability']:.2f}")
    elif row["claimed"] is not None:
        parts.append(f"gain {row['claimed']:+.6f}")
    if row.get("confirmed") is not None:
        parts.append(f"on fresh seeds {row['confirmed']:+.5f}")
    return ", ".join(parts) + f": {row['description']}"
