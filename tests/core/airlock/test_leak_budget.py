"""The leak budget: bits are counted right, a real covert channel stays below them, and the budget ends it."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.core.airlock import leak_budget, telemetry_file
from runner.core.airlock.telemetry_file import NOT_EXPORTABLE
from runner.core.base.errors import PolicyError
from runner.core.base.launching import MAX_LANES, EndReason
from runner.core.base.values import Crash, Experiment, Telemetry
from runner.core.decision import decide
from runner.core.policy import policy_files
from runner.core.policy.policy_files import Policies
from tests import covert
from tests.conftest import POLICIES
from tests.samples import experiment
from trainer.wire.refusal import Reason


def test_a_covert_channel_gets_its_secret_across_and_no_more_than_was_counted(policies: Policies) -> None:
    """The pair works, so what it carries is really open; and it uses most of what we count."""
    carried, counted = covert.capacity(policies), leak_budget.most(policies)
    secret = random.Random(7).getrandbits(int(carried))
    seen = telemetry_file.filter_lines(covert.encode(policies, secret), policies.metrics, policies.errors)
    assert seen.telemetry.dropped_lines == 0
    assert covert.decode(policies, seen) == secret
    cost = leak_budget.cost(policies, seen.telemetry, seen.crash)
    assert carried <= cost <= counted
    assert carried > 0.8 * counted
    assert covert.rising(seen.telemetry.curve)


def row(policies: Policies, number: int, secret: int) -> Experiment:
    seen = telemetry_file.filter_lines(covert.encode(policies, secret), policies.metrics, policies.errors)
    return experiment(number, curve=seen.telemetry.curve, summary=seen.telemetry.summary, crash=seen.crash)


def tight(policies: Policies, night_bits: int, experiments: int = 0) -> Policies:
    allowed = policies.metrics.leak.model_copy(update={"night_bits": night_bits, "experiments": experiments})
    return policies.model_copy(update={"metrics": policies.metrics.model_copy(update={"leak": allowed})})


def night(policies: Policies, rows: Iterable[Experiment], planned: int | None = None) -> list[Experiment]:
    """The rows as a desk records them, as long as there is room for another."""
    account, done = leak_budget.Account(policies), list[Experiment]()
    for one in rows:
        if account.catch_up(done).exhausted:
            break
        level = account.level(Telemetry(curve=one.curve, summary=one.summary), one.crash, planned)
        done.append(one.model_copy(update={"told": level}))
    return done


def test_a_night_of_covert_messages_ends_at_the_budget(policies: Policies) -> None:
    limited, source = tight(policies, 90_000), random.Random(3)
    secrets = [source.getrandbits(int(covert.capacity(policies))) for _ in range(400)]
    rows = night(limited, (row(policies, n, secret) for n, secret in enumerate(secrets, 1)), planned=40)
    told, got = leak_budget.told(limited, rows), 0.0
    for shown, one, secret in zip(told.rows, rows, secrets, strict=False):
        if one.told == 0:
            seen = telemetry_file.Filtered(Telemetry(curve=shown.curve, summary=shown.summary), shown.crash, None)
            assert covert.decode(policies, seen) == secret
            got += covert.capacity(policies)
        elif one.told == leak_budget.BARE:
            assert (shown.curve, shown.summary, shown.crash) == ([], {}, None)
            assert shown.val_bpb == one.val_bpb
    assert 0 < got <= told.bits <= 90_000
    assert 40 <= len(rows) < 400


@given(
    st.lists(st.tuples(st.integers(0, 24), st.booleans()), max_size=60),
    st.integers(1_000, 60_000),
    st.one_of(st.none(), st.integers(1, 80)),
)
def test_row_by_row_is_the_same_as_read_again_and_never_over_the_budget(
    policies: Policies, shapes: list[tuple[int, bool]], bits: int, planned: int | None
) -> None:
    limited = tight(policies, bits, 20)
    crash = Crash(error="ValueError", line=3, template="matmul")
    rows = night(
        limited,
        [
            experiment(n, curve=[(step, 1.5) for step in range(points)], crash=crash if crashed else None)
            for n, (points, crashed) in enumerate(shapes, 1)
        ],
        planned,
    )
    account = leak_budget.Account(limited)
    for count in range(len(rows) + 1):
        told = account.catch_up(rows[:count])
        again = leak_budget.told(limited, rows[:count])
        assert (list(told.rows), told.bits) == (list(again.rows), again.bits)
        assert told.bits <= bits
        assert len(told.rows) == count


def test_telemetry_lasts_the_night_that_was_planned(policies: Policies) -> None:
    """A night of 600 outcomes leaves few bits for telemetry: all answers have some of it, to the last."""
    rows = [row(policies, n, n) for n in range(1, 601)]
    plain = [one.model_copy(update={"crash": None}) for one in rows]
    planned = [one.told for one in night(policies, plain, planned=600)]
    unplanned = [one.told for one in night(policies, plain)]
    assert len(planned) == len(unplanned) == 600
    some = [
        sum(level != leak_budget.BARE for level in part if level is not None) for part in (planned[:300], planned[300:])
    ]
    assert min(some) > 100
    assert unplanned[0] == 0
    assert unplanned[-1] == leak_budget.BARE
    assert len(set(unplanned)) > 3  # it thins before it stops


def test_a_short_night_is_told_whole(policies: Policies) -> None:
    rows = [row(policies, n, n) for n in range(1, 127)]
    assert {one.told for one in night(policies, rows, planned=126)} == {0}


def test_a_thinned_curve_keeps_its_last_point() -> None:
    curve = [(step, 5.0) for step in range(24)]
    assert [len(leak_budget.thinned(curve, level)) for level in range(leak_budget.NO_CURVE + 1)] == [24, 12, 6, 3, 0]
    assert all(leak_budget.thinned(curve, level)[-1] == curve[-1] for level in range(leak_budget.NO_CURVE))
    assert leak_budget.thinned([], 2) == []


def test_without_the_budget_the_same_night_gets_everything_across(policies: Policies) -> None:
    """The control taken away."""
    wide = tight(policies, 1 << 30)
    rows = [row(policies, n, n) for n in range(1, 101)]
    told = leak_budget.told(wide, rows)
    assert told.rows == rows
    assert not told.exhausted


def test_what_was_told_once_stays_told_and_no_more(policies: Policies) -> None:
    limited = tight(policies, 5_000)
    rows = [row(policies, n, n) for n in range(1, 30)]
    first = leak_budget.told(limited, rows[:10]).rows
    assert leak_budget.told(limited, rows).rows[:10] == first


def test_the_budget_lasts_for_the_experiments_it_was_given_and_thins_before_it_ends(policies: Policies) -> None:
    """Rows of before levels were recorded."""
    full = leak_budget.most(policies)
    bare = leak_budget.told(policies, []).bare
    rows = [row(policies, n, n) for n in range(1, 400)]
    bits = round(20 * full + 100 * bare)
    lasting, short = tight(policies, bits, experiments=100), tight(policies, bits)
    told, without = leak_budget.told(lasting, rows), leak_budget.told(short, rows)
    whole = [bool(one.curve) for one in told.rows]
    assert len(told.rows) >= 100 > len(without.rows)
    assert whole == sorted(whole, reverse=True)  # first whole answers, then outcomes
    assert sum(whole) >= 10
    assert told.bits <= bits
    assert leak_budget.told(lasting, rows[:50]).left >= 50


def test_beyond_the_budget_not_even_an_outcome_is_told(policies: Policies) -> None:
    """Rows may come from elsewhere: a person's own runs under the same tag."""
    told = leak_budget.told(tight(policies, 500), [experiment(n) for n in range(1, 21)])
    assert told.exhausted
    assert told.bits <= 500
    assert 0 < len(told.rows) < 10


