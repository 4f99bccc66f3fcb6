"""report.html: one self-contained page per tag, rewritten after every experiment. TRUSTED.

No scripts, no external resources, a content security policy that forbids both, everything escaped.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from runner.core.airlock import invisible, leak_budget, snapshot
from runner.core.artifacts import manifest, store
from runner.core.base import files
from runner.core.base.errors import GloveboxError
from runner.core.base.home import Home
from runner.core.base.values import Experiment, Rerun, Status
from runner.core.decision import standing
from runner.core.decision.odds import Line
from runner.core.evidence import receipts, spending
from runner.core.evidence.git_line import GitLine
from runner.core.evidence.ledger import Ledger
from runner.core.findings import analysis, incidents, transfers
from runner.core.policy.policy_files import Policies
from runner.people.pages import plot, provenance
from runner.people.pages.events import Events

_TEMPLATES = Path(__file__).parent / "templates"
DOUBTFUL = 0.5  # probability below which a keep more likely did nothing
MAX_DIFFS = 50  # of the largest gains
MAX_DIFF_CHARS = 20_000
MAX_BELOW = 12
MAX_ROWS, MAX_KEEPS = 500, 200  # of the table


def write(home: Home, ledger: Ledger, policies: Policies, tag: str) -> Path:
    """Render the page of one tag; returns its path."""
    return Page(home, ledger, policies, tag).write()


def picture(ledger: Ledger, policies: Policies, tag: str) -> bytes:
    """The frontier of a tag as a PNG; raises GloveboxError without a score."""
    with ledger.at_once():
        rows, reruns = ledger.experiments(tag), ledger.reruns(tag)
    noise = standing.noise(policies.decision, rows, reruns)
    scores = [row.val_bpb for row in standing.line(rows) if row.val_bpb is not None]
    title = f"{tag}: {len(rows)} experiments" + (f", val_bpb {scores[0]:.4f} to {scores[-1]:.4f}" if scores else "")
    made = plot.png(rows, noise.sigma if noise else 0.0, title)
    if not made:
        raise GloveboxError("no score yet: there is nothing to draw", where=tag, fix="see: glovebox history")
    return made


class Page:
    """The page of one tag, written again and again: what was read of chains, files and commits is not read twice."""

    def __init__(self, home: Home, ledger: Ledger, policies: Policies, tag: str) -> None:
        self._home, self._ledger, self._policies, self._tag = home, ledger, policies, tag
        self._text: manifest.Predicate | None = None  # of the artifact, as long as that is here
        self._study = analysis.Study(lambda row: snapshot.kept(home, row.snapshot))
        self._images = provenance.Images(tag)
        self._events = Events(home, tag, policies.decision.uneven_processors, self._images.take)
        self._account = leak_budget.Account(policies)
        self._diffs: dict[tuple[str, str], str] = {}  # by commits
        environment = Environment(loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined)
        self._template = environment.get_template("report.html.j2")

    def write(self) -> Path:
        """Render it; returns its path."""
        home, policies, tag = self._home, self._policies, self._tag
        with self._ledger.at_once():
            rows, reruns, info = self._ledger.experiments(tag), self._ledger.reruns(tag), self._ledger.run_info(tag)
            origin = self._ledger.origin(tag)
        learned = self._learned(rows, reruns)
        noise = learned["noise"].sigma if learned["noise"] else 0.0
        predicate = self._predicate(info["artifact"])
        budget = 0.0 if predicate is None else float(predicate.profile["time_budget_s"])
        headline = _headline(rows, reruns, policies, budget)
        shown = _shown(rows)
        text = self._template.render(
            tag=tag,
            **info,
            **headline,
            **learned,
            incidents=self._events.found(rows, reruns),
            provenance=provenance.lines(rows, self._images),
            receipts=self._images.receipts(rows),
            text=_of_text(predicate),
            crashes=incidents.crashes(rows),
            **_spent(home, rows, reruns, tag),
            told=self._account.catch_up(rows),
            origin=origin,
            count=len(rows),
            experiments=shown,
            plot=Markup(plot.frontier(rows, noise)),  # noqa: S704 - made by matplotlib, labels are drawn as paths
            small_plot=Markup(plot.frontier(rows, noise, narrow=True)),  # noqa: S704 - the same
            losses=Markup(plot.losses(standing.line(rows))),  # noqa: S704 - the same
            kinds=Markup(plot.kinds(learned["analysis"].kinds)),  # noqa: S704 - the same
            below=_below(rows),
            diffs=self._kept(rows),
            whole_diff=self._whole(headline["baseline"], headline["best"]),
            open_questions=_open_questions(home, rows, reruns, policies, headline),
        )
        path = home.tag(tag) / "report.html"
        files.write(path, text)
        return path

    def _predicate(self, artifact: str) -> manifest.Predicate | None:
        """What was signed of the tag's artifact; None if that is not here any more."""
        if self._text is None:
            with suppress(GloveboxError):
                self._text = store.shown(self._home, artifact).predicate
        return self._text

    def _learned(self, rows: Sequence[Experiment], reruns: Sequence[Rerun]) -> dict[str, Any]:
        decision = self._policies.decision
        noise = standing.noise(decision, rows, reruns)
        self._study.catch_up(rows)
        return {
            "noise": noise,
            "analysis": self._study.found(noise),
            "transfers": [
                one
                for one in transfers.transfers(rows, reruns, decision.alpha)
                if one.gain is not None or one.failed  # a run without one to compare it with is part of the headline
            ],
        }

    def _kept(self, rows: Sequence[Experiment]) -> list[tuple[Experiment, str]]:
        """Each keep against the keep before it, the largest gains if there are many; in order."""
        keeps = standing.line(rows)
        pairs = sorted(itertools.pairwise(keeps), key=lambda pair: -transfers.gain(pair[1]))[:MAX_DIFFS]
        return [(new, self._diff(old.commit, new.commit)) for old, new in sorted(pairs, key=lambda pair: pair[1].id)]

    def _whole(self, baseline: Experiment | None, best: Experiment | None) -> str:
        """All that was kept, as one change; nothing if that is no more than one keep."""
        if baseline is None or best is None or baseline.id == best.id:
            return ""
        return self._diff(baseline.commit, best.commit)

    def _diff(self, old: str, new: str) -> str:
        if (old, new) not in self._diffs:
            self._diffs[old, new] = GitLine(self._home.line, make=False).diff(old, new)[:MAX_DIFF_CHARS]
        return self._diffs[old, new]


