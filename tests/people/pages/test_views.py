"""`history` and `show`: one tag, one experiment, for people and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.core.base.home import Home
from runner.core.base.values import INTERRUPTED, Crash, Status
from runner.core.decision import standing
from runner.core.policy.policy_files import Policies
from runner.people.pages import console, session_report, views
from tests.core.evidence.test_checkpoints import bench as bench  # noqa: PLC0414 - a fixture
from tests.core.evidence.test_checkpoints import witness as witness  # noqa: PLC0414 - a fixture
from tests.samples import experiment

Glovebox = Callable[..., tuple[int, str, str]]


def test_an_experiment_is_compared_with_the_keep_before_it() -> None:
    rows = [experiment(1), experiment(2, status=Status.DISCARD), experiment(3), experiment(4, status=Status.CRASH)]
    assert [found.id if (found := standing.parent(rows, row)) else None for row in rows] == [None, 1, 1, 3]


def test_an_interrupted_run_is_no_crash_of_its_train_py(policies: Policies) -> None:
    """It was counted, coloured and listed among what failed."""
    crash = {"status": Status.CRASH, "val_bpb": None}
    rows = [experiment(1), experiment(2, **crash, reason=INTERRUPTED), experiment(3, **crash, reason="exception")]
    assert [row.outcome for row in rows] == ["keep", "interrupted", "crash"]
    counts = views.history(rows, policies)["outcomes"]
    assert {name: count for name, count in counts.items() if count} == {"keep": 1, "interrupted": 1, "crash": 1}
    lines = [console.outcome(row.model_dump(mode="json")) for row in rows]
    assert "experiment 2: interrupted, no score" in lines[1]
    assert "experiment 3: crash (exception), no score" in lines[2]
    assert session_report._dead(rows)[1] == "- crash (exception): `idea 3`"


def test_history_shows_only_those_that_ended_as_asked(glovebox: Glovebox, bench: Home) -> None:
    assert len(json.loads(glovebox("history", "--status", "keep", "--json")[1])["experiments"]) == 3
    assert json.loads(glovebox("history", "--status", "interrupted", "--json")[1])["experiments"] == []
    code, _, err = glovebox("history", "--status", "bad")
    assert code == 2
    assert "one of: keep, discard" in " ".join(err.split())


def test_details_name_the_crash_in_our_words() -> None:
    row = experiment(2, status=Status.CRASH, val_bpb=None, crash=Crash(error="ValueError", line=7, message="x of 3"))
    text = dict(views.details(row, experiment(1)))
    assert text["crash"] == "ValueError in line 7: x of 3"
    assert text["compared with"] == "experiment 1"
    assert "val_bpb" not in text


@given(st.dictionaries(st.integers(0, 10**7), st.floats(0, 100), max_size=24), st.integers(1, 200), st.booleans())
def test_a_chart_of_any_curve_fits_its_width(curve: dict[int, float], width: int, unicode: bool) -> None:
    lines = views.chart(sorted(curve.items()), width, unicode=unicode)
    assert bool(lines) is bool(curve)
    if lines:
        assert 1 <= len(lines[1]) <= width
        assert unicode or lines[1].isascii()


def test_a_falling_curve_falls_on_the_chart() -> None:
    _, bars = views.chart([(0, 8.0), (10, 4.0), (20, 1.0)], 9, unicode=True)
    assert bars == "".join(sorted(bars, reverse=True))
    assert (bars[0], bars[-1]) == ("█", "▁")


def test_a_plateau_and_the_leak_are_counted(policies: Policies) -> None:
    rows = [experiment(1), experiment(2, status=Status.DISCARD), experiment(3, status=Status.DISCARD)]
    glance = views.history(rows, policies)
    assert glance["since_keep"] == 2
    assert glance["outcomes"]["discard"] == 2
    assert 0 < glance["leak_bits"] < glance["leak_limit"]
    assert views.history([], policies)["since_keep"] == 0


def run(glovebox: Glovebox, *args: str) -> Any:
    code, out, err = glovebox(*args, "--json")
    assert code == 0, err
    return json.loads(out)


def test_show_and_history_of_a_bench(glovebox: Glovebox, bench: Home) -> None:
    shown = run(glovebox, "show", "2")
    assert (shown["experiment"]["id"], shown["compared_with"]) == (2, 1)
    assert "+x = 2" in shown["diff"]
    assert shown["receipt"]["snapshot"] == shown["experiment"]["snapshot"]
    assert [row["id"] for row in run(glovebox, "history", "--last", "2")["experiments"]] == [2, 3]
    assert run(glovebox, "history", "--status", "crash")["experiments"] == []
    for args in (("show", "3"), ("history",)):
        code, out, err = glovebox(*args)
        assert code == 0, err
        assert "\x1b" not in out  # no colours where nobody looks
    assert "in the audit chain" in glovebox("show", "1")[1]


@pytest.mark.parametrize("number", ["9", "0", "-1"])
def test_an_experiment_that_does_not_exist_is_one_line(glovebox: Glovebox, bench: Home, number: str) -> None:
    code, _, err = glovebox("show", "--", number)
    assert code == 2
    assert "experiments: 1 to 3" in err.strip().splitlines()[-1]
