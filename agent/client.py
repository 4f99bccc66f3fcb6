"""The agent's side of bench.sock: one JSON line to the runner, one back. UNTRUSTED."""

from __future__ import annotations

import json
import os
import socket
from typing import Any

SOCKET = os.environ.get("GLOVEBOX_BENCH", "/run/bench/bench.sock")


class Refused(Exception):
    """The runner said no; the text is its reason code."""


class Bench:
    """A connection to the runner's desk."""

    def __init__(self, path: str = SOCKET) -> None:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.connect(path)
        self._lines = self._sock.makefile("rb")

    def run_experiment(self, description: str) -> dict[str, Any]:
        """Train and score the current train.py; returns {"feedback": ..., "done": bool}. Raises Refused."""
        return self._ask({"verb": "run_experiment", "description": description})

    def history(self) -> list[dict[str, Any]]:
        """All experiments so far, oldest first."""
        rows: list[dict[str, Any]] = self._ask({"verb": "history"})["rows"]
        return rows

    def telemetry(self, experiment: int) -> dict[str, Any]:
        """Loss curve and summary numbers of one experiment. Raises Refused."""
        return self._ask({"verb": "telemetry", "experiment": experiment})

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        self._sock.sendall(json.dumps(request).encode() + b"\n")
        line = self._lines.readline()
        if not line:
            raise ConnectionError("the runner hung up")
        answer: dict[str, Any] = json.loads(line)
        if not answer.get("ok"):
            raise Refused(str(answer.get("reason")))
        return answer
