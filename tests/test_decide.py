"""The decision rules, one by one and in order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.decide import Best, decide
from runner.policy import Decision, Policies
from runner.records import EndReason, EngineResult, Score, Scored, Snapshot, Status, Telemetry, Trained

MARGIN = Decision(
    rule="margin",
    minimum_gain_bpb=0.001,
    simplicity_band_bpb=0.001,
    startup_seconds=1.0,
    hand_over_seconds=1.0,
    evaluation_seconds=1.0,
)
UPSTREAM = MARGIN.model_copy(update={"rule": "upstream"})
BEST = Best(1.0, 1000)


def engine(**changes: Any) -> EngineResult:
    base = {"exit_code": 0, "reason": EndReason.EXIT, "oom": False, "seconds": 1.0, "output_bytes": 0}
    return EngineResult(**{**base, "image": "sha256:x", "container": "c", **changes})


def scored(bpb: float | None = 1.0, size: int = 1000, refused: str | None = None, **trained: Any) -> Scored:
    base: dict[str, Any] = {
        "snapshot": Snapshot(sha256="0" * 64, size=size, path=Path("x")),
        "run": "0" * 16,
        "engine": engine(),
        "telemetry": Telemetry(),
        "handed_over": True,
    }
    score = (
        Score(status="refused", reason=refused)
        if refused
        else Score(status="scored", val_bpb=bpb, val_bpb_bytes=bpb, causality="proved")
    )
    return Scored(trained=Trained(**{**base, **trained}), engine=engine(), score=score if bpb is not None else None)


def test_the_first_scored_experiment_is_kept() -> None:
    assert decide(MARGIN, scored(9.0), None).status is Status.KEEP


@pytest.mark.parametrize(
    ("bpb", "size", "rule", "expected"),
    [
        (0.99, 2000, MARGIN, Status.KEEP),
        (0.9995, 1000, MARGIN, Status.DISCARD),
        (0.9995, 999, MARGIN, Status.KEEP),
        (1.0, 999, MARGIN, Status.KEEP),
        (1.0, 1000, MARGIN, Status.DISCARD),
        (1.0001, 10, MARGIN, Status.DISCARD),
        (0.9999, 2000, UPSTREAM, Status.KEEP),
        (1.0, 10, UPSTREAM, Status.DISCARD),
    ],
)
def test_gain_and_simplicity(bpb: float, size: int, rule: Decision, expected: Status) -> None:
    assert decide(rule, scored(bpb, size), BEST).status is expected


@pytest.mark.parametrize(
    ("changes", "status", "reason"),
    [
        ({"engine": engine(reason=EndReason.WALL, exit_code=137)}, Status.TIMEOUT, "time_budget"),
        ({"engine": engine(reason=EndReason.OUTPUT, exit_code=137)}, Status.CRASH, "output"),
        ({"engine": engine(reason=EndReason.OOM, exit_code=137)}, Status.CRASH, "oom"),
        ({"handed_over": False, "engine": engine(exit_code=1)}, Status.CRASH, "exception"),
        ({"handed_over": False}, Status.CRASH, "no_hand_over"),
        ({"handed_over": False, "not_exportable": "custom_op"}, Status.NOT_EXPORTABLE, "custom_op"),
    ],
)
def test_failures_are_named_whatever_the_score_says(changes: dict[str, Any], status: Status, reason: str) -> None:
    verdict = decide(MARGIN, scored(0.1, **changes), BEST)
    assert (verdict.status, verdict.reason) == (status, reason)


def test_refusals_of_the_evaluator() -> None:
    assert decide(MARGIN, scored(refused="non_causal"), BEST).status is Status.NON_CAUSAL
    assert decide(MARGIN, scored(refused="op_not_allowed"), None) == (Status.REJECTED, "op_not_allowed", None)
    assert decide(MARGIN, scored(None), None).reason == "evaluation_failed"


@given(st.floats(0.1, 5), st.integers(1, 10**5), st.floats(0.1, 5), st.integers(1, 10**5))
def test_a_worse_score_is_never_kept(best: float, best_size: int, bpb: float, size: int) -> None:
    for rule in (MARGIN, UPSTREAM):
        if decide(rule, scored(bpb, size), Best(best, best_size)).status is Status.KEEP:
            assert bpb <= best


def test_shipped_policy_uses_the_margin_rule(policies: Policies) -> None:
    assert policies.decision.rule == "margin"
