"""Wherever scores of both are shown, those of the holdout say so: one beside the other means nothing."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from runner.core.base.home import Home
from runner.core.findings import transfers
from runner.core.policy.policy_files import Policies
from runner.people.pages import console, report, session_report, views, watch
from runner.rooms.desk import requested_reruns
from runner.rooms.desk.settings import Order
from tests.rooms.desk.test_requested_reruns import A, B, bench, loop, scores  # noqa: F401 - bench is a fixture
from tests.rooms.desk.test_reruns import Bench

HELD = "held back"


@pytest.fixture
def both(bench: Bench) -> Bench:  # noqa: F811 - the fixture
    """A step measured on the validation set, and the whole gain on the holdout."""
    for text in (A, B):
        scores(bench, text, s1000=2.0 if text == A else 1.6, s1001=2.02 if text == A else 1.58)
    requested_reruns.carry_out(loop(bench), Order(experiments=(2,), seeds=2))
    requested_reruns.carry_out(loop(bench), Order())
    return bench


def found(both: Bench) -> list[transfers.Transfer]:
    return transfers.transfers(both.ledger.experiments("t"), both.ledger.reruns("t"), 0.05)


def test_in_what_confirm_prints(both: Bench) -> None:
    out = Console(file=io.StringIO(), width=140)
    console.transfers([one.model_dump(mode="json") for one in found(both)], out)
    assert isinstance(out.file, io.StringIO)
    lines = [line for line in out.file.getvalue().splitlines() if "demo-1" in line]
    assert sorted(HELD in line for line in lines) == [False, True]


def test_in_the_session_report(both: Bench) -> None:
    lines = [line for line in "\n".join(session_report._transfers(found(both))).splitlines() if "demo-1" in line]
    assert sorted(HELD in line for line in lines) == [False, True]


def test_in_show_and_watch_and_while_it_runs(both: Bench) -> None:
    for rerun in both.ledger.reruns("t"):
        if not rerun.during:
            assert (HELD in views._rerun(rerun)) is rerun.holdout
            assert (HELD in watch._rerun(rerun, 1, "", []).rerun) is rerun.holdout
            event = rerun.model_dump(mode="json")
            assert (HELD in console.rerun(event)) is rerun.holdout
    assert {rerun.holdout for rerun in both.ledger.reruns("t")} == {True, False}


def test_on_the_page(both: Bench, policies: Policies, home: Home, tmp_path: Path) -> None:
    text = report.write(home, both.ledger, policies, "t").read_text()
    assert "demo-1, held back" in text
    assert "on text that was held back" in text
