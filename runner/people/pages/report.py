"""report.html: one self-contained page per tag, rewritten after every experiment. TRUSTED.

No scripts, no external resources, a content security policy that forbids both, everything escaped.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from runner.core.artifacts import store
from runner.core.base import files
from runner.core.base.errors import GloveboxError
from runner.core.base.home import Home
from runner.core.base.values import Experiment, Rerun, Status
from runner.core.decision import standing
from runner.core.decision.odds import Line
from runner.core.evidence import audit_chain, receipts, spending
from runner.core.evidence.git_line import GitLine
from runner.core.evidence.ledger import Ledger
from runner.core.findings import analysis, incidents, transfers
from runner.core.policy.policy_files import Policies
from runner.people.pages import plot

_TEMPLATES = Path(__file__).parent / "templates"
DOUBTFUL = 0.5  # probability below which a keep more likely did nothing
MAX_DIFFS = 50  # of the largest gains
MAX_DIFF_CHARS = 20_000


def write(home: Home, ledger: Ledger, policies: Policies, tag: str) -> Path:
    """Render the page of one tag; returns its path."""
    rows, reruns = ledger.experiments(tag), ledger.reruns(tag)
    learned = _learned(home, rows, reruns, policies)
    noise = learned["noise"].sigma if learned["noise"] else 0.0
    budget = _budget(home, ledger.run_info(tag)["artifact"], rows)
    headline = _headline(rows, reruns, policies, budget)
    environment = Environment(loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined)
    text = environment.get_template("report.html.j2").render(
        tag=tag,
        **ledger.run_info(tag),
        **headline,
        **learned,
        **_events(home, rows, reruns, policies, tag),
        **_spent(home, rows, reruns, tag),
        experiments=rows,
        plot=Markup(plot.frontier(rows, noise)),  # noqa: S704 - made by matplotlib, labels are drawn as paths
        diffs=_diffs(GitLine(home.line), rows),
        open_questions=_open_questions(home, rows, reruns, policies, headline),
    )
    path = home.tag(tag) / "report.html"
    files.write(path, text)
    return path


def _budget(home: Home, artifact: str, rows: list[Experiment]) -> float:
    """Seconds of training of the tag's artifact; 0 if it is not here any more."""
    try:
        return float(store.admit(home, artifact).predicate.profile["time_budget_s"]) if rows else 0.0
    except GloveboxError:
        return 0.0


def _headline(rows: list[Experiment], reruns: list[Rerun], policies: Policies, budget: float) -> dict[str, Any]:
    keeps = [row for row in rows if row.status is Status.KEEP and row.val_bpb is not None]
    return {
        "baseline": keeps[0] if keeps else None,
        "best": keeps[-1] if keeps else None,
        "overall": transfers.overall(rows, reruns, policies.decision.alpha, budget),
        "expected": _expected(rows, reruns, policies),
        "level": f"{1 - policies.decision.alpha:.0%}",
        "hardware": hardware(rows),
        "counts": {str(s): n for s in Status if (n := sum(row.status is s for row in rows))},
    }


def hardware(rows: list[Experiment]) -> list[str]:
    """What trained, a line for each kind: the GPU, its driver and clock, and which attention ran on it."""
    seen: dict[tuple[str, str, float | None], list[Experiment]] = {}
    for row in rows:
        if row.speed is not None:
            seen.setdefault((row.speed.name, row.speed.driver, row.speed.power_cap_w), []).append(row)
    told = []
    for (name, driver, cap), runs in seen.items():
        clocks = [row.speed.sm_mhz for row in runs if row.speed and row.speed.sm_mhz is not None]
        ways = sorted({way for row in runs for way in row.attention})
        parts = [
            name,
            f"driver {driver}",
            "" if cap is None else f"power cap {cap:.0f} W",
            f"{min(clocks):.0f} to {max(clocks):.0f} MHz" if clocks else "",
            f"attention: {', '.join(ways)}" if ways else "",
        ]
        told.append(", ".join(part for part in parts if part))
    return told


def _expected(rows: list[Experiment], reruns: list[Rerun], policies: Policies) -> float | None:
    """What the best is believed to gain over the baseline by all scores together; None under rules without beliefs."""
    if not any(row.probability is not None for row in rows):
        return None
    line = Line(policies.decision)
    line.catch_up(rows, reruns)
    return line.beliefs.baseline - line.beliefs.expected() if line.beliefs else None


