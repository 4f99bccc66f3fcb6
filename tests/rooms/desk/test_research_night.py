"""Forty experiments by two model-driven agents on one lane, who use every tool, while a person steers.

Real agent code, SDK, broker, desk, loop, ledger, git line and audit chain; the model is a stand-in behind HTTP, and a run is
the score that a train.py names itself.
"""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from agent import claude
from agent.model import Model
from agent.toolbox import TOOLS
from agent.tools import Editor
from runner.core.base import steering
from runner.core.base.steering import Verb
from runner.core.decision import standing
from runner.rooms.desk.quota import Quota
from tests.rooms.broker.conftest import Start
from tests.rooms.broker.conftest import start as start  # noqa: PLC0414 - a fixture
from tests.rooms.desk.conftest import Night
from tests.rooms.desk.test_seats import Seats
from tests.standin.server import Block, Standin

COUNT = 40
BOUND = 60_000  # bytes of an opening


class Researcher:
    """A model that looks around, goes on from earlier files, keeps notes and ideas, and says what it expects."""

    def __init__(self) -> None:
        self.openings: list[str] = []
        self.used: Counter[str] = Counter()
        self.errors: list[str] = []
        self._lock = threading.Lock()

    def __call__(self, asked: dict[str, Any]) -> list[Block]:
        with self._lock:
            return self._answer(asked)

    def _answer(self, asked: dict[str, Any]) -> list[Block]:
        turn = sum(message["role"] == "assistant" for message in asked["messages"])
        opening = "\n\n".join(part["text"] for part in asked["messages"][0]["content"])
        done = int(re.findall(r"^experiments so far: (\d+)$", opening, re.MULTILINE)[0])
        for block in asked["messages"][-1]["content"]:
            if block.get("is_error"):
                self.errors.append(str(block["content"]))
        if turn == 0:
            self.openings.append(opening)
        plan = self._plan(done, opening)
        vetoed = [at for at, message in enumerate(asked["messages"]) if "refused: vetoed" in str(message["content"])]
        if vetoed:  # it starts again from what it is told is the best
            turn = sum(message["role"] == "assistant" for message in asked["messages"][vetoed[-1] :])
            plan = [("restore", {}), *plan[-5:]]
        name, given = plan[min(turn, len(plan) - 1)]
        self.used[name] += 1
        words: list[Block] = [{"type": "text", "text": f"turn {turn}"}]
        return [*words, {"type": "tool_use", "id": f"toolu_{done:03d}{turn:03d}", "name": name, "input": given}]

    def _plan(self, done: int, opening: str) -> list[tuple[str, dict[str, Any]]]:
        true = 2.0 - done / 100 if done % 3 else 2.5
        edit: list[tuple[str, dict[str, Any]]] = [
            ("write", {"text": f"# true {true}\nx = {done}\n\n\n\ny = 1\n"}),
            ("insert", {"line": 6, "text": f"z = {done}"}),
            ("str_replace", {"old": f"x = {done}", "new": f"x = {done + 1}"}),
            ("view", {"first": 1, "last": 3}),
        ]
        look: list[tuple[str, dict[str, Any]]] = [
            ("history", {}),
            ("telemetry", {"experiment": 1}),
            ("source", {"experiment": 1}),
            ("diff", {"experiment": done}),
            ("diff", {"experiment": done, "against": 1}),
            ("restore", {"experiment": 1} if done % 4 == 0 else {}),
            ("notes_write", {"text": f"# what is known\nafter {done}: nothing\n"}),
            ("notes_replace", {"old": "# what", "new": "# All that"}),
            ("idea_add", {"text": f"idea of {done}"}),
        ]
        listed = re.findall(r"^(\d+)\. idea of", opening, re.MULTILINE)
        if listed:
            look.append(("idea_close", {"idea": int(listed[0]), "outcome": "done"}))
        run = {"description": f"after {done}", "hypothesis": "h", "expected": 0.01, "kind": "batch"}
        return [*look, *edit, ("run_experiment", run)]


def test_two_agents_forty_experiments_every_tool_a_hint_a_new_directive_and_a_veto(
    night: Night, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.rooms.desk.quota.Pace.wait", lambda _: None)  # nothing trains here
    model, asked = Researcher(), list[str]()

    def ask(verb: Verb, text: str = "", experiment: int = 0) -> None:
        steering.ask(night.home, "t", verb, "2026-01-01T00:00:00+00:00", text=text, experiment=experiment)
        asked.append(verb)

    def steers(event: str, data: dict[str, Any]) -> None:
        number = data["experiment"] if event == "finished" else 0
        if number == 10:
            ask("hint", "look at the batch size")
        if number == 15:
            night.home.program.write_text("# another directive\nbe bolder\n")
        if number == 20:
            kept = standing.line(night.rows)
            ask("veto", experiment=kept[len(kept) // 2].id)
        if number == 25:
            ask("pause")
            threading.Timer(1.0, lambda: ask("resume")).start()

    night.loop.emit = steers
    much = {"experiment__requests": "1000", "experiment__dollars": "100.0", "experiment__tokens": "900000000"}
    broker = start(Standin(model), failures="100", concurrent="2", night__dollars="900.0", **much)
    with ExitStack() as stack:
        seats = Seats(night, tmp_path, 2, stack, Quota(COUNT))

        def work(seat: int) -> None:
            bench = seats.benches[seat]
            brief = bench.brief() | {"model": "claude-haiku-4-5", "max_tokens": 1000}
            claude._work(bench, Editor(seats.works[seat]), Model(brief, str(broker.places.llm)), brief)

        threads = [threading.Thread(target=work, args=(seat,)) for seat in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(300)
            assert not thread.is_alive()
    rows = night.rows
    assert sum(row.veto is None for row in rows) == COUNT + 1
    assert [row.veto is not None and row.status == "keep" for row in rows].count(True) == 1
    assert set(model.used) == {tool["name"] for tool in TOOLS}
    # Another agent may have changed the shared notes and ideas in between: those refusals are part of the game.
    # And whose file is built on what was taken back is told so, and starts again.
    reasons = {one.removeprefix("refused: ").split(" ")[0] for one in model.errors}
    assert reasons <= {"not_once", "no_such_idea", "vetoed"}, model.errors
    assert len({row.program for row in rows}) == 2
    assert len({row.notebook for row in rows}) > COUNT / 2
    assert {row.parent for row in rows} >= {None, 1}  # some went on from the first on purpose
    assert any(row.rebased is not None for row in rows)
    told = [one for one in model.openings if "look at the batch size" in one]
    assert len(told) > 20
    systems = {body["system"][0]["text"].split("\n")[0] for body in map(json.loads, broker.standin.bodies)}
    assert systems == {"# Research directive", "# another directive"}
    assert max(map(len, model.openings)) < BOUND
    assert asked == ["hint", "veto", "pause", "resume"]
    found = night.verified()
    assert found.failures == []
    assert found.checked["requests"] == 4
    calibration = night.loop.memory.calibration()
    assert (calibration.proposed, calibration.foretold) == (COUNT, COUNT)
