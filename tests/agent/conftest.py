"""A desk with scripted answers behind a real socket, and a model behind a real broker."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.client import Bench
from agent.tools import Editor
from runner.core.airlock.notebook import Notebook
from runner.core.base import doors
from runner.core.policy.policy_files import Policies
from tests.agent.test_context import brief, history, some
from tests.rooms.broker.conftest import start as start  # noqa: PLC0414 - a fixture

SEED = "HEAD = 0.001 \n"
PASSED = "nothing was proposed"


class FakeDesk:
    """Answers like the runner; `outcomes` are the statuses of coming experiments, "hang_up" breaks the line."""

    def __init__(self, train_py: Path, policies: Policies) -> None:
        self.train_py = train_py
        self.brief = brief(policies)
        self.outcomes: deque[str] = deque()
        self.ran: list[tuple[str, str]] = []  # description, content
        self.recorded: Callable[[int], object] = lambda _: None  # told the number of each experiment
        self.left_because: str | None = None
        self.program, self.hints = "directive", list[dict[str, Any]]()
        self.book = Notebook()
        self.restored: list[int | None] = []
        self.said: list[dict[str, Any]] = []  # beforehand, of each experiment

    def handle(self, line: doors.Line) -> None:
        while (request := line.receive()) is not None:
            answer = getattr(self, f"_{request['verb']}")(request)
            if answer is None:
                return
            line.send({"ok": True, **answer})

    def _brief(self, _: Any) -> dict[str, Any]:
        return {"brief": self.brief}

    def _history(self, _: Any) -> dict[str, Any]:
        told = history([some(5 * n) for n in range(1, len(self.ran) + 1)])
        for row, (description, _) in zip(told["rows"], self.ran, strict=True):
            row["description"] = description
            row["reason"] = "nothing_proposed" if description == PASSED else None
        return told | {"run_here": len(self.ran)}

    def _program(self, _: Any) -> dict[str, Any]:
        return {"program": self.program, "hints": self.hints}

    def _notebook(self, _: Any) -> dict[str, Any]:
        return self.book.model_dump(mode="json")

    def _noted(self, book: Notebook) -> dict[str, Any]:
        self.book = book
        return book.model_dump(mode="json")

    def _write_notes(self, request: Any) -> dict[str, Any]:
        return self._noted(self.book.written(request["text"]))

    def _edit_notes(self, request: Any) -> dict[str, Any]:
        return self._noted(self.book.edited(request["old"], request["new"]))

    def _add_idea(self, request: Any) -> dict[str, Any]:
        return self._noted(self.book.with_idea(request["text"]))

    def _close_idea(self, request: Any) -> dict[str, Any]:
        return self._noted(self.book.closed(request["idea"], request["outcome"]))

    def _source(self, request: Any) -> dict[str, Any]:
        return {"source": self.ran[request["experiment"] - 1][1]}

    def _diff(self, request: Any) -> dict[str, Any]:
        return {"diff": f"-{SEED}+{self.ran[request['experiment'] - 1][1]}", "cut": False, "against": 1}

    def _pass(self, _: Any) -> dict[str, Any]:
        self.ran.append((PASSED, self.train_py.read_text()))
        self.recorded(len(self.ran))
        return {"done": not self.outcomes}

    def _telemetry(self, _: Any) -> dict[str, Any]:
        return {"curve": [[0, 1.5]], "summary": {}, "train_seconds": 1.0}

    def _restore(self, request: Any) -> dict[str, Any]:
        number = request.get("experiment")
        self.train_py.write_text(SEED if number is None else self.ran[number - 1][1])
        self.restored.append(number)
        return {}

    def _leave(self, request: Any) -> dict[str, Any]:
        self.left_because = request["reason"]
        return {}

    def _run_experiment(self, request: Any) -> dict[str, Any] | None:
        status = self.outcomes.popleft() if self.outcomes else "discard"
        if status == "hang_up":
            return None
        self.ran.append((request["description"], self.train_py.read_text()))
        self.said.append({name: request[name] for name in ("hypothesis", "expected", "kind") if name in request})
        self.train_py.write_text(SEED)
        self.recorded(len(self.ran))
        return {"feedback": {"experiment": len(self.ran), "status": status}, "done": not self.outcomes}


@pytest.fixture
def desk(tmp_path: Path, policies: Policies) -> Iterator[tuple[FakeDesk, Callable[[], Bench], Editor]]:
    """The desk, a way to connect to it, and the editor of its train.py."""
    train_py = tmp_path / "train.py"
    train_py.write_text(SEED)
    made = FakeDesk(train_py, policies)
    path = tmp_path / "d" / "bench.sock"
    with doors.listening(path, gid=os.getegid(), mode=0o600) as sock:
        args = (sock, frozenset({os.geteuid()}), made.handle)
        threading.Thread(target=doors.serve, args=args, daemon=True).start()
        yield made, lambda: Bench(str(path), patience=5), Editor(train_py)
