"""What freezing adds to an answer: one session in which every second experiment is made without it.

    python -m bench.freezing_answers [--experiments N] [--json]

A real agent in its container asks, a real launcher freezes it, and the real desk reads, records and answers; only the
training is left out, so that milliseconds can be seen. `added_ms`: median time of a run_experiment with freezing less
that without, as the agent sees both. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from bench import soak
from runner.core.base.home import Home
from runner.core.base.values import Scored, Snapshot
from runner.people.host import processes
from runner.rooms.desk import session
from runner.rooms.desk.launch_client import LaunchClient
from runner.rooms.desk.settings import Settings
from runner.rooms.desk.train_and_score import Stages

_AGENT = (
    "import time\nfrom agent.client import Bench\nbench = Bench(patience=30)\nsource = open('/work/train.py').read()\n"
    "for n in range({count}):\n    open('/work/train.py', 'w').write(source + '\\n# %d\\n' % n)\n"
    "    began = time.perf_counter()\n    bench.run_experiment('change %d' % n)\n"
    "    print('took', n, 1000 * (time.perf_counter() - began), flush=True)\n    time.sleep(0.05)\n"
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", type=int, default=120)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        home, count = soak.home_of(Path(name)), asked.experiments
        document = json.dumps(["python", "-c", _AGENT.format(count=count)])
        own = home.root / "policies" / "agent.yaml"
        lines = [
            f"command: {document}" if line.startswith("command:") else line for line in own.read_text().split("\n")
        ]
        own.write_text("\n".join(lines))
        _session(home, soak.seed(Path(name)), count + 1)
        took: dict[bool, list[float]] = {True: [], False: []}
        for log in (home.root / "runs").glob("*/agent.log"):
            for line in log.read_text().splitlines():
                if line.startswith("took "):
                    _, number, milliseconds = line.split()
                    took[int(number) % 2 == 0].append(float(milliseconds))
    without, frozen = (statistics.median(took[side]) for side in (False, True))
    result = {"without_ms": round(without, 1), "added_ms": round(frozen - without, 1), "experiments": count}
    print(json.dumps(result))


def _session(home: Home, seed: Path, count: int) -> None:
    first: list[Scored] = []
    train, freezing, turn = Stages.run, LaunchClient.freezing, itertools.count()

    def run(stages: Stages, taken: Snapshot, run: str, **terms: Any) -> Scored:
        """The baseline is trained; every candidate crashes at once."""
        if not first:
            first.append(train(stages, taken, run, **terms))
            return first[0]
        trained = first[0].trained
        failed = trained.engine.model_copy(update={"exit_code": 1})
        changed = {"snapshot": taken, "run": run, "engine": failed, "handed_over": False}
        return first[0].model_copy(update={"trained": trained.model_copy(update=changed), "score": None})

    @contextlib.contextmanager
    def every_second(launches: LaunchClient, lane: int) -> Iterator[Callable[[], None]]:
        with freezing(launches, lane) if next(turn) % 2 == 0 else contextlib.nullcontext(lambda: None) as frozen:
            yield frozen

    with (
        processes.doors() as places,
        processes.launcher(home, places),
        mock.patch.object(Stages, "run", run),
        mock.patch.object(Stages, "prepare", return_value=None),
        mock.patch.object(LaunchClient, "freezing", every_second),
    ):
        places.llm.parent.mkdir(exist_ok=True)  # the agent needs no model, but a place for its socket
        settings = Settings(
            home=str(home.root), doors=str(places.root), tag="t", seed=str(seed), agent="command", max_experiments=count
        )
        told: list[Any] = []
        if code := session.run(settings, lambda *event: told.append(event)):
            raise SystemExit(f"the session ended with {code}: {told[-1:]}")


if __name__ == "__main__":
    main()
