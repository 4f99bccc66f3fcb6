"""What a security reviewer asks of a night: what was refused, rejected, cut off or interrupted. TRUSTED, pure.

From the ledger, the audit chain and the broker's log. Reasons are closed codes; only the broker's `where` (a field's
name) comes from the agent, and is shown as text.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from runner.core.base.launching import EndReason
from runner.core.base.values import INTERRUPTED, Experiment, Rerun, Status
from runner.core.decision.decide import CONTRADICTED

_SAYS = {
    Status.NON_CAUSAL: "a model that looks ahead was not scored",
    Status.REJECTED: "a hand-over was refused by the evaluator",
    Status.NOT_EXPORTABLE: "a model could not be exported",
    Status.TIMEOUT: "a training was ended by the host's clock",
}
_CUT = {
    EndReason.OUTPUT: "a training was ended for flooding its output",
    EndReason.OOM: "a training was ended for its memory",
    INTERRUPTED: "an experiment was interrupted with its runner",
    EndReason.CANCELLED: "an experiment was stopped",
}


class Incident(NamedTuple):
    """One kind of event."""

    what: str
    detail: str  # a reason code
    times: int


class Refusals:
    """What the two chains say of a tag's refusals, entry by entry."""

    def __init__(self, tag: str) -> None:
        self._tag = tag
        self.files: Counter[str] = Counter()  # train.py that was not even read, by reason
        self.requests: Counter[str] = Counter()  # to the model

    def take(self, entry: dict[str, Any]) -> None:
        """The next entry of the audit chain."""
        if (data := self._refused(entry)) is not None:
            self.files[str(data.get("reason"))] += 1

    def take_call(self, entry: dict[str, Any]) -> None:
        """The next entry of the broker's log: it says so at the first, second, fourth, ... time of a reason."""
        if (data := self._refused(entry)) is not None:
            reason, times = str(data.get("reason")), data.get("times")
            self.requests[reason] = max(self.requests[reason], times if isinstance(times, int) else 1)

    def _refused(self, entry: dict[str, Any]) -> dict[str, Any] | None:
        data = entry.get("data")
        ours = entry.get("kind") == "refused" and isinstance(data, dict) and data.get("tag") == self._tag
        return data if ours else None


def found(
    rows: Sequence[Experiment], refused: Refusals, reruns: Sequence[Rerun] = (), most: float = 0.5
) -> list[Incident]:
    """Everything of one tag, most frequent first.

    `most`: processors by which the neighbours of a pair's two sides may differ.
    """
    seen: Counter[tuple[str, str]] = Counter()
    for row in rows:
        if row.reason == CONTRADICTED:
            seen["A PROOF FAILED: the audit saw a proved model look ahead", CONTRADICTED] += 1
        elif row.status in _SAYS:
            seen[_SAYS[row.status], row.reason or ""] += 1
        elif row.reason in _CUT:
            seen[_CUT[row.reason], row.reason] += 1
    if uneven := uneven_pairs(reruns, most):
        seen["the two sides of a pair ran beside unlike neighbours", "uneven"] = uneven
    if uneven := uneven_keeps(rows, most):
        seen["a keep ran beside unlike neighbours to the keep before it", "uneven"] = uneven
    if slowed := throttled([*rows, *reruns]):
        seen["a run's GPU was held back by more than its power cap", "throttled"] = slowed
    for reason, times in refused.files.items():
        seen["a train.py was refused before it was read", reason] = times
    for reason, times in refused.requests.items():
        seen["a request to the model was refused, at least so often", reason] = times
    ordered = sorted(seen.items(), key=lambda item: (-item[1], item[0]))
    return [Incident(what, detail, count) for (what, detail), count in ordered]


def uneven_pairs(reruns: Sequence[Rerun], most: float) -> int:
    """Pairs one side of which had more than `most` processors more at work for others beside it."""
    best = {(r.pair, r.seed, r.lane): r.neighbours for r in reruns if r.pair and r.experiment == r.pair}
    other = [(best.get((r.pair, r.seed, r.lane)), r.neighbours) for r in reruns if r.pair and r.experiment != r.pair]
    return sum(theirs is not None and abs(theirs - ours) > most for theirs, ours in other)


def uneven_keeps(rows: Sequence[Experiment], most: float) -> int:
    """Keeps that had more than `most` processors more, or fewer, at work for others beside them than the one before."""
    keeps = [row for row in rows if row.status is Status.KEEP]
    return sum(abs(a.neighbours - b.neighbours) > most for a, b in itertools.pairwise(keeps))


def throttled(runs: Iterable[Experiment | Rerun]) -> int:
    """Runs whose GPU was too hot, or held back by its board: what they score says less than the others'."""
    return sum(run.speed is not None and run.speed.throttled for run in runs)


def crashes(rows: Sequence[Experiment]) -> list[Incident]:
    """Exceptions by class, with the newest line and message."""
    failed = [row for row in rows if row.crash is not None and row.val_bpb is None]
    counts = Counter(row.crash.error for row in failed if row.crash)
    last = {row.crash.error: row.crash for row in failed if row.crash}
    told = {
        name: f"last in line {crash.line}" + (f": {crash.message}" if crash.message else "")
        for name, crash in last.items()
    }
    return [Incident(name, told[name], count) for name, count in counts.most_common()]
