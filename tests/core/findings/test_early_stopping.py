"""Would ending runs early pay? On nights made for it, and held against what the production code does live."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import pytest

from runner.core.base.values import Experiment, Status
from runner.core.decision.early_stop import Lookout
from runner.core.findings import early_stopping
from runner.core.policy.policy_files import Policies
from tests.samples import experiment

LOOKS = (0.3, 0.5, 0.7)


def night(count: int, seed: int, *, told: float, sure: float = 0.0005) -> list[Experiment]:
    """Nine in ten candidates are far worse; a loss at a look is the score's by a share of `told`, else chance."""
    chance = random.Random(seed)
    rows, best = [], 1.0
    for number in range(1, count + 1):
        effect = 0.0 if number == 1 else chance.uniform(-0.1, 0.0) if number % 10 else 0.002
        score = best - effect + chance.gauss(0, sure)
        kept = number == 1 or score < best
        pace = [(look, 3 + told * score + (1 - told) * chance.gauss(0, 0.05) - look) for look in LOOKS]
        gain = None if number == 1 or not kept else best - score
        status = Status.KEEP if kept else Status.DISCARD
        rows.append(experiment(number, status=status, val_bpb=round(score, 6), pace=pace, claimed=gain))
        best = score if kept else best
    return rows


def test_it_ends_what_the_production_code_ends_live(policies: Policies) -> None:
    policy = policies.decision.early_stop.model_copy(update={"enabled": True, "audit": 0.0})
    rows = night(120, 1, told=0.95)
    known: list[Experiment] = []
    ended: dict[int, float] = {}
    best = rows[0].val_bpb
    for row in rows:
        lookout = Lookout(policy, row.lane, partial(_known, known, best), audited=False)
        at = next((look for look, loss in row.pace if known and lookout.judge(look, loss)), None)
        if at is not None:
            ended[row.id] = at
        known.append(row if at is None else row.model_copy(update={"val_bpb": None, "hopeless": lookout.found}))
        if row.status is Status.KEEP:
            best = row.val_bpb
    found = early_stopping.study(policy, rows)
    assert {one.experiment: one.look for one in found.ended} == ended
    assert len(ended) > 20  # else nothing was looked at
    assert found.saved == pytest.approx(sum(1 - look for look in ended.values()) / 119)
    assert found.faster == pytest.approx(1 / (1 - found.saved))


def _known(rows: list[Experiment], best: float | None) -> tuple[list[Experiment], float | None]:
    return rows, best


def test_losses_that_tell_pay_and_losses_that_say_nothing_do_not(policies: Policies) -> None:
    policy = policies.decision.early_stop
    good = early_stopping.study(policy, night(150, 2, told=0.95))
    assert "it would pay" in good.advice
    assert all(value > 0.8 for value in good.together.values())
    bad = early_stopping.study(policy, night(150, 2, told=0.05))
    assert "less than 5%" in bad.advice
    assert all(abs(value) < 0.3 for value in bad.together.values())
    few = early_stopping.study(policy, night(20, 2, told=0.95))
    assert "too few" in few.advice


def test_a_keep_that_would_have_been_ended_is_a_loss(policies: Policies) -> None:
    rows = night(100, 3, told=0.95)
    late = next(row for row in rows if row.id > 60 and row.status is Status.KEEP)
    rows = [row.model_copy(update={"pace": [(look, 9.0) for look in LOOKS]}) if row is late else row for row in rows]
    found = early_stopping.study(policies.decision.early_stop, rows)
    assert [one for one in found.ended if one.kept] == [
        early_stopping.Ended(experiment=late.id, look=0.3, kept=True, gain=late.claimed or 0.0)
    ]
    assert found.lost == pytest.approx((late.claimed or 0.0) / found.gain)


@pytest.mark.parametrize(
    "changes",
    [{"pace": []}, {"val_bpb": None, "status": Status.CRASH}, {"pace": [(0.3, 1.0)]}, {"veto": 3}, {"lane": "4-7"}],
)
def test_rows_that_say_less_are_no_error(policies: Policies, changes: dict[str, Any]) -> None:
    rows = [row.model_copy(update=changes) if row.id % 7 == 3 else row for row in night(60, 4, told=0.9)]
    found = early_stopping.study(policies.decision.early_stop, rows)
    assert found.runs <= 59
    assert 0 <= found.saved < 1


def test_runs_that_were_ended_in_fact_are_unknown(policies: Policies) -> None:
    rows = night(60, 5, told=0.9)
    gone = {"val_bpb": None, "reason": "early_stop", "status": Status.DISCARD}
    rows[40] = rows[40].model_copy(update=gone)
    found = early_stopping.study(policies.decision.early_stop, rows)
    assert (found.unknown, found.runs) == (1, 58)


def test_nothing_is_no_error(policies: Policies) -> None:
    for rows in ([], night(1, 0, told=0.5)):
        found = early_stopping.study(policies.decision.early_stop, rows)
        assert (found.runs, found.ended, found.saved, found.lost, found.keeps) == (0, [], 0.0, 0.0, 0)
