"""A night without containers: the real loop, desk, ledger and git around scores that a train.py names itself."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.client import Bench
from bench import standin
from runner.core.airlock import snapshot
from runner.core.base import doors
from runner.core.base.home import Home
from runner.core.base.mountable import SOURCE
from runner.core.base.values import Experiment
from runner.core.evidence import verify
from runner.rooms.desk.desk import Desk
from runner.rooms.desk.experiment import Loop
from runner.rooms.desk.quota import Quota

SEED = b"# true 2.0\nx = 1\n"


def named(text: bytes, _: int) -> float | None:
    """What a train.py says of itself; nothing: it crashes."""
    found = re.search(rb"^# true (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else None


@dataclass
class Night:
    """A served tag: its loop, its desk, an agent's line to it, and what people were told."""

    home: Home
    loop: Loop
    desk: Desk
    bench: Bench
    events: list[tuple[str, dict[str, Any]]]

    def run(self, true: float | None, more: str = "", **said: Any) -> dict[str, Any]:
        """One experiment with a file of that score; its feedback."""
        head = "" if true is None else f"# true {true}\n"
        self.home.work.write_text(f"{head}x = 1\n{more}")
        answer: dict[str, Any] = self.bench.run_experiment(f"to {true}", **said)["feedback"]
        return answer

    @property
    def rows(self) -> list[Experiment]:
        return self.loop.ledger.experiments(self.loop.tag)

    def verified(self) -> verify.Outcome:
        """What `glovebox verify` finds."""
        return verify.verify(self.home)


@pytest.fixture
def night(tmp_path: Path, home: Home) -> Iterator[Night]:
    """Rule upstream: what scores lower is kept."""
    text = (SOURCE / "policies" / "decision.yaml").read_text()
    (home.root / "policies" / "decision.yaml").write_text(text.replace("rule: odds ", "rule: upstream "))
    events: list[tuple[str, dict[str, Any]]] = []
    loop = standin.loop(home, "t", SEED, named, emit=lambda event, data: events.append((event, data)))
    loop.begin()
    snapshot.provide(home.work, os.getegid(), loop.best_source())
    desk = Desk(loop, home.work, Quota(None))
    path = tmp_path / "night" / "bench.sock"
    with doors.listening(path, gid=os.getegid(), mode=0o660) as sock:
        args = (sock, frozenset({os.geteuid()}), desk.handle)
        threading.Thread(target=doors.serve, args=args, daemon=True).start()
        yield Night(home, loop, desk, Bench(str(path), patience=5), events)
    loop.ledger.close()
