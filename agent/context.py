"""What the model is told at the start of each experiment: a pure function of typed records and of agents' words.

Every experiment starts a fresh conversation, so nothing is remembered that is not in the ledger, and a night of any
length fits: the opening holds a bounded number of rows, each of bounded length, the notebook, and train.py. What
changes least comes first, so that a model's prompt cache holds over the calls of an experiment, and over several if
nothing is kept: directive, facts and train.py, then the records. UNTRUSTED.
"""

from __future__ import annotations

from typing import Any

from agent import guide

Row = dict[str, Any]

TASK = "Propose and run the next experiment."
NEAR_SHOWN = 6
DEAD_SHOWN = 6
_FACTS = {
    "device": "device: {}",
    "host_memory_gib": "memory of the host that a run may use: {} GiB",
    "train_seconds": "training budget: {:g} s",
    "sequence_length": "sequence length (MAX_SEQ_LEN): {}",
    "vocabulary": "vocabulary: {}",
    "training_tokens_m": "training tokens: {:g} million",
    "evaluated_tokens_m": "scored on: {:g} million tokens",
    "torch": "torch: {}",
}
_BEST = {
    "num_steps": "{:.0f} steps",
    "total_tokens_M": "{:g} million tokens",
    "tokens_per_second": "{:.3g} tokens/s",
    "num_params_M": "{:g} million parameters",
    "depth": "depth {:.0f}",
}


def system(program: str) -> str:
    """The system prompt: the person's directive, then what holds anyway."""
    return program.rstrip() + "\n" + guide.CONTRACT + guide.TOOLS


def opening(
    brief: dict[str, Any], history: dict[str, Any], notebook: dict[str, Any], hints: list[dict[str, Any]], source: str
) -> list[str]:
    """The first message of a conversation, in two parts: what seldom changes, and the records."""
    limit = int(brief["source_chars"])
    cut = "" if len(source) <= limit else f"\n(cut: {len(source)} characters in all; view shows the rest)"
    steady = [_facts(brief, history), f"# train.py\n\n```python\n{source[:limit]}\n```{cut}"]
    rows, kept = history["rows"], history["line"]
    records = ["# Records", _state(history, kept)]
    if rows:
        records.append(_section("Kept line, oldest first", kept))
        records.append(_section("Most recent", rows[-int(brief["shown_rows"]) :]))
        records.append(_section("Near misses", _near(rows)))
        records.append(_section("Dead ends", _dead(rows)))
        records.append(_kinds(history.get("analysis") or {}))
        records.append(_calibration(history.get("calibration") or {}))
    records += [_notebook(notebook), hinted(hints), TASK]
    return ["\n\n".join(part for part in parts if part) for parts in (steady, records)]


def _facts(brief: dict[str, Any], history: dict[str, Any]) -> str:
    facts = history.get("facts") or {}
    lines = [f"run: {brief['tag']}"]
    lines += [text.format(facts[name]) for name, text in _FACTS.items() if name in facts]
    best = facts.get("best") or {}
    told = ", ".join(text.format(best[name]) for name, text in _BEST.items() if name in best)
    return "# This bench\n" + "\n".join([*lines, f"the best trains: {told}"] if told else lines)


def _state(history: dict[str, Any], kept: list[Row]) -> str:
    lines = [f"experiments so far: {history['experiments']}"]
    if history.get("experiments_left") is not None:
        lines.append(f"experiments left: {history['experiments_left']}")
    if kept:
        best = kept[-1]
        lines.append(f"baseline val_bpb: {kept[0]['val_bpb']:.6f}")
        lines.append(f"best val_bpb: {best['val_bpb']:.6f} (experiment {best['id']}, {best['snapshot_size']} bytes)")
    analysis = history.get("analysis") or {}
    if analysis.get("plateau") is not None:
        lines.append(f"experiments since the last keep: {analysis['plateau']}")
    if analysis.get("noise_bpb") is not None:
        lines.append(f"noise of one run: {analysis['noise_bpb']:g} val_bpb (standard deviation between seeds)")
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


def _calibration(told: dict[str, Any]) -> str:
    """How what was expected compares with what came."""
    if not told.get("proposed"):
        return ""
    lines = [f"proposed {told['proposed']}, kept {told['kept']}"]
    if told["foretold"]:
        lines.append(
            f"of {told['foretold']} with an expected gain: expected {told['expected']:+g} on average, came out "
            f"{told['found']:+g}; a gain was expected {told['promised']} times, and came {told['gained']} times"
        )
    return "## Your own record\n" + "\n".join(lines)


def _notebook(notebook: dict[str, Any]) -> str:
    parts = []
    if notebook["notes"].strip():
        parts.append(f"# Notes\n\n{notebook['notes'].strip()}")
    if notebook["ideas"]:
        ideas = "\n".join(f"{idea['id']}. {idea['text']}" for idea in notebook["ideas"])
        parts.append(f"# Ideas\n\n{ideas}\n({notebook['done']} done, {notebook['dropped']} dropped before)")
    return "\n\n".join(parts)


def hinted(hints: list[dict[str, Any]]) -> str:
    """What the person said since; empty if nothing stands."""
    lines = [f"- after experiment {one['after']}: {one['text']}" for one in hints]
    return "# From the person who runs this\n\n" + "\n".join(lines) if lines else ""


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
    foretold = row.get("proposal") or {}
    if foretold.get("expected") is not None:
        parts.append(f"you expected {foretold['expected']:+.5f}")
    return ", ".join(parts) + f": {row['description']}"