FLOATS = st.floats(0, 99, allow_nan=False).map(lambda x: round(x, 3))


@given(
    st.dictionaries(st.integers(0, 10**7), FLOATS, max_size=24),
    st.dictionaries(st.sampled_from(["num_steps", "depth", "peak_vram_mb"]), FLOATS),
    st.sampled_from([None, "matmul", "expand", "division", ""]),
    st.integers(0, 100_000),
)
def test_no_answer_costs_more_than_the_most(
    policies: Policies, curve: dict[int, float], summary: dict[str, float], template: str | None, line: int
) -> None:
    crash = None if template is None else Crash(error="ValueError", line=line, template=template or None)
    cost = leak_budget.cost(policies, Telemetry(curve=sorted(curve.items()), summary=summary), crash)
    assert leak_budget.cost(policies, Telemetry(), None) <= cost <= leak_budget.most(policies) + 1e-6


def test_what_other_lanes_have_begun_can_still_be_told(policies: Policies) -> None:
    """However full answers are, room for a bare outcome of every other lane is left; so no lane hears another's."""
    bare = leak_budget.told(policies, []).bare
    rows = [experiment(number, curve=[(n, 1.0) for n in range(60)]) for number in range(1, 60)]
    limited = tight(policies, round(40 * bare))
    for count in range(1, 20):
        seen = leak_budget.told(limited, rows[:count])
        if seen.bits + MAX_LANES * bare > seen.limit:
            break  # no lane begins another one
        under_way = leak_budget.told(limited, rows[: count + MAX_LANES])  # all that could have begun by then, ended
        assert len(under_way.rows) == count + MAX_LANES
    else:
        raise AssertionError("the budget was never used")


