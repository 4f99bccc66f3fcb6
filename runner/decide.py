"""The decision: a pure function of policy, the kept line so far and one scored experiment. TRUSTED, no I/O.

Order of the rules, first match wins:
1. training was cut by the clock: timeout; the container was killed for memory or output: crash;
2. the model could not be exported: not_exportable; nothing was handed over: crash;
3. the evaluator refused: non_causal for that reason, rejected for any other;
4. no kept experiment yet: keep (the baseline);
5. rule `upstream`: keep if val_bpb is lower than the best, else discard;
6. rule `margin`: keep a gain of at least minimum_gain_bpb; within simplicity_band_bpb of the best keep a
   smaller file that is no worse; else discard.
"""

from __future__ import annotations

from typing import NamedTuple

from runner.policy import Decision
from runner.records import EndReason, Scored, Status

BPB_DIGITS = 6  # of the scores the agent sees: a gain from finer ones would tell more than they do


class Best(NamedTuple):
    """The kept experiment to beat."""

    val_bpb: float
    size: int


class Verdict(NamedTuple):
    """Outcome and, unless kept or discarded on merit, a closed reason code."""

    status: Status
    reason: str | None = None
    claimed: float | None = None  # best minus val_bpb: positive is a gain


def decide(policy: Decision, scored: Scored, best: Best | None) -> Verdict:
    """Apply the rules above."""
    failed = _failure(scored)
    if failed is not None:
        return failed
    score = scored.score
    if score is None or score.val_bpb is None:
        raise ValueError("a scored experiment without val_bpb")
    if best is None:
        return Verdict(Status.KEEP)
    gain = best.val_bpb - score.val_bpb
    kept = _better(policy, gain, scored.trained.snapshot.size, best)
    claimed = round(round(best.val_bpb, BPB_DIGITS) - round(score.val_bpb, BPB_DIGITS), BPB_DIGITS)
    return Verdict(Status.KEEP if kept else Status.DISCARD, None, claimed)


def _better(policy: Decision, gain: float, size: int, best: Best) -> bool:
    if policy.rule == "upstream":
        return gain > 0
    if gain >= policy.minimum_gain_bpb and gain > 0:
        return True
    return 0 <= gain <= policy.simplicity_band_bpb and size < best.size


def _failure(scored: Scored) -> Verdict | None:
    trained, score = scored.trained, scored.score
    if trained.engine.reason is EndReason.WALL:
        return Verdict(Status.TIMEOUT, "time_budget")
    if trained.engine.reason is not EndReason.EXIT:
        return Verdict(Status.CRASH, str(trained.engine.reason))
    if not trained.handed_over:
        if trained.not_exportable is not None:
            return Verdict(Status.NOT_EXPORTABLE, trained.not_exportable)
        return Verdict(Status.CRASH, "exception" if trained.engine.exit_code else "no_hand_over")
    if score is None:
        return Verdict(Status.REJECTED, "evaluation_failed")
    if score.status == "refused":
        return Verdict(Status.NON_CAUSAL if score.reason == "non_causal" else Status.REJECTED, score.reason)
    return None
