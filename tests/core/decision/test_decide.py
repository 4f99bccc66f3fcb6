"""The decision rules, one by one and in order."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.core.base.launching import EndReason, EngineResult
from runner.core.base.values import Crash, Score, Scored, Snapshot, Status, Telemetry, Trained
from runner.core.decision.decide import Runs, Standing, Verdict, Wanted, failure, judge, measured
from runner.core.decision.noise import Noise
from runner.core.policy.policy_files import Decision, EarlyStop, Policies
from tests import samples

RULES = Decision(
    uneven_processors=0.5,
    rule="paired",
    alpha=0.05,
    baseline_runs=3,
    confirm_runs=3,
    confirm_from_sigmas=0.5,
    minimum_gain_bpb=0.0,
    least_noise_bpb=0.0001,
    simplicity_bytes=40,
    simplicity_sigmas=0.5,
    memory_ratio=2.0,
    memory_gain_bpb=0.05,
    early_stop=EarlyStop(enabled=False, looks=[0.5], alpha=0.01, runs=8, audit=0.1),
    startup_seconds=1.0,
    hand_over_seconds=1.0,
    evaluation_seconds=1.0,
)
UPSTREAM = RULES.model_copy(update={"rule": "upstream"})
NOISE = Noise(0.01, 20)
BEST = Runs({42: 1.0, 43: 1.01, 44: 0.99, 45: 1.0}, 1000, 100.0)
STANDING = Standing(BEST, NOISE, 100.0)


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
    score = Score(status="refused", reason=refused) if refused else samples.scored(bpb)
    return Scored(trained=Trained(**{**base, **trained}), engine=engine(), score=score if bpb is not None else None)


def candidate(*scores: float | None, size: int = 1000, memory: float = 100.0) -> Runs:
    """A train.py with these scores on seeds 42, 43, ..."""
    return Runs(dict(zip(range(42, 60), scores, strict=False)), size, memory)


def verdict(runs: Runs, rules: Decision = RULES, standing: Standing = STANDING) -> Verdict:
    found = judge(rules, standing, runs)
    assert isinstance(found, Verdict)
    return found


def wanted(runs: Runs, rules: Decision = RULES, standing: Standing = STANDING) -> Wanted:
    found = judge(rules, standing, runs)
    assert isinstance(found, Wanted)
    return found


def test_upstream_keeps_any_lower_score_and_nothing_else() -> None:
    assert verdict(candidate(0.9999, size=2000), UPSTREAM) == Verdict(Status.KEEP, None, 0.0001)
    assert verdict(candidate(1.0, size=10), UPSTREAM) == Verdict(Status.DISCARD, None, 0.0)


def test_a_clear_loss_costs_no_rerun_not_even_before_the_noise_is_known() -> None:
    before = Standing(Runs({42: 1.0}, 1000), None)
    assert verdict(candidate(1.0001), standing=before) == Verdict(Status.DISCARD, None, -0.0001)


def test_the_first_claim_asks_for_the_baselines_other_seeds() -> None:
    best: dict[int, float | None] = {42: 1.0}
    for seed in (43, 44):
        noise = measured([Runs(best, 1000)], 0.0001)
        assert wanted(candidate(0.9), standing=Standing(Runs(best, 1000), noise)) == Wanted("best", seed)
        best[seed] = 1.0 + (seed - 43) / 1000
    known = Standing(Runs(best, 1000), measured([Runs(best, 1000)], 0.0001))
    assert verdict(candidate(0.9, 0.9), standing=known).status is Status.KEEP


def test_a_baseline_that_cannot_be_repeated_keeps_nothing() -> None:
    failed = Runs({42: 1.0, 43: None, 44: None, 45: None, 46: None}, 1000)
    found = verdict(candidate(0.5), standing=Standing(failed, measured([failed], 0.0001)))
    assert (found.status, found.reason) == (Status.DISCARD, "not_confirmed")


def test_a_clear_win_is_kept_after_one_pair_that_agrees() -> None:
    assert wanted(candidate(0.9)) == Wanted("candidate", 43)
    found = verdict(candidate(0.9, 0.95))
    assert (found.status, found.reason, found.claimed, found.confirmed, found.pairs) == (
        Status.KEEP,
        None,
        0.1,
        0.06,
        1,
    )
    assert found.interval is not None
    assert found.interval[0] < 0.06 < found.interval[1]


def test_a_clear_win_that_the_first_pair_denies_is_none() -> None:
    """A file that knows which run it is: it trains in its own, and not in any other."""
    assert verdict(candidate(0.9, 1.4)).reason == "not_confirmed"


def test_a_best_that_gives_no_score_any_more_can_still_be_beaten() -> None:
    stuck = Standing(Runs({42: 0.97, 43: None, 44: None, 45: None, 46: None, 47: None}, 1000), NOISE, 0.0, since=43)
    assert verdict(candidate(0.9), standing=stuck).status is Status.KEEP
    assert verdict(candidate(0.96), standing=stuck).status is Status.DISCARD


def test_a_candidate_whose_own_scores_are_wild_is_weighed_by_them() -> None:
    calm = verdict(candidate(0.985, 0.99, 0.97, 0.98))
    assert calm.status is Status.KEEP
    wild = verdict(candidate(0.985, 0.99, 0.93, 1.03))
    assert wild.reason == "not_confirmed"
    assert wild.interval is not None
    assert calm.interval is not None
    assert wild.interval[1] - wild.interval[0] > 2 * (calm.interval[1] - calm.interval[0])


def test_files_that_ignore_their_seed_do_not_hide_the_noise_of_others() -> None:
    deaf = Runs({42: 1.0, 43: 1.0, 44: 1.0}, 1000)
    noise = measured([Runs({42: 1.0, 43: 1.01, 44: 0.99}, 1000), deaf], 0.0005)
    assert noise is not None
    assert (round(noise.sigma, 6), noise.freedom) == (0.01, 2)
    assert measured([deaf], 0.0005) == Noise(0.0005, 2)


def test_a_gain_too_small_to_bother_is_discarded_without_a_rerun() -> None:
    assert verdict(candidate(0.996)).status is Status.DISCARD  # 0.4 sigma
    assert wanted(candidate(0.994)) == Wanted("candidate", 43)  # 0.6 sigma


def test_near_the_threshold_fresh_seeds_decide() -> None:
    assert wanted(candidate(0.985, 1.0)) == Wanted("candidate", 44)
    won = verdict(candidate(0.985, 0.99, 0.975, 0.98))
    assert (won.status, won.confirmed, won.pairs) == (Status.KEEP, 0.018333, 3)
    lost = verdict(candidate(0.985, 1.009, 0.989, 0.999))
    assert (lost.status, lost.reason, lost.confirmed) == (Status.DISCARD, "not_confirmed", 0.001)


def test_a_lucky_first_run_does_not_count_towards_the_confirmed_gain() -> None:
    assert verdict(candidate(0.985, 1.02)).confirmed == -0.01
    assert verdict(candidate(0.985, 1.02)).reason == "not_confirmed"


def test_a_best_without_a_score_on_a_seed_is_rerun_on_another() -> None:
    best = Runs({42: 1.0, 43: None, 44: 1.0}, 1000)
    assert wanted(candidate(0.985), standing=Standing(best, NOISE)) == Wanted("candidate", 44)


def test_a_best_that_was_chosen_for_a_low_score_is_measured_on_fresh_seeds() -> None:
    lucky = Standing(Runs({42: 0.97, 43: 0.97}, 1000), NOISE, 0.0, since=44)
    assert wanted(candidate(0.99), standing=lucky) == Wanted("best", 44)
    honest = Standing(Runs({42: 0.97, 43: 0.97, 44: 1.0}, 1000), NOISE, 0.0, since=44)
    assert wanted(candidate(0.985), standing=honest) == Wanted("candidate", 44)
    assert verdict(candidate(0.999), standing=honest).status is Status.DISCARD


def test_a_clear_loss_does_not_ask_for_them() -> None:
    lucky = Standing(Runs({42: 0.97}, 1000), NOISE, 0.0, since=43)
    assert verdict(candidate(1.001), standing=lucky) == Verdict(Status.DISCARD, None, -0.031)
    assert wanted(candidate(0.999), standing=lucky) == Wanted("best", 43)


def test_a_candidate_that_fails_on_another_seed_is_not_kept() -> None:
    assert verdict(candidate(0.985, None)).reason == "not_confirmed"


def test_equal_and_smaller_is_kept_but_not_worse_and_not_by_a_byte() -> None:
    equal = (1.001, 1.011, 0.991, 1.001)
    found = verdict(candidate(*equal, size=900))
    assert (found.status, found.reason) == (Status.KEEP, "simpler")
    assert verdict(candidate(*equal, size=990)).status is Status.DISCARD
    assert verdict(candidate(1.006, size=900)).status is Status.DISCARD


def test_much_more_memory_needs_a_real_gain() -> None:
    heavy = verdict(candidate(0.96, 0.97, memory=201.0))
    assert (heavy.status, heavy.reason) == (Status.DISCARD, "memory")
    assert verdict(candidate(0.96, 0.97, memory=199.0)).status is Status.KEEP
    assert verdict(candidate(0.94, 0.95, memory=201.0)).status is Status.KEEP
    unknown = Standing(BEST, NOISE, 0.0)
    assert verdict(candidate(0.96, 0.97, memory=201.0), standing=unknown).status is Status.KEEP


def test_a_hard_coded_lucky_seed_is_one_score_however_often_it_runs() -> None:
    lucky = (0.986, 0.986, 0.986, 0.986)
    assert verdict(candidate(*lucky)).reason == "not_confirmed"
    honest = (0.986, 0.986 + 0.009, 0.986 - 0.009, 0.985)
    assert verdict(candidate(*honest)).status is Status.KEEP  # the same mean, from scores that move


def test_the_first_run_of_a_candidate_is_no_part_of_the_noise() -> None:
    wild = Runs({42: 0.5, 43: 1.0, 44: 1.01}, 1000)
    noise = measured([Runs({42: 1.0, 43: 1.01}, 1000), wild], 1e-9)
    assert noise is not None
    assert noise.sigma == pytest.approx(0.01 / 2**0.5)
    assert noise.freedom == 2


def test_a_minimum_gain_holds_however_sure() -> None:
    strict = RULES.model_copy(update={"minimum_gain_bpb": 0.2})
    assert judge(strict, STANDING, candidate(0.9)) == Wanted("candidate", 43)
    assert verdict(candidate(0.9, 0.9, 0.89, 0.88), strict).status is Status.DISCARD


@given(st.lists(st.floats(0.5, 1.5), min_size=4, max_size=9), st.floats(0.5, 1.5), st.integers(1, 10**5))
def test_what_is_kept_was_better_or_simpler(scores: list[float], best: float, size: int) -> None:
    standing = Standing(Runs(dict.fromkeys(range(42, 51), best), 1000), NOISE)
    found = judge(RULES, standing, candidate(*scores, size=size))
    if isinstance(found, Verdict) and found.status is Status.KEEP and found.reason != "simpler":
        assert (found.claimed if found.confirmed is None else found.confirmed) > 0  # type: ignore[operator]


@given(st.lists(st.floats(0.9, 1.1), min_size=1, max_size=1), st.integers(1, 2000))
def test_every_question_ends_after_at_most_the_runs_policy_allows(first: list[float], size: int) -> None:
    best: dict[int, float | None] = {42: 1.0}
    ours: dict[int, float | None] = {42: first[0]}
    for asked in itertools.count():  # noqa: B007 - counted to see where it ended
        known = [Runs(best, 1000), Runs(ours, size)]
        found = judge(RULES, Standing(known[0], measured(known, 0.001)), known[1])
        if isinstance(found, Verdict):
            break
        (best if found.whose == "best" else ours)[found.seed] = 1.0 + (found.seed % 3) / 100
    assert asked <= RULES.confirm_runs * 2


RAISED, WARNED = Crash(error="ValueError", line=3), Crash(error="UserWarning", line=0)


@pytest.mark.parametrize(
    ("changes", "status", "reason"),
    [
        ({"engine": engine(reason=EndReason.WALL, exit_code=137)}, Status.TIMEOUT, "time_budget"),
        ({"engine": engine(reason=EndReason.OUTPUT, exit_code=137)}, Status.CRASH, "output"),
        ({"engine": engine(reason=EndReason.OOM, exit_code=137)}, Status.CRASH, "oom"),
        ({"handed_over": False, "engine": engine(exit_code=1), "crash": RAISED}, Status.CRASH, "exception"),
        ({"handed_over": False, "engine": engine(exit_code=1)}, Status.CRASH, "exit_code"),
        ({"handed_over": False, "engine": engine(exit_code=1), "crash": WARNED}, Status.CRASH, "exit_code"),
        ({"handed_over": False, "engine": engine(exit_code=139)}, Status.CRASH, "signal"),
        ({"handed_over": False, "engine": engine(exit_code=139), "crash": WARNED}, Status.CRASH, "signal"),
        ({"handed_over": False, "engine": engine(exit_code=200)}, Status.CRASH, "exit_code"),
        (
            {
                "handed_over": False,
                "diverged": True,
                "ended_early": True,
                "engine": engine(reason=EndReason.CANCELLED, exit_code=137),
            },
            Status.CRASH,
            "diverged",
        ),
        (
            {"handed_over": False, "diverged": True, "engine": engine(reason=EndReason.CANCELLED, exit_code=137)},
            Status.CRASH,
            "cancelled",
        ),
        ({"handed_over": False}, Status.CRASH, "no_hand_over"),
        ({"handed_over": False, "not_exportable": "custom_op"}, Status.NOT_EXPORTABLE, "custom_op"),
        ({"handed_over": False, "diverged": True, "engine": engine(exit_code=1)}, Status.CRASH, "diverged"),
        ({"handed_over": False, "diverged": True}, Status.CRASH, "diverged"),
        # What the engine saw, and what stopped the hand-over, comes before what was reported.
        ({"diverged": True, "engine": engine(reason=EndReason.WALL, exit_code=137)}, Status.TIMEOUT, "time_budget"),
        ({"diverged": True, "engine": engine(reason=EndReason.OOM, exit_code=137)}, Status.CRASH, "oom"),
        (
            {"handed_over": False, "diverged": True, "not_exportable": "mutation"},
            Status.NOT_EXPORTABLE,
            "mutation",
        ),
    ],
)
def test_failures_are_named_whatever_the_score_says(changes: dict[str, Any], status: Status, reason: str) -> None:
    verdict = failure(scored(0.1, **changes))
    assert verdict is not None
    assert (verdict.status, verdict.reason) == (status, reason)


def test_refusals_of_the_evaluator_and_a_score() -> None:
    assert failure(scored(refused="non_causal")) == Verdict(Status.NON_CAUSAL, "non_causal")
    assert failure(scored(refused="op_not_allowed")) == Verdict(Status.REJECTED, "op_not_allowed")
    assert failure(scored(None)) == Verdict(Status.REJECTED, "evaluation_failed")
    assert failure(scored(1.0)) is None


def test_a_run_that_diverged_and_handed_over_all_the_same_is_judged_by_its_score() -> None:
    assert failure(scored(1.0, diverged=True)) is None
    assert failure(scored(refused="not_finite", diverged=True)) == Verdict(Status.REJECTED, "not_finite")


def test_shipped_policy_measures_its_noise(policies: Policies) -> None:
    assert policies.decision.rule == "odds"
