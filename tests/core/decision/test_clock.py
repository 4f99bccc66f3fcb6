"""The container clock: policy before the baseline, calibrated after it, never wider than policy."""

from __future__ import annotations

import pytest

from runner.core.decision.clock import clock
from runner.core.policy.policy_files import Policies


def test_before_the_baseline_policy_rules(policies: Policies) -> None:
    found = clock(policies.decision, 300, None)
    assert found.allowance == policies.decision.startup_seconds + policies.decision.hand_over_seconds
    assert found.limit == 300 + found.allowance
    assert found.advantage == found.allowance


def test_after_it_the_allowance_is_half_again_the_baselines_overhead_and_ten_seconds(policies: Policies) -> None:
    found = clock(policies.decision, 300, 40)
    assert found.allowance == pytest.approx(70)
    assert found.advantage == pytest.approx(30)


def test_a_slow_baseline_cannot_widen_the_policy(policies: Policies) -> None:
    most = policies.decision.startup_seconds + policies.decision.hand_over_seconds
    assert clock(policies.decision, 300, 3000).allowance == most


def test_a_baseline_that_stopped_early_leaves_the_margin_only(policies: Policies) -> None:
    assert clock(policies.decision, 300, -200).allowance == 10
