"""The container clock: policy before the baseline, calibrated after it, with a floor, and never wider than policy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.core.decision.clock import COLD_FACTOR, clock
from runner.core.policy.policy_files import Decision, Policies


@pytest.fixture
def calibrated(policies: Policies) -> Decision:
    """Policy without a floor: the baseline alone says."""
    return policies.decision.model_copy(update={"least_allowance": 0.0})


def most(policy: Decision) -> float:
    return policy.startup_seconds + policy.hand_over_seconds


def test_before_the_baseline_policy_rules(policies: Policies) -> None:
    found = clock(policies.decision, 300, None)
    assert found.allowance == most(policies.decision)
    assert found.limit == 300 + found.allowance
    assert found.advantage == found.allowance


def test_after_it_the_allowance_is_half_again_the_baselines_overhead_and_ten_seconds(calibrated: Decision) -> None:
    found = clock(calibrated, 300, 40)
    assert found.allowance == pytest.approx(70)
    assert found.advantage == pytest.approx(30)


def test_a_slow_baseline_cannot_widen_the_policy(policies: Policies) -> None:
    assert clock(policies.decision, 300, 3000).allowance == most(policies.decision)


def test_a_baseline_that_stopped_early_leaves_the_margin_only(calibrated: Decision) -> None:
    assert clock(calibrated, 300, -200).allowance == 10


# The floor: a baseline may need less than an honest change


def test_a_quick_baseline_leaves_policys_share_of_the_budget(policies: Policies) -> None:
    floor = policies.decision.least_allowance * 300
    assert floor == pytest.approx(90)
    found = clock(policies.decision, 300, 10)
    assert (found.allowance, found.limit) == (floor, 300 + floor)
    assert found.advantage == floor - 10
    assert clock(policies.decision, 300, -200).allowance == floor


def test_a_baseline_that_needs_more_than_the_floor_is_calibrated_as_ever(policies: Policies) -> None:
    assert clock(policies.decision, 300, 60).allowance == pytest.approx(100)


def test_the_floor_is_of_the_budget_and_cannot_widen_the_policy(policies: Policies) -> None:
    assert clock(policies.decision, 60, 5).allowance == pytest.approx(18)
    assert clock(policies.decision, 7200, 5).allowance == most(policies.decision)


# What the run took that made the compiled code


def test_where_the_baseline_began_with_compiled_code_a_change_may_compile_as_long_as_that_took(
    calibrated: Decision,
) -> None:
    found = clock(calibrated, 300, 20, cold=100)
    assert found.allowance == pytest.approx(COLD_FACTOR * 100) == pytest.approx(120)
    assert found.baseline_overhead == 20


@pytest.mark.parametrize("cold", [None, 0.0, 30.0])
def test_a_cold_run_that_was_quicker_than_the_calibration_changes_nothing(
    calibrated: Decision, cold: float | None
) -> None:
    assert clock(calibrated, 300, 20, cold) == clock(calibrated, 300, 20)


def test_a_slow_cold_run_cannot_widen_the_policy_and_counts_only_with_a_baseline(policies: Policies) -> None:
    assert clock(policies.decision, 300, 20, cold=10_000).allowance == most(policies.decision)
    assert clock(policies.decision, 300, None, cold=1.0) == clock(policies.decision, 300, None)


SECONDS = st.floats(0, 1e6)


@given(SECONDS, st.floats(-1e6, 1e6), st.none() | SECONDS, st.floats(0, 1))
def test_whatever_is_measured_the_clock_lies_between_margin_and_policy(
    policies: Policies, budget: float, overhead: float, cold: float | None, least: float
) -> None:
    policy = policies.decision.model_copy(update={"least_allowance": least})
    found = clock(policy, budget, overhead, cold)
    assert 10 <= found.allowance <= most(policy)
    assert found.limit == budget + found.allowance
    assert found.allowance >= min(most(policy), max(least * budget, COLD_FACTOR * (cold or 0.0)))
