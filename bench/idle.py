"""How much of a night a lane trains, while agents think: with one that stands still meanwhile, and with several.

    python -m bench.idle [--experiments N] [--scale S] [--json]

The real desk, loop, ledger, git line and sockets; a run is a sleep of `--train` seconds and one of `--evaluate`, an
agent thinks for `--think` seconds (exponentially distributed around it) and changes one line, all divided by `--scale`.
`busy`: share of the time from the first run to the end of the last in which the lane runs or scores something; the rest
is thinking, recording and answering.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from agent.client import Bench, Refused
from bench import standin
from runner.core.airlock import snapshot
from runner.core.base import doors
from runner.core.base.home import Home
from runner.rooms.desk.desk import Desk
from runner.rooms.desk.experiment import Loop
from runner.rooms.desk.quota import Quota, Turns

SEED = "\n".join(f"setting_{n} = 0\n" for n in range(40)).encode()


@dataclass(frozen=True)
class Slow(standin.Scripted):
    """A run that takes its time."""

    seconds: float = 0.0
    spans: list[tuple[float, float]] = field(default_factory=list)

    def run(self, *args: Any, **named: Any) -> Any:
        """As the stand-in's, after a while."""
        began = time.monotonic()
        time.sleep(self.seconds)
        found = super().run(*args, **named)
        self.spans.append((began, time.monotonic()))
        return found


def _think(bench: Bench, work: Path, seat: int, mean: float) -> None:
    drawn = random.Random(seat)  # noqa: S311 - a simulation
    number = 0
    while True:
        try:
            bench.restore()
            time.sleep(drawn.expovariate(1 / mean))
            number += 1
            line = f"setting_{drawn.randrange(40)} = {seat}{number}"
            name = line.split(" ", maxsplit=1)[0]
            lines = work.read_text().split("\n")
            work.write_text("\n".join(line if one.startswith(f"{name} ") else one for one in lines))
            bench.run_experiment(f"seat {seat}, idea {number}")
        except Refused:
            return


def night(proposers: int, experiments: int, think: float, run: float) -> dict[str, float]:
    """One night: share of it in which the lane was at work, and how many changes were rebased."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        home = Home(Path(folder) / ".glovebox")
        standin.tiny(home)
        luck = random.Random(7)  # noqa: S311
        base: Loop = standin.loop(home, "idle", SEED, lambda _, __: 2.0 - luck.random())
        base.begin()
        known = {one.name: getattr(base.stages, one.name) for one in fields(base.stages)}
        stages = Slow(**known, seconds=run)
        loop = replace(base, stages=stages)
        quota, turns, threads = Quota(experiments), Turns(proposers), list[threading.Thread]()
        for seat in range(proposers):
            own = replace(loop, seat=seat)
            work, path = home.work_of(0, seat), doors.Places(Path(folder)).desk(0, seat)
            snapshot.provide(work, os.getegid(), own.best_source())
            sock = stack.enter_context(doors.listening(path, gid=os.getegid(), mode=0o660))
            desk = Desk(own, work, quota, turns=turns)
            args = (sock, frozenset({os.geteuid()}), desk.handle)
            threading.Thread(target=doors.serve, args=args, daemon=True).start()
            agent = threading.Thread(target=_think, args=(Bench(str(path)), work, seat, think))
            agent.start()
            threads.append(agent)
        for agent in threads:
            agent.join()
        wall = max(end for _, end in stages.spans) - min(start for start, _ in stages.spans)
        rows = loop.ledger.experiments("idle")
        loop.ledger.close()
    busy = sum(end - start for start, end in stages.spans)
    rebased = sum(row.rebased is not None for row in rows)
    return {"proposers": proposers, "busy": round(busy / wall, 3), "rebased": rebased}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", type=int, default=40)
    parser.add_argument("--think", type=float, default=60.0, help="seconds an agent thinks on average")
    parser.add_argument("--run", type=float, default=240.0, help="seconds of training and scoring")
    parser.add_argument("--scale", type=float, default=60.0, help="what both are divided by")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    found = []
    for proposers in (1, 2, 3):
        found.append(night(proposers, asked.experiments, asked.think / asked.scale, asked.run / asked.scale))
        if not asked.json:
            print(json.dumps(found[-1]), flush=True)
    if asked.json:
        print(json.dumps({"think": asked.think, "run": asked.run, "scale": asked.scale, "nights": found}))


if __name__ == "__main__":
    main()
