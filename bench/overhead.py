"""What the walls cost: one experiment on the bench over the same train.py as upstream runs it, alternating in one run.

    python -m bench.overhead [--budget S] [--rounds N] [--rows N] [--plain] [--json]

(a) a bare process with upstream's loader and evaluation (bench/bare.py); (b) the whole bench: snapshot, trainer
container, hand-over, evaluator container, decision, ledger, git, audit chain, report. Same file, text, tokenizer,
budget and validation rows. --plain runs (b)'s two rooms as plain processes, for machines without an engine. The last
line is one JSON object: wall_ratio and tokens_ratio are medians of ours over theirs, runner_share_s is all that is
neither room.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from bench import loader
from runner.core.artifacts import profiles, store
from runner.core.base.home import Home
from runner.core.base.mountable import SOURCE
from runner.core.evidence.audit_chain import AuditLog
from runner.core.evidence.checkpoints import Sealer
from runner.core.evidence.git_line import GitLine
from runner.core.evidence.ledger import Ledger
from runner.core.evidence.recorder import Recorder
from runner.core.policy import policy_files
from runner.people.host import processes
from runner.rooms.desk.experiment import Loop
from runner.rooms.desk.launch_client import LaunchClient
from runner.rooms.desk.memory import Memory
from runner.rooms.desk.steering import Steering
from runner.rooms.desk.train_and_score import Stages

SEED = SOURCE / "trainer" / "train.py"
THINKING = 6.0  # seconds between two experiments, as an agent needs to think of one: the next trainer starts meanwhile
Times = dict[str, float]


def bare(artifact: Path, shards: Path) -> Times:
    """Seconds of one run as upstream makes it."""
    began = time.monotonic()
    command = [sys.executable, "-m", "bench.bare", str(artifact), str(shards), str(SEED)]
    done = subprocess.run(command, cwd=SOURCE, capture_output=True, text=True, check=True)
    wall = time.monotonic() - began
    told = json.loads(done.stdout.splitlines()[-1])
    return {"wall": wall, "tokens": told["tokens_per_second"], "training": told["training"]}


def contained(loop: Loop, work: Path) -> Times:
    """Seconds of one experiment on the bench, by part."""
    work.write_bytes(SEED.read_bytes())
    loop.stages.prepare()
    time.sleep(THINKING)
    began = time.monotonic()
    loop.experiment(work, "overhead")
    wall = time.monotonic() - began
    row = loop.ledger.experiments(loop.tag)[-1]
    if row.val_bpb is None:
        raise SystemExit(f"no score: {row.status} {row.reason}")
    training = row.summary["training_seconds"]
    return {
        "wall": wall,
        "tokens": row.summary["total_tokens_M"] * 1e6 / training,
        "training": training,
        "trainer": row.train_seconds,
        "evaluator": row.eval_seconds,
        "runner": wall - row.train_seconds - row.eval_seconds,
    }


def plain(artifact: Path, folder: Path, settings: str) -> Times:
    """The two rooms as processes of this machine."""
    environment = {
        **os.environ,
        "GLOVEBOX_ARTIFACTS": str(artifact),
        "GLOVEBOX_OUT": str(folder),
        "GLOVEBOX_HANDED": str(folder),
        "GLOVEBOX_TRAIN_PY": str(SEED),
        "PYTHONPATH": str(SOURCE),
    }
    (folder / "telemetry.jsonl").write_bytes(b"")
    seconds = []
    for room in (["trainer.entry"], ["trainer.evaluator", settings]):
        began = time.monotonic()
        subprocess.run([sys.executable, "-m", *room], env=environment, cwd=folder, capture_output=True, check=True)
        seconds.append(time.monotonic() - began)
    events = [json.loads(line) for line in (folder / "telemetry.jsonl").read_text().splitlines()]
    told = {event["name"]: event["value"] for event in events if event.get("event") == "summary"}
    training = told["training_seconds"]
    tokens = told["total_tokens_M"] * 1e6 / training
    parts = {"trainer": seconds[0], "evaluator": seconds[1], "runner": 0.0}
    return {"wall": sum(seconds), "tokens": tokens, "training": training, **parts}


def alternate(rounds: int, theirs: Callable[[], Times], ours: Callable[[], Times]) -> tuple[list[Times], list[Times]]:
    """Both, in turn; one unmeasured round first, so that files are in memory for both."""
    theirs(), ours()
    found: tuple[list[Times], list[Times]] = ([], [])
    for number in range(rounds):
        for side, run in ((0, theirs), (1, ours)) if number % 2 == 0 else ((1, ours), (0, theirs)):
            found[side].append(run())
            print(f"{('upstream', 'glovebox')[side]}: {_said(found[side][-1])}", file=sys.stderr, flush=True)
    return found


def _said(times: Times) -> str:
    words = {name: f"{name} {value:.2f}" for name, value in times.items()}
    return ", ".join((words | {"tokens": f"{times['tokens']:.0f} tokens/s"}).values())


def loop(home: Home, artifact: str, places: Any, **decision: Any) -> Loop:
    """A bench with rule upstream: no reruns, one run against one run."""
    policies = policy_files.load(SOURCE / "policies")
    upstream = policies.decision.model_copy(update={"rule": "upstream", **decision})
    policies = policies.model_copy(update={"decision": upstream})
    ledger = Ledger(home.ledger)
    ledger.begin_run("overhead", "2026-01-01T00:00:00+00:00", artifact, policies.digest)
    line, chain, sealer = GitLine(home.line), AuditLog(home.audit), Sealer(home, "")
    recorder = Recorder(home, "overhead", ledger, line, chain, artifact, policies.digest, sealer)
    stages = Stages(home, policies, LaunchClient(places.launch), store.admit(home, artifact))
    memory, steering = Memory(home, policies, ledger, "overhead"), Steering(recorder, _silent)
    return Loop("overhead", stages, recorder, _silent, SEED.read_bytes(), memory, steering)


def _silent(*_: object) -> None:
    """Nobody watches."""


def summary(theirs: list[Times], ours: list[Times]) -> dict[str, Any]:
    """Medians, and ratios of medians."""
    a = {name: statistics.median(times[name] for times in theirs) for name in theirs[0]}
    b = {name: statistics.median(times[name] for times in ours) for name in ours[0]}
    return {
        "wall_ratio": round(b["wall"] / a["wall"], 3),
        "tokens_ratio": round(b["tokens"] / a["tokens"], 3),
        "runner_share_s": round(b["runner"], 3),
        "upstream": {name: round(value, 2) for name, value in a.items()},
        "glovebox": {name: round(value, 2) for name, value in b.items()},
        "rounds": len(ours),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=int, default=20, help="seconds of training")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=512, help="validation rows of 257 tokens")
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    profile = profiles.Profile("upstream", 256, asked.budget, 1024, 256 * asked.rows, 4, 20_000_000, 10_000)
    with tempfile.TemporaryDirectory() as name, mock.patch.object(loader, "PROFILE", profile):
        folder = Path(name)
        shards, artifact = loader.make(folder)
        if asked.plain:
            out = folder / "out"
            out.mkdir()
            settings = policy_files.load(SOURCE / "policies").evaluator.model_dump_json()
            found = alternate(asked.rounds, lambda: bare(artifact, shards), lambda: plain(artifact, out, settings))
        else:
            home = Home(folder / "bench")
            with processes.doors() as places, processes.launcher(home, places):
                bench, work = loop(home, artifact.name, places), folder / "train.py"
                bench.begin()
                found = alternate(asked.rounds, lambda: bare(artifact, shards), lambda: contained(bench, work))
    result = summary(*found) | {"budget": asked.budget, "rows": asked.rows, "plain": asked.plain}
    if not asked.json:
        for side in ("upstream", "glovebox"):
            print(f"{side:9} {_said(result[side])}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
