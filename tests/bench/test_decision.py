"""The decision on simulated nights: its error rate is what policy says, and it finds real gains."""

from __future__ import annotations

import pytest

from bench import decision
from runner.core.base.home import SOURCE
from runner.core.policy import policy_files
from runner.core.policy.policy_files import Decision


@pytest.fixture(scope="module")
def rules() -> Decision:
    return policy_files.load(SOURCE / "policies").decision


@pytest.mark.parametrize("candidates", [1, 10, 60])
@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_candidates_without_effect_are_kept_at_most_as_often_as_alpha(
    rules: Decision, alpha: float, candidates: int
) -> None:
    found = decision.noise_only(rules.model_copy(update={"alpha": alpha}), 3000 // candidates, candidates)
    assert found["false_keep_rate"] <= alpha


def test_upstreams_rule_keeps_them_more_often_on_the_same_nights(rules: Decision) -> None:
    """The probe can see a false keep: without the noise floor there are many."""
    upstream = rules.model_copy(update={"rule": "upstream"})
    assert decision.noise_only(upstream, 300, 10)["false_keep_rate"] > 0.15


def test_real_gains_are_found_the_more_often_the_larger(rules: Decision) -> None:
    one, two, three = (decision.single(rules, effect, 300)["kept"] for effect in (1, 2, 3))
    assert one > 0.12
    assert two > 0.5
    assert three > 0.85


def test_what_a_night_claims_is_what_it_gained(rules: Decision) -> None:
    ours = decision.mixed(rules, 60)
    assert ours["claimed"] < 1.15 * ours["true"]
    assert ours["false_keeps"] < 0.2 * ours["keeps"]


@pytest.mark.parametrize("sigma", [0.0005, 0.001, 0.003, 0.01, 0.03])
def test_a_baseline_that_ignores_its_seed_loses_to_luck_at_most_as_often_as_alpha(
    rules: Decision, sigma: float
) -> None:
    assert decision.seedless(rules, sigma, 1000) <= rules.alpha


@pytest.mark.parametrize("sigma", [0.003, 0.03])
def test_it_loses_to_a_real_gain(rules: Decision, sigma: float) -> None:
    assert decision.seedless(rules, sigma, 200, effect=3.0) > 0.85
