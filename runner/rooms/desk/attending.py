"""Attending agents, one or more on each lane: a train.py, a desk and a container each, until it is done. TRUSTED.

The agent's container is started here through the launcher, or by somebody else (compose); then the desk is
served until the experiments are used up, the agent leaves or a stop is asked for. A new tag's baseline runs first, with
the desk open: who asks in the meantime waits. A runner that was started again finds the train.py a living agent is
mounted on, and puts the best version into that same file.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import NamedTuple

from runner.core.airlock import snapshot
from runner.core.base import doors
from runner.core.base.errors import GAVE_UP_CODE, TOLD_CODE, GloveboxError
from runner.core.base.launching import AgentKind, EndReason, EngineResult, LaunchRequest, Release
from runner.core.base.run_folder import new_run_id
from runner.core.policy import users
from runner.rooms.desk.desk import Desk
from runner.rooms.desk.experiment import Loop
from runner.rooms.desk.launch_client import Launch
from runner.rooms.desk.meter_client import MeterClient
from runner.rooms.desk.quota import Quota, Turns
from runner.rooms.desk.rounds import Rounds

GAVE_UP = ("api_refused", "failed")  # what an agent says that cannot go on
LONGEST_EXPERIMENT = 86_400.0  # seconds; each container has its own, much shorter limit
_LAST_ANSWER = 1.0  # seconds
_GIVEN_BACK = 5.0  # seconds after which an experiment that was taken has begun
_BETWEEN_PEERS = 0.05  # seconds
_AGENT_GRACE = 15.0  # seconds the agent gets to leave once it was told it is done


class Ending(NamedTuple):
    """How a person ends a session: at once, or after the experiment in progress."""

    now: threading.Event
    after: threading.Event


class _Baseline:
    """The first experiment of a tag: one lane runs it, the others wait; it is one of the session's."""

    def __init__(self, loop: Loop, quota: Quota) -> None:
        self.done = threading.Event()
        self._loop, self._quota = loop, quota
        self._lock = threading.Lock()
        self._failed: GloveboxError | None = None

    def run(self) -> None:
        """Return once there is one; raises what kept it from being."""
        with self._lock:
            if self._failed is not None:
                raise self._failed
            if self.done.is_set():
                return
            try:
                if self._loop.begin() is not None:
                    self._quota.take()
            except GloveboxError as error:
                self._failed = error
                raise
            self.done.set()


class _Agent:
    """The agent's container, watched from a thread."""

    def __init__(self, loop: Loop, kind: AgentKind) -> None:
        request = LaunchRequest(
            role="agent",
            run=new_run_id(),
            policy=loop.policies.digest,
            agent=kind,
            lane=loop.stages.lane,
            seat=loop.seat,
        )
        self._launches = loop.launches
        self.log = loop.home.run(request.run) / "agent.log"
        self.result: EngineResult | GloveboxError | None = None
        self._launch = loop.launches.open(request)
        self._launch.release(Release(seconds=loop.policies.agent.session_seconds))
        self._thread = threading.Thread(target=self._watch, args=(self._launch,), daemon=True)
        self._thread.start()

    def end(self) -> None:
        """End it, if it has not ended."""
        self._launches.end(self._launch)

    def gone(self, wait: float) -> bool:
        """Whether it has ended, after at most `wait` seconds."""
        self._thread.join(wait)
        return not self._thread.is_alive()

    @property
    def failed(self) -> bool:
        """Whether it left with an error of its own, or had to be ended for its memory or its output."""
        result = self.result
        if not isinstance(result, EngineResult) or result.reason in (EndReason.WALL, EndReason.CANCELLED):
            return False
        return result.reason is not EndReason.EXIT or result.exit_code != 0

    @property
    def lost(self) -> GloveboxError | None:
        """What took its container away from us, unless it was ended: the engine or the launcher is gone."""
        return self.result if isinstance(self.result, GloveboxError) else None

    def _watch(self, launch: Launch) -> None:
        try:
            self.result = launch.ended()
        except GloveboxError as error:
            self.result = error


