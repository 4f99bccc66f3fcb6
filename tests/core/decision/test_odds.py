"""Rule `odds`, one by one and in order; and a tag is the same whether it is remembered or read again."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.nights import START, Code, Night, Search
from runner.core.base.values import Experiment, Rerun, Status
from runner.core.decision.decide import FIRST_SEED, Runs, Verdict, Wanted
from runner.core.decision.odds import Candidate, Line
from runner.core.evidence.replay import replay
from runner.core.policy.policy_files import Policies
from tests.core.decision.test_decide import RULES
from tests.samples import experiment

ODDS = RULES.model_copy(update={"rule": "odds", "verify_from_sigmas": 20.0, "scale_runs": 3})
SIGMA = 0.001


def rerun(number: int, of: int, during: int, seed: int, score: float | None, lane: str = "") -> Rerun:
    base = Rerun(
        id=number, tag="t", experiment=of, during=during, seed=seed, given=seed, budget=1.0, artifact="demo-1",
        snapshot="0" * 64, run="0" * 16, started="2026-01-01T00:00:00+00:00", status="scored", lane=lane,
    )  # fmt: skip
    return base.model_copy(update={"val_bpb": score} if score is not None else {"status": Status.CRASH})


BASELINE = [rerun(1, 1, 2, 43, 1.001), rerun(2, 1, 2, 44, 0.999)]


def row(number: int, status: Status, score: float | None, **fields: Any) -> Experiment:
    base = {"status": status, "val_bpb": score, "snapshot_size": 1000, "lane": "", "memory_gb": 0.1, "claimed": None}
    return experiment(number, **{**base, **fields})


FIRST = row(1, Status.KEEP, 1.0)


def line(*rows: Experiment, rules: Any = ODDS, reruns: list[Rerun] = BASELINE) -> Line:
    found = Line(rules)
    found.catch_up([FIRST, *rows], reruns)
    return found


def candidate(
    *scores: float | None, size: int = 1000, parent: int | None = 1, lane: str = "", mb: float = 0
) -> Candidate:
    runs = Runs(dict(zip(itertools.count(FIRST_SEED), scores, strict=False)), size, mb)
    return Candidate(9, parent, lane, runs)


def verdict(found: Verdict | Wanted) -> Verdict:
    assert isinstance(found, Verdict)
    return found


def test_the_first_score_of_a_tag_is_its_baseline() -> None:
    assert Line(ODDS).judge(candidate(1.0), []) == Verdict(Status.KEEP)


def test_the_baseline_is_run_as_often_as_policy_says_before_anything_is_decided() -> None:
    assert line(reruns=[]).judge(candidate(0.9), []) == Wanted("baseline", 43)
    assert line(reruns=[]).judge(candidate(0.9), BASELINE[:1]) == Wanted("baseline", 44)
    assert isinstance(line(reruns=[]).judge(candidate(0.995), BASELINE), Verdict)


def test_a_baseline_that_gives_no_score_again_is_tried_on_a_few_seeds_and_then_taken_as_it_was() -> None:
    failed = [rerun(n, 1, 2, 42 + n, None) for n in range(1, 6)]
    assert line(reruns=[]).judge(candidate(0.9), failed[:4]) == Wanted("baseline", 47)
    assert verdict(line(reruns=[]).judge(candidate(0.999), failed)).status is Status.KEEP


def test_a_gain_is_kept_and_a_loss_is_not() -> None:
    good, bad = (verdict(line().judge(candidate(score), BASELINE)) for score in (0.995, 1.003))
    assert (good.status, bad.status) == (Status.KEEP, Status.DISCARD)
    assert good.gain is not None
    assert bad.gain is not None
    assert good.gain > 0.002 > 0 > bad.gain
    assert good.probability is not None
    assert good.probability > 0.8
    assert (good.claimed, good.pairs, good.confirmed) == (0.005, 0, None)


def test_what_a_keep_needs_is_policys_to_say() -> None:
    """Each setting once: with it the same candidate is not kept."""
    plain = candidate(0.9985)
    assert verdict(line().judge(plain, BASELINE)).status is Status.KEEP
    for setting in ({"keep_from_sigmas": 3.0}, {"keep_probability": 0.99}, {"minimum_gain_bpb": 0.01}):
        strict = ODDS.model_copy(update=setting)
        assert verdict(line(rules=strict).judge(plain, BASELINE)).status is Status.DISCARD


def test_added_code_must_gain_more_and_removed_code_need_not() -> None:
    priced = ODDS.model_copy(update={"code_sigmas": 0.5})
    for size, status in ((1000, Status.KEEP), (3000, Status.DISCARD), (980, Status.KEEP)):
        assert verdict(line(rules=priced).judge(candidate(0.9985, size=size), BASELINE)).status is status


def test_an_equal_and_simpler_file_is_kept_and_a_worse_one_is_not() -> None:
    equal = verdict(line().judge(candidate(1.0003, size=900), BASELINE))
    assert (equal.status, equal.reason) == (Status.KEEP, "simpler")
    assert verdict(line().judge(candidate(1.0003, size=980), BASELINE)).status is Status.DISCARD  # too little removed
    assert verdict(line().judge(candidate(1.004, size=10), BASELINE)).status is Status.DISCARD


def test_simpler_files_may_not_lose_more_than_that_all_together() -> None:
    rows, size, chance = [FIRST], 1000, random.Random(3)
    true, kept, reruns = 1.0, 0, BASELINE
    for number in range(2, 60):  # each is worse by a third of the noise, and 50 bytes smaller
        remembered = Line(ODDS)
        remembered.catch_up(rows, reruns)
        score = true + SIGMA / 3 + chance.gauss(0, SIGMA)
        made = Candidate(number, None, "", Runs({FIRST_SEED: score}, size - 50))
        found = verdict(remembered.judge(made, reruns))
        if found.status is Status.KEEP:
            kept, size, true = kept + 1, size - 50, true + SIGMA / 3
        rows.append(row(number, found.status, score, snapshot_size=size))
    assert kept >= 1
    assert true - 1.0 < 3 * SIGMA  # 58 such steps would be 19


def test_a_far_larger_file_must_gain_more() -> None:
    big = candidate(0.995, mb=500)
    assert verdict(line().judge(big, BASELINE)).reason == "memory"
    assert verdict(line().judge(candidate(0.9, 0.9, mb=500), BASELINE)).status is Status.KEEP


def test_a_promise_beyond_belief_is_run_again_and_both_count() -> None:
    assert line().judge(candidate(0.9), BASELINE) == Wanted("candidate", 43)
    assert verdict(line().judge(candidate(0.9, 0.901), BASELINE)).status is Status.KEEP
    assert verdict(line().judge(candidate(0.9, None), BASELINE)).reason == "not_confirmed"
    assert verdict(line().judge(candidate(0.9, 1.15), BASELINE)).status is Status.DISCARD


def test_another_lane_is_read_by_its_own_baseline() -> None:
    """A slower GPU scores everything 0.05 higher: an equal file is no loss there, and no gain here."""
    slow = [rerun(n, 1, 3, 42 + n, 1.05 + d * 0.001, "gpu1") for n, d in ((1, 0), (2, 1), (3, -1))]
    known = line(row(2, Status.DISCARD, 1.002))
    assert known.judge(candidate(1.045, lane="gpu1"), BASELINE) == Wanted("baseline", 43)
    better, equal = (
        verdict(known.judge(candidate(score, lane="gpu1"), [*BASELINE, *slow])) for score in (1.045, 1.0512)
    )
    assert (better.status, equal.status) == (Status.KEEP, Status.DISCARD)
    assert better.claimed == pytest.approx(0.005, abs=2e-4)


def test_lanes_that_differ_by_noise_alone_are_one(policies: Policies) -> None:
    same = [rerun(n, 1, 3, 42 + n, 1.0003 + d * 0.001, "gpu1") for n, d in ((1, 0), (2, 1), (3, -1))]
    known = line(row(2, Status.DISCARD, 1.002))
    there = verdict(known.judge(candidate(0.998, lane="gpu1"), [*BASELINE, *same]))
    here = verdict(line(row(2, Status.DISCARD, 1.002)).judge(candidate(0.998), BASELINE))
    assert there.gain == pytest.approx(here.gain, abs=5e-5)
    assert policies.decision.rule == "odds"


def search(rules: Any = ODDS, sigma: float = SIGMA) -> tuple[Search, Any]:
    """A simulated tag under the production rule, and what offers it a candidate of so many sigma, its noise included."""
    made = Search(rules, Night("real", 10_000), random.Random(1))

    def offer(effect: float, noise: float | None = None, size: int | None = None) -> bool:
        """Whether it is kept; `noise`: that of its first run, in sigma (None: drawn)."""
        best = made.best
        code = Code(best.true - effect * sigma, 0, best.number, sigma)
        if noise is not None:
            code.planned[FIRST_SEED] = code.true + noise * sigma
        made.end((code, effect))
        return made.best is code

    return made, offer


def test_absurd_scores_make_no_worse_one_look_good() -> None:
    """Diverged runs: the third of three that scored 64 was kept as a gain, with probability 1."""
    for scores in ((64.0, 64.0, 63.5), (1.6,) * 10 + (1.55,), (64.0,) * 4):
        made, _ = search()
        for score in scores:
            made.end((Code(score, 0, 1, SIGMA), START - score))
        assert made.best.number == 1
        assert made.line.beliefs is not None
        assert abs(made.line.beliefs.expected() - START) < 3 * SIGMA


def test_diverged_runs_say_nothing_of_the_noise() -> None:
    made, offer = search()
    for _ in range(10):
        offer(0.0)
    for _ in range(5):
        made.end((Code(START + 0.4, 0, 1, SIGMA), -400.0))
    made.line.catch_up(made.rows, made.reruns)
    assert made.line.beliefs is not None
    assert made.line.beliefs.sigma() < 2 * SIGMA


def test_one_fluke_does_not_block_honest_gains() -> None:
    """A run that scored 40 sigma too low is run again first, and the second must gain by itself."""
    made, offer = search()
    offer(0.0, noise=-40.0)
    made.line.catch_up(made.rows, made.reruns)
    assert made.line.beliefs is not None
    assert abs(made.line.beliefs.expected() - START) < 4 * SIGMA
    for _ in range(40):
        offer(2.0)
    assert START - made.best.true > 20 * SIGMA


def test_a_best_that_was_a_fluke_twice_is_looked_at_again_and_found_out() -> None:
    made, offer = search()
    lucky = Code(START, 0, 1, SIGMA)
    lucky.planned[FIRST_SEED + 1] = START - 40 * SIGMA  # as low in its second run as in its first
    lucky.planned[FIRST_SEED] = START - 40 * SIGMA
    made.end((lucky, 0.0))
    assert made.best is lucky
    for _ in range(60):
        offer(2.0)
    assert any(rerun.experiment == lucky.number and rerun.seed > 500 for rerun in made.reruns)
    assert START - made.best.true > 20 * SIGMA


def test_worse_files_do_not_add_up_downhill() -> None:
    made, offer = search()
    for _ in range(400):
        offer(-0.5)
    assert made.best.true - START < 6 * SIGMA


def tag(effects: list[float], seed: int) -> tuple[list[Experiment], list[Rerun]]:
    """A tag as the desk would record it."""
    chance, remembered = random.Random(seed), Line(ODDS)
    rows, reruns, true = [FIRST], list(BASELINE), {1: 1.0}
    best = 1
    for number, effect in enumerate(effects, 2):
        parent = best if chance.random() < 0.8 else chance.choice(list(true))
        value = true[parent] - effect * SIGMA
        runs = {FIRST_SEED: value + chance.gauss(0, SIGMA)}
        remembered.catch_up(rows, reruns)
        while isinstance(
            found := remembered.judge(Candidate(number, parent, "", Runs(runs, 1000, 102.4)), reruns), Wanted
        ):
            runs[found.seed] = value + chance.gauss(0, SIGMA)
            reruns.append(rerun(len(reruns) + 1, number, number, found.seed, runs[found.seed]))
        made = row(number, found.status, runs[FIRST_SEED], parent=parent)
        fields = {name: getattr(found, name) for name in ("reason", "claimed", "gain", "probability", "sigma")}
        rows.append(made.model_copy(update=fields))
        if found.status is Status.KEEP:
            best, true[number] = number, value
    return rows, reruns


@settings(deadline=None, max_examples=25)
@given(st.lists(st.sampled_from([0.0, 0.0, -2.0, 1.0, 4.0, 40.0]), min_size=1, max_size=25), st.integers(0, 1000))
def test_every_verdict_follows_from_the_ledger_and_another_one_does_not(effects: list[float], seed: int) -> None:
    rows, reruns = tag(effects, seed)
    wrong, count = replay(ODDS, rows, reruns)
    assert (wrong, count) == ([], len(rows))
    last = rows[-1]
    turned = Status.DISCARD if last.status is Status.KEEP else Status.KEEP
    for forged in (
        last.model_copy(update={"status": turned}),
        last.model_copy(update={"gain": (last.gain or 0.0) + 0.001}),
        last.model_copy(update={"probability": (last.probability or 0.0) + 0.001}),
        last.model_copy(update={"val_bpb": (last.val_bpb or 0.0) - 0.01}),
    ):
        assert len(replay(ODDS, [*rows[:-1], forged], reruns)[0]) == 1


def test_equal_rows_may_end_in_any_order() -> None:
    rows = [row(number, Status.DISCARD, 1.001) for number in range(2, 6)]
    found = {verdict(line(*some).judge(candidate(0.998), BASELINE)) for some in itertools.permutations(rows)}
    assert len(found) == 1