def _of_text(found: manifest.Predicate | None) -> dict[str, str] | None:
    """What a page says of the text: words of whoever prepared it, made visible; None if the artifact is not here."""
    if found is None:
        return None
    words = ("source", "sources", "license", "origin")
    told = {name: invisible.printable(found.provenance.get(name, "")) for name in words}
    return told | {name: f"{int(found.profile.get(name, 0)):,}" for name in ("eval_tokens", "holdout_tokens")}


def _below(rows: Sequence[Experiment]) -> list[int]:
    """Numbers of discards whose single score was lower than the best of their time, the newest few."""
    best, found = math.inf, []
    for row in rows:
        if row.val_bpb is not None and row.status is Status.KEEP:
            best = row.val_bpb
        elif row.val_bpb is not None and row.status is Status.DISCARD and row.val_bpb < best:
            found.append(row.id)
    return found[-MAX_BELOW:]


def _shown(rows: Sequence[Experiment]) -> list[Experiment]:
    """The rows the table has: the newest, and of those before them the keeps that gained most."""
    old, new = rows[:-MAX_ROWS], rows[-MAX_ROWS:]
    keeps = sorted((row for row in old if row.status is Status.KEEP), key=lambda row: -transfers.gain(row))[:MAX_KEEPS]
    return [*sorted(keeps, key=lambda row: row.id), *new]


def _headline(rows: Sequence[Experiment], reruns: Sequence[Rerun], policies: Policies, budget: float) -> dict[str, Any]:
    keeps = [row for row in rows if row.status is Status.KEEP and row.val_bpb is not None]
    return {
        "baseline": keeps[0] if keeps else None,
        "best": keeps[-1] if keeps else None,
        "overall": transfers.overall(rows, reruns, policies.decision.alpha, budget),
        "expected": _expected(rows, reruns, policies),
        "level": f"{1 - policies.decision.alpha:.0%}",
        "counts": {outcome: count for outcome, count in standing.outcomes(rows).items() if count},
    }


def _expected(rows: Sequence[Experiment], reruns: Sequence[Rerun], policies: Policies) -> float | None:
    """What the best is believed to gain over the baseline by all scores together; None under rules without beliefs."""
    if not any(row.probability is not None for row in rows):
        return None
    last = next((row for row in reversed(rows) if row.val_bpb is not None), None)
    if last is not None and last.total is not None:
        return last.total
    line = Line(policies.decision)  # a tag from before it was recorded
    line.catch_up(rows, reruns)
    return line.total()


def _spent(home: Home, rows: Sequence[Experiment], reruns: Sequence[Rerun], tag: str) -> dict[str, Any]:
    return {
        "cost": spending.spent(home.spent, tag),
        "compute_seconds": sum(row.train_seconds + row.eval_seconds for row in rows) + sum(r.seconds for r in reruns),
        "reruns": len(reruns),
    }


def _contradicted(expected: float | None, told: transfers.Transfer | None) -> list[str]:
    """That the runs set apart do not bear out what was expected: files may be noisier than one run tells."""
    if expected is None or told is None or told.interval is None or expected <= told.interval[1]:
        return []
    return [
        f"Expected was a gain of {expected:+.4f}, more than the runs set apart bear out: a train.py whose scores move "
        "more than the others' makes such odds worthless."
    ]


def _open_questions(
    home: Home, rows: Sequence[Experiment], reruns: Sequence[Rerun], policies: Policies, headline: dict[str, Any]
) -> list[str]:
    """What nobody has checked, as far as the records tell."""
    keeps = [row for row in standing.line(rows) if row.veto is None]
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
