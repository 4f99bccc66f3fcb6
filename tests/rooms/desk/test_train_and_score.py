"""A run that cannot win is ended while it trains (in a real container); one whose GPU was taken away is run again."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from runner.core.airlock import snapshot
from runner.core.artifacts import store
from runner.core.base.home import Home
from runner.core.base.launching import WHOLE_HOST, EndReason, EngineResult, Lane, LaunchRequest, Release
from runner.core.base.run_folder import new_run_id
from runner.core.base.values import Scored, Status
from runner.core.evidence.replay import replay
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
    assert not replay(loop.policies.decision, rows[:1], [])[0]


LENT = Lane(gpu="GPU-00000000-1111-2222-3333-444444444444")


HANDING_OVER = '{"event":"phase","phase":"hand_over","seconds":1.0}\n'


class Launches:
    """Containers that end as they are told to, in their order: an exit code, and after how many seconds."""

    def __init__(self, home: Home, ends: list[tuple[int, float]]) -> None:
        self.home, self.ends = home, ends
        self.roles = list[str]()  # of those that were released, in order
        self.dropped = list[str]()

    def open(self, request: LaunchRequest) -> Container:
        return Container(self, request)

    def end(self, container: Container) -> None:
        if not container.released:
            self.dropped.append(container.request.role)


@dataclass
class Container:
    """One of them."""

    launches: Launches
    request: LaunchRequest
    released: bool = False

    def release(self, _: Release) -> None:
        self.released = True
        self.launches.roles.append(self.request.role)

    def stop(self) -> None:
        pass

    def ended(self) -> EngineResult:
        code, seconds = self.launches.ends.pop(0)
        if self.request.role == "trainer":  # it says that it hands over, and an evaluator begins to wait for that
            (self.launches.home.run(self.request.run) / "telemetry.jsonl").write_text(HANDING_OVER)
            time.sleep(0.3)
        return EngineResult(
            exit_code=code, reason=EndReason.EXIT, oom=False, seconds=seconds, output_bytes=0, image="i", container="c"
        )


def outcome(home: Home, policies: Policies, ends: list[tuple[int, float]], lane: Lane) -> tuple[Launches, Scored]:
    """What comes of a run whose containers end like this; each left a hand-over."""
    launches, run = Launches(home, ends), new_run_id()
    folder = home.run(run)
    folder.mkdir(parents=True)
    (folder / "graph.json").write_text("{}")
    (folder / "telemetry.jsonl").write_text("")
    stages = Stages(home, policies, launches, store.admit(home, store.latest(home)), lane=lane)  # type: ignore[arg-type]
    taken = snapshot.keep(b"x = 1\n", home.snapshots)
    return launches, stages.run(taken, run, seconds=5.0)


@pytest.mark.parametrize(
    ("ends", "roles", "handed_over"),
    [
        ([(0, 9.0), (0, 1.0)], ["trainer", "evaluator"], True),
        ([(75, 0.1), (0, 9.0), (0, 1.0)], ["trainer", "trainer", "evaluator"], True),
        ([(0, 9.0), (75, 0.1), (0, 1.0)], ["trainer", "evaluator", "evaluator"], True),
        ([(75, 0.1), (75, 0.1)], ["trainer", "trainer"], False),  # a train.py that says so buys one more run
        ([(75, 9.0)], ["trainer"], False),  # and none if it trained before: it would draw twice
        ([(1, 9.0), (0, 1.0)], ["trainer", "evaluator"], True),  # it failed after it had handed over: that counts
    ],
)
def test_a_room_that_lost_its_gpu_is_run_once_more_and_no_more(
    home: Home, policies: Policies, ends: list[tuple[int, float]], roles: list[str], handed_over: bool
) -> None:
    launches, scored = outcome(home, policies, ends, LENT)
    assert launches.roles == roles
    assert launches.ends == []
    assert scored.trained.handed_over is handed_over


def test_what_the_first_container_handed_over_is_not_what_the_second_is_scored_by(
    home: Home, policies: Policies
) -> None:
    """A red team handed over in the first, ended with 75, and had that scored as the second's."""
    launches, _ = outcome(home, policies, [(75, 0.1), (0, 9.0), (0, 1.0)], LENT)
    assert launches.dropped == ["evaluator"]  # it waited with the first one's files before it
    launches, _ = outcome(home, policies, [(0, 9.0), (0, 1.0)], LENT)
    assert launches.dropped == []


def test_without_a_gpu_there_is_none_to_lose(home: Home, policies: Policies) -> None:
    launches, scored = outcome(home, policies, [(75, 0.1)], WHOLE_HOST)
    assert launches.roles == ["trainer"]
    assert not scored.trained.handed_over
