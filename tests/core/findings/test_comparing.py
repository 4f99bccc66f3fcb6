"""What a directive, a model or a rule earned follows from rows, and says how much of it may be luck."""

from __future__ import annotations

import random

import pytest

from runner.core.base.values import Experiment, Status
from runner.core.findings import comparing
from runner.core.findings.comparing import Entry
from tests.samples import experiment

A, B = "a" * 64, "b" * 64


def entry(row: Experiment, earned: float = 0.0, **more: object) -> Entry:
    known: dict[str, object] = {"rule": "odds", "model": None, "dollars": None}
    return Entry(row, earned, **{**known, **more})  # type: ignore[arg-type]


def test_what_an_experiment_earned_is_by_how_much_it_moved_the_tag() -> None:
    rows = [
        experiment(1),
        experiment(2, total=0.1, gain=0.1, probability=0.9),
        experiment(3, status=Status.DISCARD, total=0.09, gain=-0.01, probability=0.1),
        experiment(4, status=Status.CRASH, val_bpb=None),
        experiment(5, total=0.0, veto=2, reason="veto"),
    ]
    assert comparing.earned(rows) == pytest.approx([0.0, 0.1, -0.01, 0.0, -0.09])


def test_under_other_rules_it_is_the_gain_of_a_keep() -> None:
    rows = [
        experiment(1),
        experiment(2, claimed=0.2, confirmed=0.1),
        experiment(3, claimed=0.3),
        experiment(4, status=Status.DISCARD, claimed=-0.5),
    ]
    assert comparing.earned(rows) == pytest.approx([0.0, 0.1, 0.3, 0.0])


@pytest.mark.parametrize(
    ("by", "names"),
    [
        ("program", ["a" * 12, "b" * 12]),
        ("model", ["opus", "no model"]),
        ("rule", ["odds", "paired"]),
        ("tag", ["t", "u"]),
    ],
)
def test_parts_are_told_apart_by_what_was_asked_and_the_baseline_belongs_to_none(by: str, names: list[str]) -> None:
    found = comparing.parts(
        [
            entry(experiment(1, program=A)),
            entry(experiment(2, parent=1, program=A), 0.2, model="opus", dollars=0.5),
            entry(experiment(3, parent=2, program=B, tag="u"), 0.1, rule="paired"),
        ],
        by,  # type: ignore[arg-type]
    )
    assert [part.name for part in found] == names
    assert [part.experiments for part in found] == [1, 1]
    assert found[0].per_hour == pytest.approx(0.2 * 360)  # ten seconds
    assert (found[0].dollars, found[0].per_dollar) == (0.5, pytest.approx(0.4))
    assert (found[1].dollars, found[1].per_dollar, found[1].interval) == (None, None, None)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """Parts of forty experiments, one in eight a gain: the mean of many such parts is the truth."""
    drawn, inside, truth = random.Random(7), 0, 40 * 0.125 * 0.1
    for _ in range(200):
        rows = [experiment(n + 2, parent=1) for n in range(40)]
        some = [entry(row, abs(drawn.gauss(0.1, 0.03)) if drawn.random() < 0.125 else 0.0) for row in rows]
        interval = comparing.parts(some, "tag")[0].interval
        assert interval is not None
        inside += interval[0] <= truth <= interval[1]
    assert 170 <= inside <= 199  # a percentile bootstrap of few keeps is a little too short, and never of no width


def test_the_same_rows_give_the_same_figures() -> None:
    some = [entry(experiment(n, parent=1), n / 100) for n in range(2, 20)]
    assert comparing.parts(some, "tag") == comparing.parts(list(some), "tag")
