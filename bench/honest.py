"""Is anybody honest refused? The product's own launcher scores honest hand-overs again and again.

    python -m bench.honest [--evaluations N] [--burners N] [--json]

Each evaluation is a fresh container that stood by before it was released, as in a night, and audits every row. The
models are the seed and the families of the tests' zoo that are proved, untrained, at the demo's sizes. `--burners`
keeps so many processes busy meanwhile. Exit code 1 if a model was refused, or one hand-over got two scores. Figures
are in docs/causality.md.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from runner.core.airlock import score_file
from runner.core.artifacts import keys, profiles, store
from runner.core.base.home import Home
from runner.core.base.launching import LaunchRequest, Release
from runner.core.base.mountable import SOURCE
from runner.core.data import prepare
from runner.core.policy import policy_files, users
from runner.people.host import processes
from runner.rooms.desk.launch_client import Ahead, LaunchClient
from trainer import hand_over

FAMILIES = ("sdpa", "masked fill", "sliding window", "linear attention", "ssd decay", "rope complex", "causal conv",
            "gru", "dense top-2 moe", "n-gram hash", "hillis-steele scan", "value embedding")  # fmt: skip
STANDBY = 0.6  # seconds an evaluator waits before it is released


def main() -> int:
    """Score and count; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evaluations", type=int, default=100)
    parser.add_argument("--burners", type=int, default=0)
    parser.add_argument("--handed", type=Path, action="append", default=[], help="a hand-over of one's own, too")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        home = Home(folder / "bench")
        home.root.mkdir(mode=0o700)
        keys.create(home)
        version = prepare.prepare(home, profiles.shipped("demo"))
        store.admit(home, version)
        handed = models(folder) | {place.name: place for place in asked.handed}
        with burning(asked.burners), processes.doors() as places, processes.launcher(home, places):
            found = repeat(home, LaunchClient(places.launch), version, handed, asked.evaluations)
    result = {**found, "burners": asked.burners, "load": round(os.getloadavg()[0], 1)}
    if not asked.json:
        print(f"{result['evaluations']} evaluations, {len(result['refused'])} refused", file=sys.stderr)
    print(json.dumps(result))
    return 1 if found["refused"] or found["unsteady"] else 0


def models(folder: Path) -> dict[str, Path]:
    """Hand-overs by name, at 4 rows of 256 tokens and 1,024 words."""
    source = (SOURCE / "tests" / "evaluator" / "zoo.py").read_text()
    space: dict[str, Any] = {"__name__": "zoo"}
    exec(source.replace("VOCAB, SEQ, DIM, HEADS = 64, 32,", "VOCAB, SEQ, DIM, HEADS = 1024, 256,"), space)  # noqa: S102
    os.environ["GLOVEBOX_OUT"] = str(folder)
    torch.manual_seed(0)
    out = {}
    for name in FAMILIES:
        place = folder / "handed" / name.replace(" ", "-")
        place.mkdir(parents=True)
        hand_over.hand_over(space["FAMILIES"][name]().eval(), place, rows=4, seq_len=256)
        out[name] = place
    return out


@contextmanager
def burning(count: int) -> Iterator[None]:
    """Processes that compute for nothing."""
    made = [multiprocessing.Process(target=_burn, daemon=True) for _ in range(count)]
    for process in made:
        process.start()
    try:
        yield
    finally:
        for process in made:
            process.kill()


def _burn() -> None:
    while True:
        sum(range(10_000))


def repeat(home: Home, client: LaunchClient, artifact: str, handed: dict[str, Path], count: int) -> dict[str, Any]:
    """Score so often, one model after the other."""
    policies = policy_files.load(*home.policies)
    group = users.ids(policies.sandbox, policies.sandbox.trainer.uid).host_gid
    refused, seen, seconds = Counter[str](), defaultdict(set), []
    names = list(handed)
    for number in range(count):
        name = names[number % len(names)]
        run = secrets.token_hex(8)
        place = home.run(run)
        place.mkdir(parents=True, mode=0o700)
        for file in ("graph.json", "weights.safetensors"):
            shutil.copy(handed[name] / file, place / file)
            os.chown(place / file, -1, group)
            (place / file).chmod(0o660)
        request = LaunchRequest(role="evaluator", run=run, policy=policies.digest, artifact=artifact)
        ahead = Ahead(client)
        ahead.prepare(request)
        time.sleep(STANDBY)
        launch = ahead.release(request, Release(seconds=900, audit_below=64.0))
        seconds.append(launch.ended().seconds)
        client.end(launch)
        score = score_file.read(place / "score.json")
        if score is None or score.val_bpb is None:
            refused[f"{name}: {score.reason if score else 'no score'}"] += 1
            print((place / "evaluator.log").read_text()[-500:], file=sys.stderr)
        else:
            seen[name].add(score.val_bpb)
        shutil.rmtree(place)
        if number % 25 == 24:
            print(f"{number + 1} of {count}, refused {dict(refused)}", file=sys.stderr, flush=True)
    return {
        "evaluations": count,
        "refused": dict(refused),
        "unsteady": {name: sorted(found) for name, found in seen.items() if len(found) > 1},
        "models": len(seen),
        "seconds": round(sum(seconds) / len(seconds), 2),
    }


if __name__ == "__main__":
    sys.exit(main())
