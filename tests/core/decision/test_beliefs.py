"""What scores say of the files of a line: luck is found out, noise is learned, and order and scale play no part."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.core.decision.beliefs import Beliefs

BASE = [1.0, 1.001, 0.999]


def night(beliefs: Beliefs, effects: list[float], sigma: float = 0.001, seed: int = 0) -> float:
    """Learn candidates of these effects from the best, keep those that gain; the best's true value."""
    chance, true = random.Random(seed), 1.0
    for number, effect in enumerate(effects, 2):
        score = true - effect + chance.gauss(0.0, sigma)
        weighed = beliefs.weigh(beliefs.best, [score])
        kept = weighed.gain > 0.15 * weighed.sigma
        beliefs.learn(number, beliefs.best, [score], kept=kept)
        true -= effect if kept else 0.0
    return true


def test_a_higher_score_gains_less_and_is_real_with_less_probability() -> None:
    beliefs = Beliefs(1, BASE, 1e-9)
    found = [beliefs.weigh(1, [1.0 + step / 1000]) for step in range(-8, 9)]
    assert [one.gain for one in found] == sorted((one.gain for one in found), reverse=True)
    assert [one.probability for one in found] == sorted((one.probability for one in found), reverse=True)
    assert found[0].probability > 0.9 > 0.1 > found[-1].probability
    assert all(0 <= one.probability <= 1 for one in found)


def test_a_gain_is_expected_to_be_smaller_than_it_looks() -> None:
    beliefs = Beliefs(1, BASE, 1e-9)
    assert 0 < beliefs.weigh(1, [0.998]).gain < 0.002


def test_two_runs_that_agree_say_more_than_one() -> None:
    beliefs = Beliefs(1, BASE, 1e-9)
    assert beliefs.weigh(1, [0.9978, 0.9982]).probability > beliefs.weigh(1, [0.998]).probability


def test_a_file_that_ignores_its_seed_counts_once_however_often_it_runs() -> None:
    beliefs = Beliefs(1, BASE, 1e-9)
    assert beliefs.weigh(1, [0.998] * 5) == beliefs.weigh(1, [0.998])
    assert Beliefs(1, [1.0] * 5, 0.001).weigh(1, [0.998]) == Beliefs(1, [1.0], 0.001).weigh(1, [0.998])


def test_a_lucky_best_is_found_out_by_candidates_that_change_nothing() -> None:
    beliefs = Beliefs(1, BASE, 1e-9)
    beliefs.learn(2, 1, [0.996], kept=True)  # it changed nothing, and was lucky
    before = beliefs.expected()
    for number in range(3, 13):
        beliefs.learn(number, 2, [1.0 + 0.0005 * (-1) ** number], kept=False)
    assert before < 0.998
    assert beliefs.expected() > 0.9985
    assert beliefs.weigh(2, [0.9985]).gain > 0  # by its own lucky score this would be a loss


def test_what_was_made_from_a_file_follows_it() -> None:
    beliefs = Beliefs(1, BASE, 1e-9)
    beliefs.learn(2, 1, [0.9962], kept=True)
    beliefs.learn(3, 2, [0.9956], kept=True)
    before = beliefs.expected(3)
    for number in range(4, 10):
        beliefs.learn(number, 2, [1.0], kept=False)
    assert beliefs.expected(2) > 0.998
    assert beliefs.expected(3) > before


def test_a_candidate_of_an_older_file_is_weighed_against_the_best() -> None:
    beliefs = Beliefs(1, BASE, 1e-9)
    beliefs.learn(2, 1, [0.98], kept=True)
    behind = beliefs.weigh(1, [0.99])  # much better than its parent, much worse than the best
    assert behind.gain < -0.005
    assert behind.probability > 0.8


def test_the_noise_is_learned_from_candidates() -> None:
    for sigma in (0.0005, 0.001, 0.003):
        beliefs = Beliefs(1, BASE, 1e-9)
        night(beliefs, [0.0] * 80, sigma)
        assert beliefs.sigma() == pytest.approx(sigma, rel=0.45)


def test_what_a_night_expects_is_what_it_gained() -> None:
    errors = []
    for seed in range(60):
        chance = random.Random(seed)
        effects = [chance.choice([0, 0, 0, -0.002, 0.001, 0.003]) for _ in range(60)]
        beliefs = Beliefs(1, [1.0 + chance.gauss(0, 0.001) for _ in range(3)], 1e-9)
        true = night(beliefs, effects, seed=seed)
        errors.append((beliefs.baseline - beliefs.expected()) - (1.0 - true))
    assert abs(sum(errors) / len(errors)) < 0.0006  # a twentieth of the gain
    assert max(map(abs, errors)) < 0.005


scores = st.lists(st.floats(-10, 10).map(lambda z: round(z, 3)), min_size=1, max_size=12)


@settings(deadline=None, max_examples=60)
@given(scores, st.sampled_from([0.1, 10.0, 1000.0]), st.floats(-5, 5))
def test_neither_the_unit_nor_the_zero_of_the_score_plays_a_part(zs: list[float], unit: float, shift: float) -> None:
    one, other = Beliefs(1, BASE, 1e-9), Beliefs(1, [shift + unit * x for x in BASE], unit * 1e-9)
    for number, z in enumerate(zs, 2):
        score = 1.0 + z * 0.001
        ours, theirs = one.weigh(one.best, [score]), other.weigh(other.best, [shift + unit * score])
        assert theirs.gain == pytest.approx(unit * ours.gain, rel=1e-4, abs=unit * 1e-7)
        assert theirs.probability == pytest.approx(ours.probability, abs=1e-4)
        for beliefs, told in ((one, score), (other, shift + unit * score)):
            beliefs.learn(number, beliefs.best, [told], kept=ours.gain > 0)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(0, 64, allow_nan=False), min_size=1, max_size=25), st.floats(1e-6, 1))
def test_no_scores_whatever_make_it_fail_or_say_what_is_no_number(told: list[float], least: float) -> None:
    beliefs = Beliefs(1, told[:2], least)
    for number, score in enumerate(told, 2):
        found = beliefs.weigh(beliefs.best, [score])
        assert all(map(math.isfinite, found))
        assert -1e-9 <= found.probability <= 1 + 1e-9
        beliefs.learn(number, beliefs.best, [score], kept=number % 2 == 0)
        assert math.isfinite(beliefs.expected())
        assert beliefs.sigma() > 0
        assert beliefs.lowest() <= beliefs.expected() + 1e-12


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(-8, 8), st.booleans(), st.integers(0, 30), st.booleans()), max_size=40))
def test_the_lowest_of_the_line_is_that_of_all_its_files(steps: list[tuple[float, bool, int, bool]]) -> None:
    """However files move by what is learned, measured again and taken out."""
    beliefs, files = Beliefs(1, BASE, 1e-9), [1]
    for number, (away, kept, chosen, again) in enumerate(steps, 2):
        parent = files[chosen % len(files)]
        beliefs.learn(number, parent, [1.0 + away / 1000], kept=kept)
        if kept:
            files.append(number)
        if again:
            beliefs.measured(files[chosen % len(files)], 1.0 - away / 900)
        if chosen > 25 and len(files) > 2:
            beliefs.take_out([files.pop(1)])
        assert beliefs.lowest() == min(map(beliefs.expected, files))
