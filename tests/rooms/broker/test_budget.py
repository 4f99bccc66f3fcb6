"""No sequence of calls, retries and crashes spends more than the policy says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.core.evidence.spending import NANO, spent
from runner.core.policy.broker import Broker, LongRates, Price
from runner.core.policy.policy_files import Policies
from runner.rooms.broker.budget import BudgetExhausted, Meter, Usage

MODEL = "claude-haiku-4-5"  # $1 and $5 per million: 1250 nano-dollars to write a token to the cache, 5000 to say one


def limited(policies: Policies, **night: Any) -> Broker:
    wide = policies.broker.night.model_copy(update={"dollars": 1e5, "tokens": 10**10, "requests": 10**6})
    return policies.broker.model_copy(update={"night": wide.model_copy(update=night), "experiment": wide})


def test_the_worst_case_is_held_and_the_usage_settled(tmp_path: Path, policies: Policies) -> None:
    meter = Meter(tmp_path / "s", "t", limited(policies, dollars=1.0))
    call = meter.reserve(MODEL, 10_000, 2_000)
    assert meter.left()["night"]["dollars"] == pytest.approx(1 - (10_000 * 1250 + 2_000 * 5000) / NANO)
    assert meter.settle(call, Usage(input=1000, cache_write=100, cache_read=5000, output=10)) == (
        1000 * 1000 + 100 * 1250 + 5000 * 100 + 10 * 5000
    )
    assert meter.left()["night"]["tokens"] == 10**10 - 6110


def test_a_call_whose_cost_is_unknown_costs_its_worst_case(tmp_path: Path, policies: Policies) -> None:
    meter = Meter(tmp_path / "s", "t", limited(policies))
    assert meter.settle(meter.reserve(MODEL, 100, 100), None) == 100 * 1250 + 100 * 5000


@pytest.mark.parametrize(
    ("ceiling", "value", "fits", "not_"),
    [
        ("dollars", 0.001, (400, 100), (401, 100)),
        ("tokens", 500, (400, 100), (400, 101)),
    ],
)
def test_the_last_call_that_fits_passes_and_the_next_is_refused(
    tmp_path: Path, policies: Policies, ceiling: str, value: float, fits: tuple[int, int], not_: tuple[int, int]
) -> None:
    meter = Meter(tmp_path / "s", "t", limited(policies, **{ceiling: value}))
    with pytest.raises(BudgetExhausted) as caught:
        meter.reserve(MODEL, *not_)
    assert caught.value.reason == f"night_{ceiling}"
    assert "policies/broker.yaml" in str(caught.value)
    meter.reserve(MODEL, *fits)


def test_requests_are_a_ceiling_too(tmp_path: Path, policies: Policies) -> None:
    meter = Meter(tmp_path / "s", "t", limited(policies, requests=2))
    for _ in range(2):
        meter.settle(meter.reserve(MODEL, 1, 1), Usage())
    with pytest.raises(BudgetExhausted, match="requests"):
        meter.reserve(MODEL, 1, 1)


def test_time_counts_from_the_first_call_and_only_while_a_broker_runs(tmp_path: Path, policies: Policies) -> None:
    now = [1000.0]
    policy = limited(policies, seconds=60.0)
    meter = Meter(tmp_path / "s", "t", policy, clock=lambda: now[0])
    now[0] += 1000  # nothing was asked yet
    meter.settle(meter.reserve(MODEL, 1, 1), Usage())
    now[0] += 50
    assert meter.left()["night"]["seconds"] == 10
    now[0] = 5.0  # the host was restarted, and slept
    again = Meter(tmp_path / "s", "t", policy, clock=lambda: now[0])
    now[0] += 3600
    again.settle(again.reserve(MODEL, 1, 1), Usage())
    now[0] += 11
    with pytest.raises(BudgetExhausted, match="seconds"):
        again.reserve(MODEL, 1, 1)


def test_an_experiment_has_a_budget_of_its_own_that_begins_with_its_number(tmp_path: Path, policies: Policies) -> None:
    wide = policies.broker.night.model_copy(update={"dollars": 1e5})
    policy = policies.broker.model_copy(update={"night": wide, "experiment": wide.model_copy(update={"requests": 1})})
    meter = Meter(tmp_path / "s", "t", policy)
    meter.begin(1)
    meter.reserve(MODEL, 1, 1)
    with pytest.raises(BudgetExhausted, match="experiment"):
        meter.reserve(MODEL, 1, 1)
    meter.begin(1)  # told twice: the same experiment
    with pytest.raises(BudgetExhausted):
        meter.reserve(MODEL, 1, 1)
    meter.begin(2)
    meter.reserve(MODEL, 1, 1)


def test_a_broker_that_was_killed_has_spent_what_it_had_reserved(tmp_path: Path, policies: Policies) -> None:
    policy = limited(policies, tokens=500)
    first = Meter(tmp_path / "s", "t", policy)
    first.begin(7)
    first.reserve(MODEL, 300, 100)  # and is killed here
    second = Meter(tmp_path / "s", "t", policy)
    assert second.left()["night"]["tokens"] == 100
    with pytest.raises(BudgetExhausted):
        second.reserve(MODEL, 100, 100)
    assert Meter(tmp_path / "s", "other", policy).left()["night"]["tokens"] == 500
    assert spent(tmp_path / "s", "t") == {"dollars": (300 * 1250 + 100 * 5000) / NANO, "tokens": 400, "requests": 1}
    assert spent(tmp_path / "s", "other") is None


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 2000), st.integers(1, 500), st.sampled_from(["used", "unknown", "refused", "killed"])),
        max_size=25,
    )
)
def test_whatever_happens_the_bill_never_exceeds_the_budget(
    tmp_path_factory: pytest.TempPathFactory, policies: Policies, calls: list[tuple[int, int, str]]
) -> None:
    budget = 0.01
    path = tmp_path_factory.mktemp("m") / "s"
    meter = Meter(path, "t", limited(policies, dollars=budget))
    billed = 0
    for given_tokens, most, end in calls:
        try:
            call = meter.reserve(MODEL, given_tokens, most)
        except BudgetExhausted:
            continue
        usage = Usage(cache_write=given_tokens, output=most)
        if end != "refused":
            billed += usage.nano(policies.broker.models[MODEL])
        if end == "killed":
            meter.close()
            meter = Meter(path, "t", limited(policies, dollars=budget))
        else:
            meter.settle(call, {"used": usage, "unknown": None, "refused": Usage()}[end])
    assert billed <= budget * NANO


def test_a_long_prompt_has_rates_of_its_own_and_is_held_at_the_dearer(tmp_path: Path, policies: Policies) -> None:
    """claude-haiku-5-5: 100,000 tokens at one price a token, 100,001 at five times that, all of them."""
    model, meter = "claude-haiku-5-5", Meter(tmp_path / "s", "t", limited(policies))
    short, long = Usage(input=1000, cache_read=99_000, output=10), Usage(input=1000, cache_read=99_001, output=10)
    assert meter.settle(meter.reserve(model, 100_000, 10), short) == 1000 * 100 + 99_000 * 10 + 10 * 500
    assert meter.settle(meter.reserve(model, 100_001, 10), long) == 1000 * 500 + 99_001 * 50 + 10 * 2500
    assert meter.settle(meter.reserve(model, 100_000, 10), None) == 100_000 * 125 + 10 * 500
    assert meter.settle(meter.reserve(model, 100_001, 10), None) == 100_001 * 625 + 10 * 2500


def test_rates_that_fall_with_length_are_held_at_the_dearer_too(tmp_path: Path, policies: Policies) -> None:
    """A prompt may turn out shorter than its bytes."""
    above = LongRates(tokens=100, input=0.5, output=1.0)
    price = Price(input=1.0, output=5.0, above=above, max_tokens=1000)
    policy = limited(policies).model_copy(update={"models": {"m": price}})
    meter = Meter(tmp_path / "s", "t", policy)
    held = meter.settle(meter.reserve("m", 200, 10), None)
    assert held == 200 * 1000 + 10 * 5000
    for usage in (Usage(input=100, output=10), Usage(cache_write=200, output=10)):
        assert usage.nano(price) <= held


def test_a_model_of_ones_own_costs_nothing_and_its_cache_what_its_input_does(
    tmp_path: Path, policies: Policies
) -> None:
    free = Price(input=0.0, output=0.0, max_tokens=1000)
    plain = Price(input=2.0, output=4.0, max_tokens=1000)
    assert Usage(input=10, cache_write=10, cache_read=10, output=10).nano(free) == 0
    assert Usage(cache_write=10, cache_read=10).nano(plain) == 20 * 2000
    policy = limited(policies, dollars=0.0001, requests=3).model_copy(update={"models": {"org/Model:8b_q4": free}})
    meter = Meter(tmp_path / "s", "t", policy)
    for _ in range(3):
        meter.settle(meter.reserve("org/Model:8b_q4", 10**6, 1000), None)
    with pytest.raises(BudgetExhausted, match="requests"):  # what is left of the ceilings holds
        meter.reserve("org/Model:8b_q4", 1, 1)


def test_a_cache_that_is_dearer_than_its_input_is_held_too(tmp_path: Path, policies: Policies) -> None:
    price = Price(input=1.0, output=1.0, cache_write=0.5, cache_read=50.0, max_tokens=1000)
    policy = limited(policies).model_copy(update={"models": {"m": price}})
    meter = Meter(tmp_path / "s", "t", policy)
    held = meter.settle(meter.reserve("m", 1000, 0), None)
    assert Usage(cache_read=1000).nano(price) <= held


def test_a_part_of_a_nano_dollar_is_one() -> None:
    price = Price(input=0.0004, output=0.1, max_tokens=10)
    assert (Usage(input=10).nano(price), Usage(output=10).nano(price)) == (10, 1000)


def test_what_is_unknown_costs_no_more_than_was_held(tmp_path: Path, policies: Policies) -> None:
    meter = Meter(tmp_path / "s", "t", limited(policies))
    call = meter.reserve(MODEL, 100, 100)
    assert meter.settle(call, None, Usage(cache_write=100, output=20)) == 100 * 1250 + 20 * 5000
    call = meter.reserve(MODEL, 100, 100)
    assert meter.settle(call, None, Usage(cache_write=10_000, output=10_000)) == 100 * 1250 + 100 * 5000
