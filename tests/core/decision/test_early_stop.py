"""Which runs cannot win: calibrated on the tag's own runs, anchored on measured scores, audited by draws."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.core.base.launching import EndReason
from runner.core.base.values import Experiment, Hopeless, Status
from runner.core.decision import early_stop
from runner.core.decision.decide import failure
from runner.core.decision.early_stop import Lookout, fit, follows, hopeless
from runner.core.policy.policy_files import EarlyStop
from tests.core.decision.test_decide import engine, scored
from tests.samples import experiment

POLICY = EarlyStop(enabled=True, looks=[0.5], alpha=0.01, runs=8, audit=0.1)


def row(number: int, loss: float, bpb: float, status: Status = Status.DISCARD, **more: Any) -> Experiment:
    return experiment(number, val_bpb=bpb, status=status, pace=[(0.5, loss)], **more)


def night(count: int = 12, lane: str = "") -> list[Experiment]:
    """Rows whose score follows the loss at half time: bpb = 0.3 * loss + 0.1, give or take 0.002."""
    chance = random.Random(1)
    losses = [3.0 + 0.02 * (n % 7) for n in range(count)]
    rows = [row(n + 1, loss, 0.3 * loss + 0.1 + chance.gauss(0, 0.002), lane=lane) for n, loss in enumerate(losses)]
    return [rows[0].model_copy(update={"status": Status.KEEP}), *rows[1:]]


def test_a_loss_far_above_what_can_still_win_is_hopeless_and_a_near_one_is_not() -> None:
    found = hopeless(POLICY, night(), "", 1.0, 0.5, 4.0)
    assert found is not None
    assert (found.look, found.rows, found.against) == (0.5, 12, 1.0)
    assert 1.0 < found.bound < 0.3 * 4.0 + 0.1
    assert hopeless(POLICY, night(), "", 1.0, 0.5, 3.01) is None


@pytest.mark.parametrize(
    ("rows", "look", "lane"),
    [
        (night(7), 0.5, ""),  # fewer runs than policy wants
        (night(), 0.3, ""),  # a look they were not given
        (night(lane="0-3"), 0.5, ""),  # another lane's
        ([], 0.5, ""),
        ([row(n, 3.0, 1.0) for n in range(1, 13)], 0.5, ""),  # one loss: nothing to tell from
        ([row(n, 3.0 + n / 100, 2.0 - n / 100) for n in range(1, 13)], 0.5, ""),  # higher loss, lower score
    ],
)
def test_who_knows_too_little_gives_nothing_up(rows: list[Experiment], look: float, lane: str) -> None:
    assert hopeless(POLICY, rows, lane, 1.0, look, 9.0) is None


def test_losses_that_say_little_about_scores_give_nothing_up() -> None:
    chance = random.Random(2)
    rows = [row(n, 3.0 + chance.random() / 10, 1.0 + chance.gauss(0, 0.05)) for n in range(1, 30)]
    assert hopeless(POLICY, rows, "", 0.95, 0.5, 3.2) is None


def test_a_best_that_lies_about_its_loss_brings_nobody_down() -> None:
    """The line is anchored on what the evaluator measured: one lying row only widens the bounds."""
    liar = night()[0].model_copy(update={"pace": [(0.5, 0.5)]})
    honest, lied = (hopeless(POLICY, rows, "", 1.0, 0.5, 3.3) for rows in (night(), [liar, *night()[1:]]))
    assert honest is not None
    assert lied is None


def test_one_hopeless_run_that_won_all_the_same_ends_early_stopping() -> None:
    told = Hopeless(look=0.5, rows=8, against=1.0, bound=1.1)
    lost = row(13, 3.4, 0.9, Status.KEEP, hopeless=told)
    assert hopeless(POLICY, [*night(), lost], "", 0.9, 0.5, 9.0) is None
    fair = row(13, 3.4, 1.2, Status.DISCARD, hopeless=told)
    assert hopeless(POLICY, [*night(), fair], "", 0.9, 0.5, 9.0) is not None


@pytest.mark.parametrize("audited", [True, False])
def test_an_audited_run_goes_on_and_is_remembered(audited: bool) -> None:
    lookout = Lookout(POLICY, "", lambda: (night(), 1.0), audited)
    assert lookout.judge(0.5, 3.01) is False
    assert lookout.found is None
    assert lookout.judge(0.5, 4.0) is not audited
    assert lookout.found is not None


def test_before_the_baseline_nothing_is_judged() -> None:
    assert not Lookout(POLICY, "", lambda: (night(), None), audited=False).judge(0.5, 99.0)


def test_a_recorded_end_is_replayed_and_a_forged_one_is_found() -> None:
    rows = night()
    found = hopeless(POLICY, rows, "", 1.2, 0.5, 4.0)
    ended = experiment(13, status=Status.DISCARD, reason="early_stop", val_bpb=None, pace=[(0.5, 4.0)], hopeless=found)
    assert found is not None
    assert follows(POLICY, rows, ended)
    assert follows(POLICY, rows, rows[3])
    for forged in (
        {"hopeless": None},
        {"pace": [(0.5, 3.01)]},
        {"pace": []},
        {"hopeless": found.model_copy(update={"against": 0.5})},  # less than there was to beat
        {"hopeless": found.model_copy(update={"bound": 9.0})},
        {"hopeless": found.model_copy(update={"rows": 3})},
    ):
        assert not follows(POLICY, rows, ended.model_copy(update=forged)), forged


def test_a_run_we_ended_is_a_discard_and_one_that_a_stop_ended_is_not() -> None:
    ours = scored(None, engine=engine(reason=EndReason.CANCELLED), ended_early=True, handed_over=False)
    found = failure(ours)
    assert found is not None
    assert (found.status, found.reason) == (Status.DISCARD, "early_stop")
    theirs = failure(scored(None, engine=engine(reason=EndReason.CANCELLED), handed_over=False))
    assert theirs is not None
    assert theirs.reason == "cancelled"


@given(st.lists(st.tuples(st.floats(-100, 100), st.floats(0.1, 60)), max_size=20))
def test_a_line_is_finite_and_rises_or_there_is_none(points: list[tuple[float, float]]) -> None:
    line = fit(points)
    if line is not None:
        assert line.slope > 0
        assert line.least(0.0, 0.01) <= line.mean_bpb + line.slope * (0.0 - line.mean_loss)


def test_the_bound_is_not_crossed_more_often_than_alpha_says() -> None:
    """Of runs drawn as the calibrating ones were, at most about alpha score below their bound."""
    chance, crossed, alpha = random.Random(3), 0, 0.05
    for _ in range(2000):
        points = [(loss, 0.3 * loss + chance.gauss(0, 0.01)) for loss in (chance.gauss(3, 0.1) for _ in range(10))]
        line, loss = fit(points), chance.gauss(3, 0.1)
        if line is not None:
            crossed += 0.3 * loss + chance.gauss(0, 0.01) < line.least(loss, alpha)
    assert crossed / 2000 < alpha + 0.02
    assert crossed > 0
    assert not early_stop.failed([])
