"""What a compile cache saves: startup of a compiled seed with an empty cache and with the baseline's, alternating.

    python -m bench.warm [--rounds N] [--json]

The seed with `torch.compile` around its model is trained for a few seconds in production containers. Startup is from
the release of a container, which has imported torch by then, to the end of its first step: model, compilation, a step.
The candidate differs from the baseline that filled the cache as an agent's edits do: in a learning rate, which compiles
to the same code, and in the activation, which does not. The last line is one JSON object; ratios are cold over warm.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

from bench import loader, overhead
from runner.core.airlock import snapshot
from runner.core.artifacts import compile_cache, profiles
from runner.core.base.home import Home
from runner.core.base.launching import Cache, LaunchRequest
from runner.core.base.mountable import COMPILED_FILE, SOURCE
from runner.core.base.run_folder import new_run_id
from runner.people.host import processes
from runner.rooms.desk.reruns import Trials
from runner.rooms.desk.train_and_score import Stages

BUDGET = 3  # seconds of training
_EDITS = {
    "learning rate": ("MATRIX_LR = 0.02", "MATRIX_LR = 0.03"),
    "activation": ("F.relu(self.up(rms(x))).square()", "F.gelu(self.up(rms(x)))"),
}


def compiled() -> str:
    """The seed, its model compiled as upstream's is."""
    text = (SOURCE / "trainer" / "train.py").read_text()
    line = next(one for one in text.splitlines() if one.startswith("model = "))
    return text.replace(line, f"{line}\nmodel = torch.compile(model, dynamic=False)")


def startup(trials: Trials, text: str, work: Path) -> float:
    """Seconds from the release to the end of the first step."""

    work.write_text(text)
    stages = trials.stages
    taken = snapshot.take(work, stages.home.snapshots, 1 << 20)
    scored = stages.run(taken, stages.next_run(), seconds=300.0)
    told = scored.trained
    if not told.handed_over:
        raise SystemExit(f"nothing was handed over: see {stages.home.run(told.run)}")
    events = map(json.loads, (stages.home.run(told.run) / "telemetry.jsonl").read_text().splitlines())
    return next(float(event["seconds"]) for event in events if event["event"] == "step")


def measure(rounds: int) -> dict[str, Any]:
    """Cold and warm in turn, for the baseline itself and for each edit of it."""
    profile = profiles.Profile("upstream", 256, BUDGET, 1024, 64 * 256, 4, 20_000_000, 10_000)
    with tempfile.TemporaryDirectory() as name, mock.patch.object(loader, "PROFILE", profile):
        folder = Path(name)
        _, artifact = loader.make(folder)
        home = Home(folder / "bench")
        with processes.doors() as places, processes.launcher(home, places):
            cold = overhead.loop(home, artifact.name, places).trials()
            cache = _fill(home, cold.stages)
            stages = cold.stages
            warm = cold.under(Stages(home, stages.policies, stages.launches, stages.artifact, cache=cache), lambda b: b)
            texts = {"baseline": compiled()}
            for what, (old, new) in _EDITS.items():
                if texts["baseline"].count(old) != 1:
                    raise SystemExit(f"trainer/train.py: expected one {old!r}")
                texts[what] = texts["baseline"].replace(old, new)
            found: dict[str, Any] = {
                "cache_mb": round((home.store / cache.version / COMPILED_FILE).stat().st_size / 1e6, 1)
            }
            for what, text in texts.items():
                times: dict[str, list[float]] = {"cold": [], "warm": []}
                for _ in range(rounds):
                    for side, trials in (("cold", cold), ("warm", warm)):
                        times[side].append(startup(trials, text, folder / "train.py"))
                        print(f"{what}, {side}: {times[side][-1]:.2f} s", file=sys.stderr, flush=True)
                medians = {side: round(statistics.median(seconds), 2) for side, seconds in times.items()}
                found[what] = {**medians, "ratio": round(medians["cold"] / medians["warm"], 2)}
    return found


def _fill(home: Home, stages: Stages) -> Cache:
    request = LaunchRequest(
        role="trainer",
        run=new_run_id(),
        policy=stages.policies.digest,
        artifact=stages.artifact.predicate.version,
        keep_cache=True,
    )
    version = compile_cache.make(home, compiled().encode(), stages.launches.run, request, 300.0, BUDGET)
    return compile_cache.admit(home, version)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    found = measure(asked.rounds)
    if not asked.json:
        for what, numbers in found.items():
            print(f"{what:14} {numbers}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
