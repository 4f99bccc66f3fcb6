"""The desk: bench.sock, where the agent asks for experiments. TRUSTED side of an untrusted peer.

Requests are one JSON object a line: {"verb": "run_experiment", "description": text}, {"verb": "history"},
{"verb": "telemetry", "experiment": n}, {"verb": "brief"}, {"verb": "restore"}, {"verb": "leave", "reason": code}.
Answers are {"ok": true, ...} with typed values only, or {"ok": false, "reason": code}. One experiment at a
time; the agent's own description is the only free text that comes back to it, cut and cleaned.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runner.core.airlock.description import clean
from runner.core.base.doors import Line
from runner.core.base.errors import DoorError, SnapshotError
from runner.core.decision import standing
from runner.core.findings import analysis
from runner.rooms.desk.experiment import Loop
from runner.rooms.desk.memory import rounded
from runner.rooms.desk.meter_client import Budgets, MeterClient
from runner.rooms.desk.rounds import Rounds

MAX_REQUEST = 16 << 10
_REFUSAL_PAUSE = 0.5  # seconds before a refusal is answered, doubled while nothing else comes: a loop fills no log
_LONGEST_PAUSE = 30.0
_PER_SECOND, _BURST = 5.0, 50  # requests of one agent
LEAVING = ("done", "budget", "api_refused", "failed")
_BRIEF = {
    "model",
    "max_tokens",
    "turns",
    "repairs",
    "shown_rows",
    "context_chars",
    "source_chars",
    "description_chars",
    "command",
}  # of policies/agent.yaml, for the agent to work by


class Pace:
    """So many requests a second from one agent, whatever number of connections; a burst is made up for by waiting.

    The desk's work is done on the processors that candidates train on.
    """

    def __init__(self, per_second: float, burst: int) -> None:
        self._gap, self._ahead = 1.0 / per_second, burst / per_second
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Return when it is this request's turn."""
        with self._lock:
            now = time.monotonic()
            self._next = max(self._next, now - self._ahead) + self._gap
            due = self._next
        if due > now:
            time.sleep(due - now)


class Quota:
    """Experiments that may still begin, for all lanes together; None: no end."""

    def __init__(self, experiments: int | None) -> None:
        self.left = experiments
        self._lock = threading.Lock()

    def take(self) -> bool:
        """One of them, if there is one left."""
        with self._lock:
            if self.left == 0:
                return False
            self.left = None if self.left is None else self.left - 1
            return True

    def give_back(self) -> None:
        """One that came to nothing."""
        with self._lock:
            self.left = None if self.left is None else self.left + 1