def attend(
    loops: Sequence[Loop],
    places: doors.Places,
    kind: AgentKind | None,
    experiments: int | None,
    metered: bool,
    ending: Ending,
) -> int:
    """Serve every lane's agents to the end of all; returns the exit code, raises what broke the bench."""
    quota, broken, rounds = Quota(experiments), threading.Event(), Rounds()
    baseline = _Baseline(loops[0], quota)
    seats = Counter(loop.stages.lane.number for loop in loops)
    turns = {lane: Turns(count) for lane, count in seats.items()}

    def serve(loop: Loop) -> int:
        code = 1
        try:
            turn = turns[loop.stages.lane.number]
            code = _Attendance(loop, places, kind, quota, metered, ending, broken, baseline, rounds, turn).run()
        finally:
            if code == 1:
                broken.set()  # the other lanes finish what they run and end, too; then all start again
        return code

    with ThreadPoolExecutor(len(loops)) as pool:
        codes = [future.result() for future in [pool.submit(serve, loop) for loop in loops]]
    return 1 if 1 in codes else max(codes)


@dataclass(frozen=True)
class _Attendance:
    """One agent of a lane, and its desk."""

    loop: Loop
    places: doors.Places
    kind: AgentKind | None
    quota: Quota
    metered: bool
    ending: Ending
    broken: threading.Event
    baseline: _Baseline
    rounds: Rounds
    turns: Turns

    def run(self) -> int:
        """Serve until the end; returns the exit code."""
        loop, stopping, lane = self.loop, self.ending.now, self.loop.stages.lane.number
        ids = users.ids(loop.policies.sandbox, loop.policies.sandbox.agent.uid)
        work = loop.home.work_of(lane, loop.seat)
        snapshot.provide(work, ids.host_gid, loop.best_source())
        meter = MeterClient(self.places.meter if self.metered else None)
        rounds = self.rounds if loop.policies.sandbox.agents == "frozen" else Rounds()
        desk = Desk(loop, work, self.quota, meter, self.baseline.done, rounds, self.turns)
        with ExitStack() as stack:
            stack.callback(rounds.leave, lane)
            if self.kind:
                rounds.expect(lane)
            sock = stack.enter_context(doors.listening(self.places.desk(lane, loop.seat), gid=ids.host_gid, mode=0o660))
            args = (sock, users.agents(loop.policies.sandbox), desk.handle, doors.MAX_PEERS, _BETWEEN_PEERS)
            threading.Thread(target=doors.serve, args=args, daemon=True).start()
            self.baseline.run()
            if self.quota.left == 0 or self.ending.after.is_set():
                desk.finished.set()
            agent = _Agent(loop, self.kind) if self.kind and not desk.finished.is_set() else None
            if not desk.finished.is_set():
                loop.stages.prepare()
            loop.emit("agent_started" if agent else "serving", {"experiments": self.quota.left})
            self._wait(agent, desk)
            lost = agent.lost if agent and not desk.finished.is_set() else None
            desk.settle(0 if stopping.is_set() else LONGEST_EXPERIMENT)  # one that runs may end, its agent gone or not
            if agent is not None:
                agent.end()
            if self.turns.leave():
                loop.launches.end_all()  # what stands by; but what the tag gained may be measured yet
            if agent is not None:
                agent.gone(30)
            desk.settle(20)
        if desk.failure is not None and not stopping.is_set():
            raise desk.failure
        if lost is not None and not stopping.is_set():
            raise lost
        return self._ended(agent, desk)

    def _ended(self, agent: _Agent | None, desk: Desk) -> int:
        failed = desk.left_because in GAVE_UP or (agent is not None and agent.failed)
        log = str(agent.log) if agent else "the agent's own log"
        self.loop.emit("agent_ended", {"failed": failed, "because": desk.left_because, "log": log})
        if desk.left_because in GAVE_UP:
            return GAVE_UP_CODE  # another start would end the same way
        if not failed and self.loop.told_enough():
            return TOLD_CODE
        return 1 if failed else 0

    def _wait(self, agent: _Agent | None, desk: Desk) -> None:
        """Until the agent left, the experiments are used up (plus a grace), or a stop was asked for."""
        stopping = self.ending.now
        used_up = time.monotonic()
        while not (stopping.is_set() or desk.finished.is_set() or (agent is not None and agent.gone(0))):
            if self.ending.after.is_set() or self.broken.is_set():
                return  # the caller lets the experiment in progress end, and no other begin
            if self.quota.left != 0 or desk.busy:
                used_up = time.monotonic()
            elif time.monotonic() > used_up + _GIVEN_BACK:
                desk.finished.set()  # another lane took the last experiment, and did not give it back
            desk.finished.wait(0.2)
        leave = time.monotonic() + _AGENT_GRACE
        while not stopping.is_set() and time.monotonic() < leave and desk.failure is None:
            if agent is None:  # somebody else's container: time to read the last answer
                time.sleep(_LAST_ANSWER)
                return
            if agent.gone(0.1):
                return
