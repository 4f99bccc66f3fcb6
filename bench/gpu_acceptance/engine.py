"""With an engine: the rooms as production starts them, by the launcher, on the GPU. Needs a bench with an artifact."""

from __future__ import annotations

from collections.abc import Iterator

from bench.gpu_acceptance.figures import Figure, above, holds, measured, noted
from bench.gpu_acceptance.host import SEED
from bench.gpu_acceptance.rooms import Bench
from runner.core.airlock import snapshot
from runner.core.artifacts import store
from runner.core.base.benches import find
from runner.core.base.launching import EngineResult, Lane, LaunchRequest, Release, Role
from runner.core.base.run_folder import new_run_id
from runner.core.policy import policy_files
from runner.people.host import gpu_check, processes
from runner.rooms.desk.launch_client import LaunchClient
from runner.rooms.launcher.engine import connect_engine

_BUDGET = 10  # seconds of training


def engine(bench: Bench) -> Iterator[Figure]:
    """What `doctor --gpu` says, then the seed through launcher, trainer and evaluator."""
    home = find()
    policies = policy_files.load(*home.policies)
    client = connect_engine(policies.sandbox)
    for check in gpu_check.on(bench.gpu, client, policies, home):
        yield holds(check.name, check.ok, f"{check.detail[:120]}{'' if check.ok else f' (fix: {check.fix})'}")
    artifact = store.admit(home, store.latest(home)).predicate.version
    run, taken = new_run_id(), snapshot.keep(SEED.read_bytes(), home.snapshots)

    def request(role: Role) -> LaunchRequest:
        return LaunchRequest(role=role, run=run, policy=policies.digest, artifact=artifact, lane=Lane(gpu=bench.gpu))

    most = _BUDGET + policies.decision.startup_seconds + policies.decision.hand_over_seconds
    with processes.doors() as places, processes.launcher(home, places):
        launches = LaunchClient(places.launch)
        trained = launches.run(request("trainer"), Release(seconds=most, snapshot=taken.sha256, budget=_BUDGET))
        yield from _told("trainer", trained)
        yield measured("trainer: seconds beyond the budget", trained.seconds - _BUDGET, "s")
        yield above("trainer: memory of the GPU, most", trained.peak_mb / 1024, 0.5, "GiB")
        yield holds("trainer: its GPU is on record", trained.speed is not None)
        if trained.speed is not None:
            yield noted(
                "trainer: the GPU", f"{trained.speed.name}, {trained.speed.sm_mhz} MHz {trained.speed.held_back}"
            )
        scored = launches.run(request("evaluator"), Release(seconds=policies.decision.evaluation_seconds))
        yield from _told("evaluator", scored)
        yield measured("evaluator: seconds", scored.seconds, "s")


def _told(role: str, ended: EngineResult) -> Iterator[Figure]:
    yield holds(f"{role}: ended well", ended.exit_code == 0, f"{ended.reason}, exit code {ended.exit_code}")
    yield holds(f"{role}: its container was what was asked for", bool(ended.specification), ended.specification[:12])
