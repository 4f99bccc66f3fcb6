"""The desk: bench.sock, where the agent asks for experiments. TRUSTED side of an untrusted peer.

Requests are one JSON object a line: {"verb": "run_experiment", "description": text} with, if the agent likes, its
hypothesis, expected gain and kind; {"verb": "history"}, {"verb": "telemetry", "experiment": n}, {"verb": "brief"},
{"verb": "restore"} with an earlier experiment or without, {"verb": "pass"}: nothing was proposed, {"verb": "leave",
"reason": code}, and those of library.py.
Answers are {"ok": true, ...} or {"ok": false, "reason": code}. What a trainer may have a part in comes back as typed
values only; text is what agents or the person wrote. One experiment at a time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from runner.core.airlock.description import clean
from runner.core.airlock.leak_budget import GAIN_DIGITS
from runner.core.base.doors import Line
from runner.core.base.errors import DoorError, SnapshotError
from runner.core.base.values import Kind, Proposal
from runner.rooms.desk.experiment import Loop
from runner.rooms.desk.facts import facts
from runner.rooms.desk.library import Library, Refusal
from runner.rooms.desk.meter_client import Budgets, MeterClient
from runner.rooms.desk.quota import Pace, Quota, Turns
from runner.rooms.desk.rounds import Rounds

MAX_REQUEST = 128 << 10  # notes, each character of them escaped
_REFUSAL_PAUSE = 0.5  # seconds before a refusal is answered, doubled while nothing else comes: a loop fills no log
_LONGEST_PAUSE = 30.0
_PER_SECOND, _BURST = 5.0, 50  # requests of one agent
_LINE = 12  # keeps of the line that are told, besides the baseline
_SHOWN = {
    "id", "status", "val_bpb", "claimed", "confirmed", "gain", "probability", "description", "snapshot_size", "reason",
    "crash", "parent", "proposal", "veto",
}  # fmt: skip
LEAVING = ("done", "budget", "api_refused", "failed")
_BRIEF = {
    "model",
    "fallback_models",
    "max_tokens",
    "thinking",
    "effort",
    "turns",
    "repairs",
    "shown_rows",
    "context_chars",
    "source_chars",
    "description_chars",
    "command",
}  # of policies/agent.yaml, for the agent to work by


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
        turns: Turns | None = None,
    ) -> None:
        self.loop = loop
        self._baseline = baseline  # nothing is answered before it is there; None: it is
        self.meter = meter or MeterClient(None)
        self.rounds = rounds or Rounds()  # of this lane alone
        self.turns = turns or Turns()  # of this agent alone
        self.train_py = train_py
        self.quota = quota
        self.finished = threading.Event()
        self.ran = 0  # experiments of this lane's agent, in this session
        self.failure: BaseException | None = None
        self.left_because: str | None = None  # the agent's own word, from LEAVING
        self._busy = threading.Lock()
        self._pace = Pace(_PER_SECOND, _BURST)
        self._refusals = self._passes = 0
        self._settled = False
        self._library = Library(loop)
        self._verbs: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "run_experiment": self._run,
            "history": self._history,
            "brief": self._brief,
            "restore": self._restore,
            "pass": self._pass_over,
            "leave": self._leave,
            **dict.fromkeys(self._library.verbs, self._library.answer),
        }

    @property
    def busy(self) -> bool:
        """Whether an experiment is under way."""
        return self._busy.locked()

    def handle(self, line: Line) -> None:
        """Answer requests until the agent hangs up."""
        while (request := line.receive(MAX_REQUEST)) is not None:
            self._pace.wait()
            verb = request.get("verb")
            answer = self._verbs.get(verb) if isinstance(verb, str) else None
            line.send(self._answer(answer, request) if answer else _no("unknown_verb"))

    def _answer(self, answer: Callable[[dict[str, Any]], dict[str, Any]], request: dict[str, Any]) -> dict[str, Any]:
        try:
            if self._baseline is not None:
                self._baseline.wait()
            if request["verb"] != "leave":
                self.loop.steering.wait(self.finished.wait)
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
        description, proposal = request.get("description"), self._proposal(request)
        if not isinstance(description, str) or proposal is None:
            return _no("bad_request")
        if not self._busy.acquire(blocking=False):
            return _no("busy")
        try:
            if self.finished.is_set() or self._told_enough() or not self.quota.take():
                self.rounds.leave(self.loop.stages.lane.number)  # the last one's holder waits for nobody
                return _no("no_experiments_left")
            answer = self._in_turn(clean(description, self.loop.policies.agent.description_chars), proposal)
            return answer if isinstance(answer, dict) else self._refuse(answer)  # who waits for that holds up nobody
        finally:
            self._busy.release()

    def _proposal(self, request: dict[str, Any]) -> Proposal | None:
        """What the agent says of its experiment beforehand, None if that is malformed."""
        said = {name: request[name] for name in ("hypothesis", "expected", "kind") if request.get(name) is not None}
        if not set(request) <= {"verb", "description", "hypothesis", "expected", "kind"}:
            return None
        hypothesis, expected, kind = (said.get(name) for name in ("hypothesis", "expected", "kind"))
        number = expected is None or (type(expected) in (int, float) and -1 <= expected <= 1)
        if not (isinstance(hypothesis, str | None) and number and kind in (None, *get_args(Kind))):
            return None
        text = "" if not hypothesis else clean(hypothesis, self.loop.policies.agent.description_chars)
        gain = None if expected is None else round(float(expected), GAIN_DIGITS)
        return Proposal(hypothesis=text, expected=gain, kind=kind)

    def _in_turn(self, description: str, proposal: Proposal) -> dict[str, Any] | str:
        lane, patience, last = self.loop.stages.lane.number, self.loop.usual_seconds(), self.quota.left == 0
        over = self.finished.is_set
        with self.rounds.turn(lane, patience, last=last, over=over), self.turns.take():
            self.loop.steering.wait(self.finished.wait)  # a pause, or a stop, was asked for meanwhile
            if self.finished.is_set():
                self.quota.give_back()
                return _no("no_experiments_left")
            self.loop.take_vetoed_back(None, wait=True)  # before it is measured against that
            return self._experiment(description, proposal)

    def _experiment(self, description: str, proposal: Proposal) -> dict[str, Any] | str:
        """The answer, or why its file was refused."""
        said = None if proposal.empty else proposal
        try:
            feedback = self.loop.experiment(self.train_py, description, self.quota.left, said)
        except SnapshotError as error:
            self.quota.give_back()
            return error.reason
        self._refusals = 0
        self.ran += 1
        self.loop.take_vetoed_back(self.train_py, wait=False)
        self._passes = 0
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
        budget, memory = self._tell_broker(), self.loop.memory
        line = memory.kept()
        return {
            "ok": True,
            "experiments": len(memory.told().rows),
            "line": [row.model_dump(mode="json", include=_SHOWN) for row in (*line[:1], *line[1:][-_LINE:])],
            "calibration": memory.calibration().model_dump(mode="json"),
            "facts": facts(self.loop.stages, line[-1] if line else None),
            "analysis": self.loop.memory.analysis(self.loop.stages.lane.name).model_dump(mode="json"),
            "rows": [row.model_dump(mode="json", include=_SHOWN) for row in rows],
            "experiments_left": self.quota.left,
            "run_here": self.ran,
            "budget": None if budget is None else budget.model_dump(mode="json"),
        }

    def _brief(self, request: dict[str, Any]) -> dict[str, Any]:
        if set(request) != {"verb"}:
            return _no("bad_request")
        policy = self.loop.policies.agent.model_dump(mode="json", include=_BRIEF)
        return {"ok": True, "brief": {"tag": self.loop.tag, **policy}}

    def _restore(self, request: dict[str, Any]) -> dict[str, Any]:
        """Start over from the best version, or from an earlier experiment's; the agent wrote both itself."""
        if not {"verb"} <= set(request) <= {"verb", "experiment"}:
            return _no("bad_request")
        if not self._busy.acquire(blocking=False):
            return _no("busy")
        try:
            if self.finished.is_set():
                return _no("no_experiments_left")
            if self.loop.steering.vetoes():
                with self.turns.take():
                    self.loop.take_vetoed_back(self.train_py, wait=True)
            number = request.get("experiment")
            if number is None:
                self.loop.restore(self.train_py)
            else:
                row = self._library.known(number)
                if row.id in {one.id for one in self.loop.taken_out()}:
                    return _no("vetoed")
                self.loop.go_on_from(row, self.train_py)
            return {"ok": True, "parent": self.loop.parent}
        except Refusal as refusal:
            return _no(str(refusal))
        finally:
            self._busy.release()

    def _pass_over(self, request: dict[str, Any]) -> dict[str, Any]:
        """An experiment without a run: what the model costs from now on counts towards the next."""
        if set(request) != {"verb"}:
            return _no("bad_request")
        if not self._busy.acquire(blocking=False):
            return _no("busy")
        try:
            if self.finished.is_set() or self._told_enough() or not self.quota.take():
                return _no("no_experiments_left")
            time.sleep(
                min(_LONGEST_PAUSE, _REFUSAL_PAUSE * (2.0 ** min(self._passes, 10) - 1))
            )  # a loop fills no record
            self._passes += 1
            self.loop.pass_over(self.train_py)
            self.ran += 1
            if self.quota.left == 0:
                self._finish()
            self._tell_broker()
            return {"ok": True, "done": self.finished.is_set()}
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