class Desk:
    """Serves one agent; `finished` is set when it may stop."""

    def __init__(
        self,
        loop: Loop,
        train_py: Path,
        quota: Quota,
        meter: MeterClient | None = None,
        baseline: threading.Event | None = None,
        rounds: Rounds | None = None,
    ) -> None:
        self.loop = loop
        self._baseline = baseline  # nothing is answered before it is there; None: it is
        self.meter = meter or MeterClient(None)
        self.rounds = rounds or Rounds()  # of this lane alone
        self.train_py = train_py
        self.quota = quota
        self.finished = threading.Event()
        self.ran = 0  # experiments of this lane's agent, in this session
        self.failure: BaseException | None = None
        self.left_because: str | None = None  # the agent's own word, from LEAVING
        self._busy = threading.Lock()
        self._pace = Pace(_PER_SECOND, _BURST)
        self._refusals = 0
        self._settled = False

    @property
    def busy(self) -> bool:
        """Whether an experiment is under way."""
        return self._busy.locked()

    def handle(self, line: Line) -> None:
        """Answer requests until the agent hangs up."""
        verbs: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "run_experiment": self._run,
            "history": self._history,
            "telemetry": self._telemetry,
            "brief": self._brief,
            "restore": self._restore,
            "leave": self._leave,
        }
        while (request := line.receive(MAX_REQUEST)) is not None:
            self._pace.wait()
            verb = request.get("verb")
            answer = verbs.get(verb) if isinstance(verb, str) else None
            line.send(self._answer(answer, request) if answer else _no("unknown_verb"))

    def _answer(self, answer: Callable[[dict[str, Any]], dict[str, Any]], request: dict[str, Any]) -> dict[str, Any]:
        try:
            if self._baseline is not None:
                self._baseline.wait()
            return answer(request)
        except BaseException as error:
            # Ours, not the agent's: the session ends with it, and the agent is hung up on.
            self.failure = error
            self._finish()
            raise DoorError("the bench failed") from error

    def settle(self, seconds: float) -> None:
        """Let no experiment begin, and wait so long for the one in progress."""
        self._finish()
        if not self._settled:
            self._settled = self._busy.acquire(timeout=seconds)

    def _finish(self) -> None:
        self.finished.set()
        self.rounds.leave(self.loop.stages.lane.number)

    def _run(self, request: dict[str, Any]) -> dict[str, Any]:
        description = request.get("description")
        if set(request) != {"verb", "description"} or not isinstance(description, str):
            return _no("bad_request")
        if not self._busy.acquire(blocking=False):
            return _no("busy")
        try:
            if self.finished.is_set() or self._told_enough() or not self.quota.take():
                self.rounds.leave(self.loop.stages.lane.number)  # the last one's holder waits for nobody
                return _no("no_experiments_left")
            answer = self._in_turn(clean(description, self.loop.policies.agent.description_chars))
            return answer if isinstance(answer, dict) else self._refuse(answer)  # who waits for that holds up nobody
        finally:
            self._busy.release()

    def _in_turn(self, description: str) -> dict[str, Any] | str:
        lane, patience, last = self.loop.stages.lane.number, self.loop.usual_seconds(), self.quota.left == 0
        with self.rounds.turn(lane, patience, last=last, over=self.finished.is_set):
            if self.finished.is_set():  # a stop was asked for meanwhile
                self.quota.give_back()
                return _no("no_experiments_left")
            return self._experiment(description)

    def _experiment(self, description: str) -> dict[str, Any] | str:
        """The answer, or why its file was refused."""
        try:
            feedback = self.loop.experiment(self.train_py, description, self.quota.left)
        except SnapshotError as error:
            self.quota.give_back()
            return error.reason
        self._refusals = 0
        self.ran += 1
        if self.quota.left == 0:
            self._finish()
        if not (self.finished.is_set() or self._told_enough()):
            self.loop.stages.prepare()  # while the agent thinks
        self._tell_broker()
        return {"ok": True, "feedback": feedback.model_dump(mode="json"), "done": self.finished.is_set()}

    def _told_enough(self) -> bool:
        """Whether the leak budget leaves no room for another outcome; that ends the session."""
        enough = self.loop.told_enough()
        if enough and not self.finished.is_set():
            self._finish()
            told = self.loop.memory.told()
            self.loop.emit("leak_budget", {"bits": told.bits, "limit": told.limit})
        return enough

    def _refuse(self, reason: str) -> dict[str, Any]:
        time.sleep(min(_LONGEST_PAUSE, _REFUSAL_PAUSE * 2.0 ** min(self._refusals, 10)))
        self._refusals += 1
        return _no(reason)

    def _history(self, request: dict[str, Any]) -> dict[str, Any]:
        if set(request) != {"verb"}:
            return _no("bad_request")
        rows = self.loop.memory.newest(self.loop.policies.agent.history_rows)
        fields = {"id", "status", "val_bpb", "claimed", "confirmed", "gain", "probability"}
        fields |= {"description", "snapshot_size", "reason", "crash"}
        budget = self._tell_broker()
        return {
            "ok": True,
            "analysis": self.loop.memory.analysis(self.loop.stages.lane.name).model_dump(mode="json"),
            "rows": [row.model_dump(mode="json", include=fields) for row in rows],
            "experiments_left": self.quota.left,
            "run_here": self.ran,
            "budget": None if budget is None else budget.model_dump(mode="json"),
        }

    def _telemetry(self, request: dict[str, Any]) -> dict[str, Any]:
        number = request.get("experiment")
        if set(request) != {"verb", "experiment"} or type(number) is not int:
            return _no("bad_request")
        rows = self.loop.memory.told().rows
        row = next((row for row in rows if row.id == number), None)
        if row is None:
            return _no("no_such_experiment")
        before = standing.parent(rows, row)
        return {
            "ok": True,
            **rounded(row).model_dump(mode="json", include={"curve", "summary", "train_seconds"}),
            "changed": list(analysis.kinds(before, row, self.loop.memory.source)),
            "against_best": analysis.against(row, before),
        }

    def _brief(self, request: dict[str, Any]) -> dict[str, Any]:
        if set(request) != {"verb"}:
            return _no("bad_request")
        policy = self.loop.policies.agent.model_dump(mode="json", include=_BRIEF)
        return {"ok": True, "brief": {"tag": self.loop.tag, **policy}}

    def _restore(self, request: dict[str, Any]) -> dict[str, Any]:
        """Start over from the best version; the agent could write the same itself, had it not lost it."""
        if set(request) != {"verb"}:
            return _no("bad_request")
        if not self._busy.acquire(blocking=False):
            return _no("busy")
        try:
            if self.finished.is_set():
                return _no("no_experiments_left")
            self.loop.restore(self.train_py)
            return {"ok": True}
        finally:
            self._busy.release()

    def _leave(self, request: dict[str, Any]) -> dict[str, Any]:
        reason = request.get("reason")
        if set(request) != {"verb", "reason"} or reason not in LEAVING:
            return _no("bad_request")
        self.left_because = str(reason)
        self._finish()
        return {"ok": True}

    def _tell_broker(self) -> Budgets | None:
        """The number of the next experiment: what the model costs from now on counts towards it."""
        return self.meter.tell(self.loop.ledger.last_number(self.loop.tag) + 1)


def _no(reason: str) -> dict[str, Any]:
    return {"ok": False, "reason": reason}
