"""The decision on simulated nights: error rates are what policy says, and what a night is said to gain it gained."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from bench import decision, nights
from bench.nights import MIXTURE, Night
from runner.core.policy.policy_files import Decision

PAIRED = decision.rule("paired")
ODDS = decision.rule("odds")
UPSTREAM = decision.rule("upstream")


@pytest.mark.parametrize("candidates", [1, 10, 60])
@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_by_pairs_candidates_without_effect_are_kept_at_most_as_often_as_alpha(alpha: float, candidates: int) -> None:
    rules = PAIRED.model_copy(update={"alpha": alpha})
    assert decision.noise_only(rules, 3000 // candidates, candidates)["false_keep_rate"] <= alpha


def test_upstreams_rule_keeps_them_more_often_on_the_same_nights() -> None:
    """The probe can see a false keep: without the noise floor there are many."""
    assert decision.noise_only(UPSTREAM, 300, 10)["false_keep_rate"] > 0.15


def test_by_pairs_real_gains_are_found_the_more_often_the_larger() -> None:
    one, two, three = (decision.single(PAIRED, effect, 300)["kept"] for effect in (1, 2, 3))
    assert one > 0.12
    assert two > 0.5
    assert three > 0.85


@pytest.mark.parametrize("sigma", [0.0005, 0.001, 0.003, 0.01, 0.03])
def test_by_pairs_a_baseline_that_ignores_its_seed_loses_to_luck_at_most_as_often_as_alpha(sigma: float) -> None:
    assert decision.seedless(PAIRED, sigma, 1000) <= PAIRED.alpha


@pytest.mark.parametrize("sigma", [0.003, 0.03])
def test_it_loses_to_a_real_gain(sigma: float) -> None:
    assert decision.seedless(PAIRED, sigma, 200, effect=3.0) > 0.85


def outcomes(rules: Decision, night: Night, count: int) -> list[nights.Outcome]:
    return [nights.simulate(rules, night, seed) for seed in range(count)]


@pytest.mark.parametrize("kind", ["real", MIXTURE])
def test_by_odds_what_a_night_expects_and_what_is_measured_apart_is_what_it_gained(kind: str) -> None:
    found = outcomes(ODDS, Night(kind, 60, apart=(3, 4)), 60)
    true = math.fsum(one.true for one in found)
    assert math.fsum(one.claimed for one in found) == pytest.approx(true, rel=0.12)
    assert math.fsum(one.fresh for one in found) == pytest.approx(true, rel=0.12)


def test_upstreams_nights_claim_more_than_they_gained() -> None:
    """The same probe sees a claim that is luck."""
    found = outcomes(UPSTREAM, Night(MIXTURE, 60), 60)
    assert math.fsum(one.claimed for one in found) > 1.06 * math.fsum(one.true for one in found)


def test_by_odds_no_night_gains_much_less_than_by_upstreams_rule() -> None:
    night = Night("real", 60)
    ours, theirs = outcomes(ODDS, night, 80), outcomes(UPSTREAM, night, 80)
    ratio, width = decision._ratio([one.true for one in ours], [one.true for one in theirs])
    assert ratio + width > 1.0


def test_a_keep_that_is_probably_real_is_so_more_often_than_one_that_is_not() -> None:
    told = [pair for one in outcomes(ODDS, Night("real", 80), 60) for pair in one.told]
    sure = [real for probability, real in told if probability > 0.9]
    unsure = [real for probability, real in told if probability < 0.5]
    assert sum(sure) > 0.8 * len(sure)
    assert sum(unsure) < 0.7 * len(unsure)


def test_a_published_night_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "results.tsv"
    lines = ["commit\tval_bpb\tmemory_gb\tstatus\tdescription", "a\t1.0\t1\tkeep\tbaseline"]
    lines += ["b\t0.98\t1\tkeep\ta large gain", "c\t0.9799\t1\tkeep\tnext to nothing", "d\t0.000000\t0\tcrash\tbroken"]
    lines += [f"e{n}\t{0.9801 + n * 1e-4:.4f}\t1\tdiscard\tnothing" for n in range(10)]
    path.write_text("\n".join(lines) + "\n")
    found = decision.replay(path, 0.0005)
    large, small = found["keeps"]
    assert large["probability"] > 0.9 > small["probability"]
    assert found["claimed"] == 0.0201
    assert found["below the noise"] == 1
    assert 0.015 < found["expected"] < 0.0201
