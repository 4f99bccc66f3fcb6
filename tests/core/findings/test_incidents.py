"""What a reviewer is told of a night: pairs whose sides did not run under the same conditions are named."""

from __future__ import annotations

import pytest

from runner.core.base.values import Rerun
from runner.core.findings import incidents


def rerun(experiment: int, neighbours: float, pair: int = 1, seed: int = 43, lane: str = "") -> Rerun:
    return Rerun(id=1, tag="t", experiment=experiment, during=2, seed=seed, given=7, budget=1.0, artifact="demo-1",
                 snapshot="0" * 64, run="0" * 16, started="2026-01-01T00:00:00+00:00", status="scored",
                 neighbours=neighbours, pair=pair, lane=lane)  # fmt: skip


@pytest.mark.parametrize(
    ("reruns", "uneven"),
    [
        ([rerun(1, 0.1), rerun(2, 0.7)], 1),
        ([rerun(1, 0.7), rerun(2, 0.1)], 1),
        ([rerun(1, 0.1), rerun(2, 0.5)], 0),
        ([rerun(1, 0.1, seed=44), rerun(2, 0.9)], 0),  # no pair
        ([rerun(1, 0.1, lane="0"), rerun(2, 0.9, lane="1")], 0),
        ([rerun(1, 0.1, pair=0), rerun(2, 0.9, pair=0)], 0),  # asked for by a person
        ([rerun(1, 0.0), rerun(2, 0.9), rerun(3, 0.9), rerun(4, 0.1)], 2),
    ],
)
def test_a_pair_beside_unlike_neighbours_is_marked(reruns: list[Rerun], uneven: int) -> None:
    assert incidents.uneven_pairs(reruns, 0.5) == uneven
    (told,) = incidents.found([], incidents.Refusals("t"), reruns, 0.5) or [None]
    assert (told.times if told else 0) == uneven
