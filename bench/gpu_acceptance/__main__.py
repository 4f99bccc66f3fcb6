"""Runs the steps and prints what they found; see the package."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

import bench.gpu_acceptance as package
from bench.gpu_acceptance import engine, host, upstream
from bench.gpu_acceptance.figures import Figure, explain, holds, line, told
from bench.gpu_acceptance.rooms import Bench, RoomFailed
from runner.core.artifacts import store
from runner.core.base import gpus
from runner.core.base.benches import find
from runner.core.base.errors import GloveboxError
from runner.core.base.mountable import SOURCE

Step = Callable[[Bench], Iterator[Figure]]


def _inside(name: str, bench: Bench) -> Iterator[Figure]:
    """A step that computes on the GPU, in a process of its own."""
    asked = json.dumps({"work": str(bench.work)})
    command = [sys.executable, "-m", "bench.gpu_acceptance.inside", name, asked]
    environment = bench.environment(bench.folder(name))
    done = subprocess.run(command, cwd=SOURCE, env=environment, capture_output=True, text=True, check=False)
    yield from told(done.stdout)
    if done.stderr and done.returncode:
        explain(done.stderr[-3000:])
    elif done.stderr:
        explain("\n".join(row for row in done.stderr.splitlines() if row.startswith(f"{name}:")))
    if done.returncode:
        yield holds("ended well", ok=False, said=f"exit code {done.returncode}")


STEPS: dict[str, Step] = {
    "probe": host.probe,
    "standby": host.standby,
    "attention": partial(_inside, "attention"),
    "nats": partial(_inside, "nats"),
    "zoo": partial(_inside, "zoo"),
    "constructs": partial(_inside, "constructs"),
    "compile": host.compile,
    "fits": host.fits,
    "watch": host.watch,
    "leave": host.leave,
    "upstream": upstream.upstream,
    "seed": upstream.seed,
    "engine": engine.engine,
}
WITHOUT_ENGINE = [name for name in STEPS if name != "engine"]


def main() -> int:
    """All steps, or those that are named; 1 if a figure misses its limit or a step fails."""
    asked = _arguments()
    card = gpus.card(asked.gpu) if asked.gpu else next(iter(gpus.cards()), None)
    if card is None:
        explain("no GPU: nvidia-smi -L names none")
        return 1
    found: dict[str, list[Figure]] = {}
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as work:
        bench = Bench(_artifact(asked.artifact), Path(work), card.uuid, asked.upstream, asked.budget)
        for name in asked.steps.split(",") if asked.steps else list(STEPS) if asked.engine else WITHOUT_ENGINE:
            found[name] = list(_step(name, bench, asked.json))
            if asked.keep:
                _keep(bench, asked.keep)
    whole = {name: [asdict(figure) for figure in figures] for name, figures in found.items()}
    failed = [f"{name}: {f.name}" for name, figures in found.items() for f in figures if f.ok is False]
    told = {"card": card.name, "seconds": round(time.monotonic() - began), "failed": failed, "steps": whole}
    print(json.dumps(told))
    return 1 if failed else 0


def _step(name: str, bench: Bench, quiet: bool) -> Iterator[Figure]:
    began = time.monotonic()
    try:
        for figure in STEPS[name](bench):
            if not quiet:
                print(line(name, figure), flush=True)
            yield figure
    except (RoomFailed, GloveboxError, OSError, KeyError, ValueError, subprocess.SubprocessError) as error:
        figure = holds("ran to its end", ok=False, said=f"{type(error).__name__}: {error}"[:4000])
        print(line(name, figure), flush=True)
        yield figure
    explain(f"{name}: {time.monotonic() - began:.0f} s")


def _artifact(given: Path | None) -> Path:
    if given is not None:
        return given
    home = find()
    return home.store / str(store.admit(home, store.latest(home)).predicate.version)


def _keep(bench: Bench, folder: Path) -> None:
    """Logs and small results, for people."""
    for path in bench.work.rglob("*"):
        if path.is_file() and (path.suffix == ".log" or path.name in ("telemetry.jsonl", "score.json", "theirs.json")):
            target = folder / f"{path.parent.name}-{path.name}"
            target.write_bytes(path.read_bytes()[-200_000:])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=package.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", help="UUID; default: the first")
    parser.add_argument("--artifact", type=Path, help="an unpacked artifact; default: the bench's newest")
    parser.add_argument("--upstream", type=Path, help="karpathy/autoresearch's train.py")
    parser.add_argument("--budget", type=int, default=60, help="seconds of training of upstream and seed")
    parser.add_argument("--steps", default="", help=f"some of {','.join(STEPS)}")
    parser.add_argument(
        "--engine", action="store_true", help="production containers too; needs a bench (glovebox init)"
    )
    parser.add_argument("--keep", type=Path, help="a folder for logs")
    parser.add_argument("--json", action="store_true", help="nothing but the JSON object")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
