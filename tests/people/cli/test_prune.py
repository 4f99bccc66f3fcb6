"""`glovebox prune`: what it prints, and what `--prune` asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from runner.core.findings.pruning import Pruned
from runner.people.pages import console

FOUND: dict[str, Any] = {
    "before": 9, "after": 12, "bytes_before": 10_400, "bytes_after": 10_000, "taken_out": [3, 5], "needed": [7],
    "built_on": [4], "small": [2, 6], "untried": [], "failed": [], "refused": [], "undone": [], "runs": 6,
    "measured": None, "ended": "done",
}  # fmt: skip
MEASURED: dict[str, Any] = {
    "experiment": 12, "against": 9, "budget": 6.0, "depth": None, "artifact": "demo-1", "scores": {1000: 1.0},
    "others": {1000: 1.1}, "failed": 0, "gain": -0.0001, "interval": (-0.0012, 0.0010),
}  # fmt: skip


def test_what_was_pruned_is_told_in_lines() -> None:
    told = console.pruned(Pruned(**FOUND).model_dump(mode="json")).splitlines()
    assert told == [
        "train.py: 10,400 to 10,000 bytes in 6 runs, experiment 12 is the best now",
        "taken out: #3, #5",
        "not as good without: #7",
        "cannot be taken out alone: #4",
        "too small to matter: #2, #6",
    ]
    beside = Pruned(**{**FOUND, "measured": MEASURED}).model_dump(mode="json")
    assert console.pruned(beside).splitlines()[-1] == (
        "beside the best before, in 1 run of the best before and 1 of the smaller file: -0.0001 (-0.0012 to +0.0010); "
        "if it is worse, then by no more than 0.0012"
    )
    assert console.sentence({"event": "pruned", "pruned": beside}) == console.pruned(beside)


def test_what_could_not_be_told_and_why_it_ended_are_lines_too() -> None:
    found = {**FOUND, "needed": [], "failed": [7], "refused": [8], "untried": [1], "ended": "leak"}
    assert console.pruned(Pruned(**found).model_dump(mode="json")).splitlines()[2:] == [
        "no score without: #7",
        "a person took the file without it back: #8",
        "cannot be taken out alone: #4",
        "too small to matter: #2, #6",
        "not tried: #1",
        "the tag's leak budget is used: no more can be tried",
    ]


def test_a_smaller_file_that_went_again_is_told() -> None:
    worse = {**MEASURED, "gain": -0.004, "interval": (-0.006, -0.002)}
    found = {**FOUND, "after": 13, "bytes_after": 10_400, "taken_out": [], "undone": [3, 5], "measured": worse}
    assert console.pruned(Pruned(**found).model_dump(mode="json")).splitlines()[-2:] == [
        "beside the best before, in 1 run of the best before and 1 of the smaller file: -0.0040 (-0.0060 to -0.0020)",
        "that is worse: the file of experiment 9 is the best again",
    ]


def test_nothing_doubtful_is_told_in_one() -> None:
    found = {**FOUND, "after": 9, "bytes_after": 10_400, "taken_out": [], "needed": [], "built_on": [], "small": []}
    assert console.pruned(Pruned(**found).model_dump(mode="json")) == (
        "no keep is doubtful: there is nothing to take out"
    )


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("prune",), "no experiment has been run yet"),
        (("prune", "--below", "2"), "less than or equal to 1"),
        (("run", "--tag", "t", "--prune", "3"), "--prune needs --experiments"),
        (("up", "--tag", "t", "--prune", "3"), "--prune needs --experiments"),
        (("run", "--tag", "t", "--experiments", "3", "--prune", "5000"), "1000"),
    ],
)
def test_what_cannot_be_pruned_is_one_line(
    glovebox: Callable[..., tuple[int, str, str]], args: tuple[str, ...], told: str
) -> None:
    code, _, err = glovebox(*args)
    assert code == 2
    assert told in err
