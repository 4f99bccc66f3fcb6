"""A run that cannot win is ended while it trains (in a real container); one whose GPU was taken away is run again."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.core.airlock import snapshot
from runner.core.artifacts import store
from runner.core.base.home import Home
from runner.core.base.launching import WHOLE_HOST, EndReason, EngineResult, Lane, LaunchRequest, Release
from runner.core.base.run_folder import new_run_id
from runner.core.base.values import Scored, Status
from runner.core.evidence import verify
from runner.core.policy.policy_files import EarlyStop, Policies
from runner.rooms.desk.experiment import Loop
from runner.rooms.desk.train_and_score import Stages
from tests.core.decision.test_early_stop import night

HIGH = "import time\nfrom trainer import telemetry\nfor n in range(600):\n    telemetry.step(n, 9.0)\n    time.sleep(0.1)\n"


@pytest.mark.engine
@pytest.mark.slow
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


LENT = Lane(gpu="GPU-00000000-1111-2222-3333-444444444444")


class Launches:
    """Containers that end as they are told to, in their order."""

    def __init__(self, codes: list[int]) -> None:
        self.codes, self.roles = codes, list[str]()

    def open(self, request: LaunchRequest) -> Launches:
        self.roles.append(request.role)
        return self

    def release(self, _: Release) -> None:
        pass

    def end(self, _: object) -> None:
        pass

    def stop(self) -> None:
        pass

    def ended(self) -> EngineResult:
        code = self.codes.pop(0)
        return EngineResult(
            exit_code=code, reason=EndReason.EXIT, oom=False, seconds=1.0, output_bytes=0, image="i", container="c"
        )


def outcome(home: Home, policies: Policies, codes: list[int], lane: Lane = LENT) -> tuple[Launches, Scored]:
    """What comes of a run whose containers end with these codes; each left a hand-over."""
    launches, run = Launches(codes), new_run_id()
    folder = home.run(run)
    folder.mkdir(parents=True)
    (folder / "graph.json").write_text("{}")
    (folder / "telemetry.jsonl").write_text("")
    sandbox = policies.sandbox.model_copy(update={"standby": False})
    statement = store.admit(home, store.latest(home))
    stages = Stages(home, policies.model_copy(update={"sandbox": sandbox}), launches, statement, lane=lane)  # type: ignore[arg-type]
    taken = snapshot.keep(b"x = 1\n", home.snapshots)
    return launches, stages.run(taken, run, seconds=5.0)


@pytest.mark.parametrize(
    ("codes", "roles", "handed_over"),
    [
        ([0, 0], ["trainer", "evaluator"], True),
        ([75, 0, 0], ["trainer", "trainer", "evaluator"], True),
        ([0, 75, 0], ["trainer", "evaluator", "evaluator"], True),
        ([75, 75], ["trainer", "trainer"], False),  # a train.py that says so buys one more run
        ([1], ["trainer"], False),
    ],
)
def test_a_room_that_lost_its_gpu_is_run_once_more_and_no_more(
    home: Home, policies: Policies, codes: list[int], roles: list[str], handed_over: bool
) -> None:
    launches, scored = outcome(home, policies, codes)
    assert launches.roles == roles
    assert launches.codes == []
    assert scored.trained.handed_over is handed_over


def test_without_a_gpu_there_is_none_to_lose(home: Home, policies: Policies) -> None:
    launches, scored = outcome(home, policies, [75], WHOLE_HOST)
    assert launches.roles == ["trainer"]
    assert not scored.trained.handed_over