def _learned(home: Home, rows: list[Experiment], reruns: list[Rerun], policies: Policies) -> dict[str, Any]:
    def source(row: Experiment) -> bytes | None:
        path = home.source(row.snapshot)
        return path.read_bytes() if path.is_file() else None

    noise = standing.noise(policies.decision, rows, reruns)
    return {
        "noise": noise,
        "analysis": analysis.study(rows, noise, source),
        "transfers": [
            one
            for one in transfers.transfers(rows, reruns, policies.decision.alpha)
            if one.gain is not None or one.failed  # a run without one to compare it with is part of the headline
        ],
    }


def _events(home: Home, rows: list[Experiment], reruns: list[Rerun], policies: Policies, tag: str) -> dict[str, Any]:
    """What happened, from chains that are read and not kept; None if ours is broken: no part of it is shown."""
    try:
        calls = _whole(home.broker / "calls.jsonl")
        seen = incidents.found(
            rows, audit_chain.read(home.audit), calls, tag, reruns, policies.decision.uneven_processors
        )
    except GloveboxError:
        seen = None
    return {"incidents": seen, "crashes": incidents.crashes(rows)}


def _whole(path: Path) -> Iterator[dict[str, Any]]:
    """A chain's entries as far as it is whole."""
    with suppress(GloveboxError):
        yield from audit_chain.read(path)


def _spent(home: Home, rows: list[Experiment], reruns: list[Rerun], tag: str) -> dict[str, Any]:
    return {
        "cost": spending.spent(home.spent, tag),
        "compute_seconds": sum(row.train_seconds + row.eval_seconds for row in rows) + sum(r.seconds for r in reruns),
        "reruns": len(reruns),
    }


def _diffs(line: GitLine, rows: list[Experiment]) -> list[tuple[Experiment, str]]:
    """Each keep against the keep before it, the largest gains if there are many; in order."""
    keeps = [row for row in rows if row.status is Status.KEEP]
    pairs = sorted(itertools.pairwise(keeps), key=lambda pair: -transfers.gain(pair[1]))[:MAX_DIFFS]
    ordered = sorted(pairs, key=lambda pair: pair[1].id)
    return [(new, line.diff(old.commit, new.commit)[:MAX_DIFF_CHARS]) for old, new in ordered]


def _contradicted(expected: float | None, told: transfers.Transfer | None) -> list[str]:
    """That the runs set apart do not bear out what was expected: files may be noisier than one run tells."""
    if expected is None or told is None or told.interval is None or expected <= told.interval[1]:
        return []
    return [
        f"Expected was a gain of {expected:+.4f}, more than the runs set apart bear out: a train.py whose scores move "
        "more than the others' makes such odds worthless."
    ]


def _open_questions(
    home: Home, rows: list[Experiment], reruns: list[Rerun], policies: Policies, headline: dict[str, Any]
) -> list[str]:
    """What nobody has checked, as far as the records tell."""
    keeps = [row for row in rows if row.status is Status.KEEP]
    measured = {one.experiment for one in transfers.transfers(rows, reruns, policies.decision.alpha) if one.gain}
    single = [row.id for row in keeps[1:] if row.confirmed is None and row.id not in measured and row.gain is None]
    doubtful = sum(row.probability is not None and row.probability < DOUBTFUL for row in keeps)
    audited = sum(row.causality == "audited" for row in rows)
    probes = receipts.probes(home, policies.digest)
    found = []
    if single:
        numbers = ", ".join(map(str, single[:20])) + (", ..." if len(single) > 20 else "")
        found.append(f"Kept by a clear first run, without reruns: {numbers} (glovebox confirm).")
    if doubtful:
        found.append(f"{doubtful} keeps are more likely without effect than with one; they are no findings.")
    found += _contradicted(headline["expected"], headline["overall"])
    if probes is None:
        found.append("The walls were not tried under these policies (glovebox redteam).")
    elif not probes.ok:
        found.append(f"A red team found {probes.open} probes open and {probes.unnoticed} controls unnoticed.")
    if audited:
        found.append(f"{audited} models were audited, not proved, to be causal.")
    if not policies.audit.witness:
        found.append("No witness keeps a copy of the audit chain elsewhere.")
    if policies.decision.rule == "upstream":
        found.append("Rule upstream: any lower score was kept, so a part of the gain is luck.")
    return [*found, "This page is signed by nobody: glovebox verify checks the records behind it."]
