"""Would ending runs early pay? On nights made for it, and held against what the production code does live."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import pytest

from runner.core.base.values import INTERRUPTED, Experiment, Rerun, Status
from runner.core.decision.early_stop import Lookout
from runner.core.decision.odds import Line
from runner.core.findings import early_stopping
from runner.core.policy.policy_files import Decision, Policies
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
    decision = policies.decision.model_copy(update={"rule": "upstream", "early_stop": policy})
    found = early_stopping.study(decision, rows)
    assert {one.experiment: one.look for one in found.ended} == ended
    assert len(ended) > 20  # else nothing was looked at
    assert found.saved == pytest.approx(sum(1 - look for look in ended.values()) / 120)
    assert found.faster == pytest.approx(1 / (1 - found.saved))


def upstream(policies: Policies) -> Decision:
    return policies.decision.model_copy(update={"rule": "upstream"})


def test_under_odds_a_run_is_held_against_what_is_believed(policies: Policies) -> None:
    """As the desk does live; a lucky best is no wall."""
    policy = policies.decision.early_stop.model_copy(update={"enabled": True, "audit": 0.0})
    decision = policies.decision.model_copy(update={"early_stop": policy})
    rows, line, known = night(120, 6, told=0.95), Line(decision), list[Experiment]()
    scale = Rerun.model_construct(
        experiment=1, during=2, seed=43, val_bpb=1.0004, lane="", reason=None, pair=0, seconds=8.0
    )  # the baseline's second run, before anything is decided
    ended: dict[int, float] = {}
    for row in rows:
        lookout = Lookout(policy, row.lane, partial(_known, known, line.to_beat(row.lane)), audited=False)
        at = next((look for look, loss in row.pace if known and lookout.judge(look, loss)), None)
        ended |= {} if at is None else {row.id: at}
        known.append(row if at is None else row.model_copy(update={"val_bpb": None, "hopeless": lookout.found}))
        line.take(row, [scale] if row.id == scale.during else [])
    found = early_stopping.study(decision, rows, [scale])
    assert {one.experiment: one.look for one in found.ended} == ended
    assert len(ended) > 20


def test_the_baselines_run_during_an_interrupted_row_is_counted(policies: Policies) -> None:
    """Its draw was made, and the desk scales by it at the next row: the study must, or it holds runs against nothing."""
    rows = night(120, 6, told=0.95)
    rows[1] = rows[1].model_copy(update={"status": Status.CRASH, "reason": INTERRUPTED, "val_bpb": None, "pace": ()})
    scale = Rerun.model_construct(
        experiment=1, during=2, seed=43, val_bpb=1.0004, lane="", reason=None, pair=0, seconds=8.0
    )
    decision = policies.decision.model_copy(update={"rule": "odds"})
    assert len(early_stopping.study(decision, rows, [scale]).ended) > 20
    assert not early_stopping.study(decision, rows).ended  # a baseline that ran once tells no noise


def test_a_keep_that_a_person_took_back_is_no_score_to_beat(policies: Policies) -> None:
    rows = night(60, 7, told=0.95)
    lucky = experiment(61, status=Status.KEEP, val_bpb=0.5, pace=rows[-1].pace, claimed=0.4)
    best = [row for row in rows if row.status is Status.KEEP][-1]
    again = experiment(62, status=Status.KEEP, val_bpb=best.val_bpb, pace=[], veto=61)
    later = [row.model_copy(update={"id": 62 + row.id}) for row in night(60, 8, told=0.95)[1:]]
    without, found = (
        early_stopping.study(upstream(policies), some) for some in ([*rows, *later], [*rows, lucky, again, *later])
    )
    assert 61 not in {one.experiment for one in found.ended if one.kept}
    assert found.gain == pytest.approx(without.gain)
    assert len(found.ended) <= len(without.ended) + 3


def test_time_is_of_all_training(policies: Policies) -> None:
    """Runs that tell nothing cannot be ended, and take time."""
    rows = night(120, 1, told=0.95)
    half = [row if row.id % 2 else row.model_copy(update={"pace": []}) for row in rows]
    found = early_stopping.study(upstream(policies), half)
    time = sum((1 - one.look) * 8.0 for one in found.ended)
    assert found.saved == pytest.approx(time / (120 * 8.0))
    other = policies.decision.model_copy(
        update={"rule": "upstream", "early_stop": policies.decision.early_stop.model_copy(update={"looks": (0.9,)})}
    )
    nothing = early_stopping.study(other, rows)
    assert (nothing.runs, nothing.advice) == (0, "no run told a loss at these looks")


def _known(rows: list[Experiment], best: float | None) -> tuple[list[Experiment], float | None]:
    return rows, best


def test_losses_that_tell_pay_and_losses_that_say_nothing_do_not(policies: Policies) -> None:
    policy = upstream(policies)
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
    found = early_stopping.study(upstream(policies), rows)
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
    found = early_stopping.study(upstream(policies), rows)
    assert found.runs <= 59
    assert 0 <= found.saved < 1


def test_runs_that_were_ended_in_fact_are_unknown(policies: Policies) -> None:
    rows = night(60, 5, told=0.9)
    gone = {"val_bpb": None, "reason": "early_stop", "status": Status.DISCARD}
    rows[40] = rows[40].model_copy(update=gone)
    found = early_stopping.study(upstream(policies), rows)
    assert (found.unknown, found.runs) == (1, 58)


def test_nothing_is_no_error(policies: Policies) -> None:
    for rows in ([], night(1, 0, told=0.5)):
        found = early_stopping.study(upstream(policies), rows)
        assert (found.runs, found.ended, found.saved, found.lost, found.keeps) == (0, [], 0.0, 0.0, 0)
