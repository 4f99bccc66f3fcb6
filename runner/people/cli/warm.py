"""`glovebox warm`: compile the baseline once, so that every run after it starts faster. TRUSTED, run by a person."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runner.core.artifacts import compile_cache, store
from runner.core.base import locks
from runner.core.base.benches import find
from runner.core.base.home import Home
from runner.core.base.launching import Lane, LaunchRequest
from runner.core.base.mountable import COMPILED_FILE
from runner.core.base.run_folder import new_run_id
from runner.core.policy import policy_files
from runner.people.cli.common import Gpu, Json, say
from runner.people.cli.documents import bench
from runner.people.host import processes
from runner.people.pages import console
from runner.people.pages.progress import ShownStages
from runner.rooms.desk.launch_client import LaunchClient

TRAINED_SECONDS = 30  # of training, at most: what is not compiled by then is rare


def warm(
    train_py: Annotated[
        Path | None, typer.Option(help="A file you trust instead of the seed: what it compiles is loaded by every run.")
    ] = None,
    forget: Annotated[bool, typer.Option("--forget", help="Remove every compile cache instead.")] = False,
    gpu: Gpu = None,
    json_: Json = False,
) -> None:
    """Run the baseline briefly and sign what torch.compile made of it; new tags begin with that."""
    home = find()
    if forget:
        gone = compile_cache.forget(home)
        say(bench.Forgotten(forgotten=gone), json_, f"removed: {', '.join(gone) or 'nothing'}")
        return
    text = compile_cache.source(home, train_py)
    with locks.hold(home.runner_lock, "warm"):
        version = _make(home, text, gpu)
    size = (home.artifacts / version / COMPILED_FILE).stat().st_size
    said = f"compile cache {version} ready: tags begun from now on start with it ({size / 1e6:.1f} MB)"
    say(bench.Warmed(version=version, bytes=size), json_, said)


def _make(home: Home, text: bytes, gpu: str | None) -> str:
    policies = policy_files.load(*home.policies)
    artifact = store.admit(home, store.latest(home))
    kernels = store.latest_kernels(home)
    if kernels is not None:
        store.admit(home, kernels)
    budget = min(TRAINED_SECONDS, int(artifact.predicate.profile["time_budget_s"]))
    seconds = budget + policies.decision.startup_seconds + policies.decision.hand_over_seconds
    request = LaunchRequest(
        role="trainer",
        run=new_run_id(),
        policy=policies.digest,
        artifact=artifact.predicate.version,
        kernels=kernels,
        keep_cache=True,
        lane=Lane(gpu=gpu),
    )
    with processes.doors() as places, processes.launcher(home, places):
        launches = LaunchClient(places.launch)
        ShownStages(console.stderr()).say(f"training the baseline for {budget} s to compile it")
        return compile_cache.make(home, text, launches.run, request, seconds, budget)
