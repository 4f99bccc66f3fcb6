"""The agent's side of bench.sock: one JSON line to the runner, one back. UNTRUSTED."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

SOCKET = os.environ.get("GLOVEBOX_BENCH", "/run/glovebox/bench/bench.sock")
PATIENCE = 600.0  # seconds to wait for a runner that is being started again
CLOSING = "train.py as it stood when this experiment's model budget was used up"  # as the record describes it
_PAUSE = 0.5
T = TypeVar("T")


class Refused(Exception):
    """The runner said no; the text is its reason code."""


class Interrupted(Exception):
    """The runner went away in the middle of a request; whether it was carried out is in the history."""


class Bench:
    """The runner's desk; connects when first asked, and again after the runner was restarted."""

    def __init__(self, path: str = SOCKET, patience: float = PATIENCE) -> None:
        self._path, self._patience = path, patience
        self._sock: socket.socket | None = None
        self._lines: Any = None

    def brief(self) -> dict[str, Any]:
        """How the person wants the agent to work: model, limits, tag."""
        brief: dict[str, Any] = self._ask({"verb": "brief"})["brief"]
        return brief

    def run_experiment(self, description: str, **said: Any) -> dict[str, Any]:
        """Train and score train.py as it is; returns {"feedback": ..., "done": bool}. Raises Refused, Interrupted.

        `said`: hypothesis, expected gain, kind; none of them must be.
        """
        return self._ask({"verb": "run_experiment", "description": description, **said})

    def pass_over(self) -> dict[str, Any]:
        """Say that nothing is proposed this time; returns {"done": bool}. Raises Refused."""
        return self._ask({"verb": "pass"})

    def history(self) -> dict[str, Any]:
        """What is known so far: "rows" (the newest, oldest first), "line", "experiments", "facts", "analysis",
        "calibration", "budget" (what is left or None), "experiments_left"."""
        return self._ask({"verb": "history"})

    def telemetry(self, experiment: int) -> dict[str, Any]:
        """Loss curve and summary numbers of one experiment. Raises Refused."""
        return self._ask({"verb": "telemetry", "experiment": experiment})

    def restore(self, experiment: int | None = None) -> dict[str, Any]:
        """Put the best version so far back into train.py, or that of an earlier experiment. Raises Refused."""
        return self._ask({"verb": "restore"} | _given(experiment=experiment))

    def source(self, experiment: int) -> str:
        """The train.py of an experiment. Raises Refused."""
        return str(self._ask({"verb": "source", "experiment": experiment})["source"])

    def diff(self, experiment: int, against: int | None = None) -> dict[str, Any]:
        """What an experiment changed, in the file it was made from or in that of another. Raises Refused."""
        return self._ask({"verb": "diff", "experiment": experiment} | _given(against=against))

    def program(self) -> dict[str, Any]:
        """{"program": what the person wants, "hints": what they said since}."""
        return self._ask({"verb": "program"})

    def notebook(self) -> dict[str, Any]:
        """{"notes": text, "ideas": those that are open, ...}."""
        return self._ask({"verb": "notebook"})

    def write_notes(self, text: str) -> dict[str, Any]:
        """Replace the notes. Raises Refused."""
        return self._ask({"verb": "write_notes", "text": text})

    def edit_notes(self, old: str, new: str) -> dict[str, Any]:
        """Replace what occurs exactly once in the notes. Raises Refused."""
        return self._ask({"verb": "edit_notes", "old": old, "new": new})

    def add_idea(self, text: str) -> dict[str, Any]:
        """Put an idea on the list. Raises Refused."""
        return self._ask({"verb": "add_idea", "text": text})

    def close_idea(self, idea: int, outcome: str) -> dict[str, Any]:
        """Take one off it: "done" or "drop". Raises Refused."""
        return self._ask({"verb": "close_idea", "idea": idea, "outcome": outcome})

    def leave(self, reason: str) -> None:
        """Say that this agent will propose nothing more: done, budget, api_refused or failed."""
        self._ask({"verb": "leave", "reason": reason})

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        self._connect()
        try:
            self._sock.sendall(json.dumps(request).encode() + b"\n")  # type: ignore[union-attr] # just connected
            line = self._lines.readline()
        except OSError:
            line = b""
        if not line.endswith(b"\n"):
            self._sock = None
            raise Interrupted(f"the runner hung up during {request['verb']}")
        answer: dict[str, Any] = json.loads(line)
        if not answer.get("ok"):
            raise Refused(str(answer.get("reason")))
        return answer

    def _connect(self) -> None:
        deadline = time.monotonic() + self._patience
        while self._sock is None:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                sock.connect(self._path)
            except OSError:
                sock.close()
                if time.monotonic() > deadline:
                    raise
                time.sleep(_PAUSE)
            else:
                self._sock, self._lines = sock, sock.makefile("rb")


def closed(rows: list[dict[str, Any]]) -> bool:
    """Whether the newest experiment was there only to begin another budget."""
    return bool(rows) and (rows[-1]["description"] == CLOSING or rows[-1]["reason"] == "nothing_proposed")


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def waited(ask: Callable[[], T], pause: float) -> T:
    """What the runner answers, once it does: one that is being started again is asked again."""
    while True:
        try:
            return ask()
        except Interrupted:
            time.sleep(pause)


def leave(bench: Bench, reason: str) -> None:
    """Tell the runner, which ends the session; one that is away has ended it already."""
    with suppress(Interrupted, Refused, OSError):
        bench.leave(reason)
