"""`glovebox status`: what it says of a tag, and of each experiment, for people and for scripts."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from runner.core.base.home import Home
from runner.core.base.launching import Speed
from runner.core.base.values import Experiment, Status
from runner.core.evidence.ledger import Ledger
from tests.samples import experiment

Glovebox = Callable[..., tuple[int, str, str]]
GPU = "GPU-" + "0" * 8 + "-1111-2222-3333-" + "4" * 12


def recorded(home: Home, *rows: Experiment) -> None:
    ledger = Ledger(home.ledger)
    ledger.begin_run("t", "2026-01-01T00:00:00+00:00", "demo-1", "f" * 64)
    for row in rows:
        ledger.open_experiment("t", started="", description="", snapshot=row.snapshot, size=1, run=row.run)
        ledger.close_experiment(row)
    ledger.close()


def told(glovebox: Glovebox) -> dict[str, Any]:
    code, out, err = glovebox("status", "--json")
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def test_scripts_find_what_they_rely_on(glovebox: Glovebox, home: Home) -> None:
    recorded(
        home,
        experiment(1, val_bpb=1.0),
        experiment(2, val_bpb=0.9, parent=1, gain=0.08, probability=0.97, sigma=0.01, total=0.07, attention=["flash"]),
        experiment(3, val_bpb=None, status=Status.CRASH, reason="exception"),
    )
    document = told(glovebox)
    assert (document["baseline"], document["best"], document["expected"]) == (1.0, 0.9, 0.07)
    for row in document["experiments"]:
        wanted = {
            "id", "status", "val_bpb", "claimed", "confirmed", "causality", "description", "seconds", "parent",
            "expected", "probability", "program", "attention", "device",
        }  # fmt: skip
        assert wanted <= set(row)
    assert [row["expected"] for row in document["experiments"]] == [None, 0.08, None]


@pytest.mark.parametrize(
    ("changes", "device"),
    [
        ({"train_seconds": 6.0}, "cpu"),
        ({"train_seconds": 6.0, "lane": "0-3"}, "cpu"),
        ({"train_seconds": 0.0}, None),  # refused before anything ran
        ({"train_seconds": 6.0, "lane": f"{GPU}/0-3"}, GPU),
        ({"train_seconds": 6.0, "speed": Speed(name="NVIDIA H100", driver="580.1")}, "NVIDIA H100"),
    ],
)
def test_an_experiment_says_what_it_trained_on(
    glovebox: Glovebox, home: Home, changes: dict[str, Any], device: str | None
) -> None:
    recorded(home, experiment(1, **changes))
    assert told(glovebox)["experiments"][0]["device"] == device


def test_people_see_a_table(glovebox: Glovebox, home: Home) -> None:
    recorded(home, experiment(1, val_bpb=1.0), experiment(2, val_bpb=0.9))
    code, out, _ = glovebox("status")
    assert code == 0
    assert "t: 2 experiments" in out
    assert "val_bpb 1.0000 -> 0.9000" in out
    assert f"report: {home.tag('t') / 'report.html'}" in out.replace("\n", "")
