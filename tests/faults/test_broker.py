"""A broker killed with money reserved: what it may have spent is spent, and a new one goes on."""

from __future__ import annotations

import contextlib
import signal

import pytest

from runner.core.base import faults
from runner.core.evidence import spending
from tests.rooms.broker.conftest import Start, spawn, stop
from tests.rooms.broker.conftest import start as start  # noqa: PLC0414 - a fixture

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("point", [point for point in faults.POINTS if point.startswith("broker.")])
def test_a_broker_killed_anywhere_has_spent_no_less_than_it_owes(
    start: Start, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    monkeypatch.setenv(faults.VARIABLE, f"{point}:2")
    brokered = start()
    brokered.ask()
    first = spending.spent(brokered.state / "spent.sqlite", "t")
    assert first is not None
    with contextlib.suppress(Exception):
        brokered.ask()
    assert brokered.process.wait(10) == -signal.SIGKILL
    monkeypatch.delenv(faults.VARIABLE)
    again = spawn(brokered.settings)
    try:
        spent = spending.spent(brokered.state / "spent.sqlite", "t")
        assert spent is not None
        assert spent["requests"] == 2
        assert spent["dollars"] > 2 * first["dollars"]  # the second counts at its worst case
        assert spent["dollars"] >= brokered.standin.billed_nano / 1e9
        assert brokered.ask().content
    finally:
        stop(again)
