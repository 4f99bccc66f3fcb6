"""Random crashes, for as long as a test may take; and that the campaign notices what a recorder leaves undone."""

from __future__ import annotations

import pytest

from runner.core.base.home import Home
from runner.core.evidence.recorder import Recorder
from runner.core.evidence.results_tsv import Results
from tests.faults import campaign

pytestmark = pytest.mark.slow


def test_sessions_killed_at_random_leave_records_that_agree(prepared: Home) -> None:
    told = campaign.campaign(prepared.root, 20, 500, 7, 2)
    assert told.failures == []
    assert told.killed > 10
    assert told.looks > 2
    assert told.experiments > 10


@pytest.mark.parametrize("broken", ["chain and branch", "results", "open rows"])
def test_a_recorder_that_does_not_set_right_what_a_crash_left_is_found(
    prepared: Home, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """The positive control; processes are forked, so they have it, too."""
    if broken == "chain and branch":
        monkeypatch.setattr(Recorder, "_follow", lambda self: None)
    elif broken == "results":
        monkeypatch.setattr(Results, "rewrite", lambda self, rows: None)
    else:
        monkeypatch.setattr(Recorder, "close_interrupted", lambda self: [])
    assert campaign.campaign(prepared.root, 60, 500, 7, 2).failures
