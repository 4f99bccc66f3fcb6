"""A run that cannot win is ended while it trains; in a real container, calibrated by rows of the ledger."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.core.base.values import Status
from runner.core.evidence import verify
from runner.core.policy.policy_files import EarlyStop
from runner.rooms.desk.experiment import Loop
from tests.core.decision.test_early_stop import night

pytestmark = [pytest.mark.engine, pytest.mark.slow]
HIGH = "import time\nfrom trainer import telemetry\nfor n in range(600):\n    telemetry.step(n, 9.0)\n    time.sleep(0.1)\n"


@pytest.mark.parametrize("audit", [0.02, 1.0])
def test_a_run_that_cannot_win_is_ended_unless_it_is_audited(loop: Loop, work: Path, audit: float) -> None:
    rule = EarlyStop(enabled=True, looks=[0.2], alpha=0.01, runs=8, audit=audit)
    decision = loop.policies.decision.model_copy(update={"early_stop": rule})
    policies = loop.policies.model_copy(update={"decision": decision})
    rows = [row.model_copy(update={"pace": [(0.2, row.pace[0][1])]}) for row in night()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(loop.stages.__dict__, "policies", policies)
        known = loop.ledger.experiments(loop.tag)
        patch.setattr(loop.ledger, "experiments", lambda _: [*known, *rows])
        patch.setattr(loop.recorder.sealer, "draw", lambda _: 2**30)  # neither audited at 2% nor spared at 100%
        work.write_text(HIGH)
        taken = loop._snapshot(work)
        lookout = loop._lookout(99)
        assert lookout is not None
        run = loop.stages.next_run()
        scored = loop.stages.run(taken, run, seconds=8.0, judge=lookout.judge)
    assert scored.trained.pace == [(0.2, 9.0)]
    assert lookout.found is not None
    assert lookout.found.bound > lookout.found.against
    found = loop.trials().settle(99, None, scored, lambda _, verdict: verdict)
    if audit == 1.0:
        assert (found.status, found.reason) == (Status.TIMEOUT, "time_budget")  # it went on
    else:
        assert (found.status, found.reason) == (Status.DISCARD, "early_stop")
        assert scored.trained.engine.seconds < 7
    assert not verify.replay(loop.policies.decision, rows[:1], [])[0]
