"""--gpu and --cores: what belongs together, and what two lanes may not share."""

from __future__ import annotations

import os

import pytest
import typer

from runner.core.base.launching import WHOLE_HOST, Lane, named_processors
from runner.people.cli.lanes import lanes_of

A, B = (f"GPU-{digit * 8}-0000-0000-0000-000000000000" for digit in "ab")


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


def test_without_options_there_is_one_lane_the_whole_host() -> None:
    assert lanes_of(None, None) == (WHOLE_HOST,)
    assert lanes_of([], []) == (WHOLE_HOST,)
    assert WHOLE_HOST.name == ""


def test_gpus_and_core_sets_become_lanes_in_their_order() -> None:
    assert lanes_of([A, B], None) == (Lane(number=0, gpu=A, of=2), Lane(number=1, gpu=B, of=2))
    assert lanes_of(None, ["0-3", "4,6-7"]) == (Lane(cores="0-3", of=2), Lane(number=1, cores="4,6-7", of=2))
    assert lanes_of(None, ["2,0,1,3"])[0].name == "0-3"  # one name for one set: scores are compared within it
    both = lanes_of([A, B], ["0-3", "4-7"])
    assert [lane.name for lane in both] == [f"{A}/0-3", f"{B}/4-7"]


@pytest.mark.parametrize(
    ("gpus", "cores", "told"),
    [
        ([A, A], None, "twice"),
        (None, ["0-3", "3-5"], "twice"),
        (None, ["0-8"], "this host has 0 to 7"),
        (None, ["3-0"], "this host has 0 to 7"),
        ([A, B], ["0-3"], "as many --cores as --gpu"),
        (["GPU-1"], None, "nvidia-smi"),
        (None, ["0-3; rm -rf /"], "--cores like"),
        (None, [""], "--cores like"),
        (None, [str(n) for n in range(17)], "at most 16"),
    ],
)
def test_what_is_malformed_or_shared_is_refused(gpus: list[str] | None, cores: list[str] | None, told: str) -> None:
    with pytest.raises(typer.BadParameter, match=told):
        lanes_of(gpus, cores)


def test_processors_of_a_list() -> None:
    assert named_processors("0-2,5") == {0, 1, 2, 5}
    assert named_processors("3-1") == set()