def test_every_reason_code_is_counted() -> None:
    ours = (
        "time_budget", "exception", "no_hand_over", "evaluation_failed", "not_confirmed", "simpler", "memory",
        "early_stop", "diverged", "signal", "exit_code", "interrupted",
    )  # fmt: skip
    codes = {*ours, *map(str, EndReason), *NOT_EXPORTABLE, *map(str, Reason)}
    assert len(codes) <= leak_budget.REASONS
    source = Path(decide.__file__).read_text()
    assert all(code in source for code in ours[:-1])


@pytest.mark.parametrize(("limit", "refused"), [("1660", False), ("1000", True)])
def test_policies_whose_schema_is_wider_than_their_budget_are_refused(
    tmp_path: Path, limit: str, refused: bool
) -> None:
    text = (POLICIES / "metrics.yaml").read_text()
    (tmp_path / "metrics.yaml").write_text(text.replace("experiment_bits: 1660", f"experiment_bits: {limit}"))
    loaded = policy_files.load(tmp_path, POLICIES)
    if refused:
        with pytest.raises(PolicyError, match=r"leak.experiment_bits.*metrics.yaml|metrics.yaml.*leak"):
            leak_budget.check(loaded)
    else:
        leak_budget.check(loaded)


def test_a_budget_that_is_missing_or_zero_is_refused(tmp_path: Path) -> None:
    text = (POLICIES / "metrics.yaml").read_text()
    for bad in (text[: text.index("leak:")], text.replace("night_bits: 262144", "night_bits: 0")):
        (tmp_path / "metrics.yaml").write_text(bad)
        with pytest.raises(PolicyError, match="leak"):
            policy_files.load(tmp_path, POLICIES)


def test_a_finer_schema_costs_more(policies: Policies) -> None:
    before: dict[str, Any] = leak_budget.channels(policies)
    finer = policies.metrics.model_copy(update={"loss": policies.metrics.loss.model_copy(update={"digits": 6})})
    after = leak_budget.channels(policies.model_copy(update={"metrics": finer}))
    assert after["loss curve"] == pytest.approx(before["loss curve"] + 24 * 9.966, rel=1e-3)
