"""A session of the desk: owns one tag, serves its agents or runs one given train.py. TRUSTED.

Has no container engine, no key for the model API and needs no network. SIGTERM ends the running experiment and closes
its row as interrupted, SIGUSR1 lets it end first.
"""

from __future__ import annotations

import signal
import sqlite3
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from runner.core.airlock import leak_budget, snapshot
from runner.core.artifacts import begun, compile_cache, store
from runner.core.base import doors, files, locks
from runner.core.base.errors import GloveboxError, PolicyError
from runner.core.base.home import Home
from runner.core.base.launching import Cache
from runner.core.base.run_folder import new_run_id
from runner.core.decision import standing
from runner.core.evidence import disk_reserve
from runner.core.evidence.audit_chain import AuditLog
from runner.core.evidence.checkpoints import Sealer
from runner.core.evidence.git_line import GitLine
from runner.core.evidence.ledger import Ledger, Origin
from runner.core.evidence.recorder import Recorder, now
from runner.core.policy import policy_files
from runner.rooms.desk import pruning, requested_reruns
from runner.rooms.desk.attending import Ending, attend
from runner.rooms.desk.experiment import BASELINE, Loop
from runner.rooms.desk.launch_client import LaunchClient
from runner.rooms.desk.memory import Memory
from runner.rooms.desk.settings import Order, Prune, Settings
from runner.rooms.desk.steering import Steering
from runner.rooms.desk.train_and_score import Emit, Stages


def run(settings: Settings, emit: Emit) -> int:
    """Hold the bench and work until told to stop or done; returns the exit code."""
    home = Home(Path(settings.home))
    home.tag(settings.tag).mkdir(parents=True, exist_ok=True)
    stopping, finishing = threading.Event(), threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())  # from the first moment: a stop is never lost
    signal.signal(signal.SIGUSR1, lambda *_: finishing.set())
    try:
        with locks.hold(home.runner_lock, f"tag {settings.tag}"):
            return _session(settings, home, emit, Ending(stopping, finishing))
    except GloveboxError as error:
        emit("failed", {"code": error.exit_code, "error": str(error)})
        return error.exit_code
    except (OSError, sqlite3.Error) as error:
        told = GloveboxError(f"disk or ledger failed: {error}", where=settings.home, fix="check disk and permissions")
        emit("failed", {"code": told.exit_code, "error": str(told)})
        return told.exit_code


def _session(settings: Settings, home: Home, emit: Emit, ending: Ending) -> int:
    line = GitLine(home.line)  # a ledger never is without one
    ledger = Ledger(home.ledger)
    loops = _loops(settings, home, ledger, line, emit)
    recorder, stopping = loops[0].recorder, ending.now

    def stop(*_: object) -> None:
        stopping.set()
        for loop in loops:
            loop.launches.cancel_all()

    signal.signal(signal.SIGTERM, stop)
    reconciled = False
    try:
        disk_reserve.hold(home)
        for number in recorder.reconcile():
            emit("lost", {"experiment": number})
        reconciled = True
        if stopping.is_set():
            emit("stopped", {})
            return 0
        for loop in loops:
            loop.stages.check()
        _lasts(loops[0], emit)
        return _work(loops, settings, ending)()
    except GloveboxError:
        if not stopping.is_set():
            raise
        emit("stopped", {})
        return 0
    finally:
        for loop in loops:
            loop.launches.cancel_all()
        if reconciled:  # a record that could not be made whole is not added to
            recorder.close_interrupted()
        ledger.close()


def _lasts(loop: Loop, emit: Emit) -> None:
    """Say at the start whether all experiments that are asked for can be told."""
    told, planned = loop.memory.told(), loop.memory.planned
    wanted = 0 if planned is None else planned - len(told.rows)
    if wanted > told.left:
        emit("leak_short", {"room": told.left, "wanted": wanted})


def _work(loops: list[Loop], settings: Settings, ending: Ending) -> Callable[[], int]:
    loop = loops[0]
    if settings.prune is not None:
        pruning.check(loop)  # before a night, not at its end
    if settings.train_py is not None:
        return lambda: _single(loop, settings)
    if settings.order is not None:
        order = settings.order
        return lambda: _reruns(loop, order, ending.after)
    if settings.prune is not None and settings.until is None:
        prune = settings.prune
        return lambda: _pruned(loop, prune, ending.after.is_set, "answer")
    places = doors.Places(Path(settings.doors))
    most = settings.max_experiments
    if settings.until is not None:
        done = [row for row in loop.ledger.experiments(settings.tag) if row.counts]
        most = max(0, settings.until - len(done))
    return lambda: _attended(loops, places, settings, most, ending)


def _attended(loops: list[Loop], places: doors.Places, settings: Settings, most: int | None, ending: Ending) -> int:
    """Serve agents; when the tag has all its experiments, measure what it gained, on runs set apart."""
    code, loop = attend(loops, places, settings.agent, most, settings.meter, ending), loops[0]
    done = sum(row.counts for row in loop.ledger.experiments(settings.tag))
    if code or settings.until is None or done < settings.until or loop.policies.decision.rule != "odds":
        return code
    over = [ending.now, ending.after]
    if settings.prune is not None:  # before the gain is measured: it is the best of the end that is
        _pruned(loop, settings.prune, lambda: any(one.is_set() for one in over), "pruned")
    found = requested_reruns.carry_out(loop, Order(), lambda: any(one.is_set() for one in over))
    loop.emit("measured", {"transfers": [one.model_dump(mode="json") for one in found]})
    return code


def _pruned(loop: Loop, order: Prune, enough: Callable[[], bool], event: str) -> int:
    """Asked for by name (`answer`) it is done also where nothing ran since the last time."""
    found = pruning.carry_out(loop, order, enough, again=event == "answer")
    if found is not None:
        loop.emit(event, {"pruned": found.model_dump(mode="json")})
    return 0


def _loops(settings: Settings, home: Home, ledger: Ledger, line: GitLine, emit: Emit) -> list[Loop]:
    """Everything experiments need, on each lane, under the terms the tag was begun with; raises GloveboxError."""
    policies = policy_files.load(*home.policies)
    leak_budget.check(policies)
    recorded = ledger.recorded(settings.tag)
    statement = store.admit(home, settings.artifact or (recorded["artifact"] if recorded else store.latest(home)))
    version = statement.predicate.version
    kernels = store.latest_kernels(home)
    if kernels is not None:
        store.admit(home, kernels)
    if recorded is not None:
        policies = begun.under_or_now(home, recorded["policy"])
    cache = _cache(home, policies, kernels, recorded)
    terms = policy_files.terms(policies, kernels, cache.version if cache else None)
    if recorded is not None:
        _same_terms(recorded, version, terms, settings.tag)
    origin = _origin(settings, ledger, new=recorded is None)
    sealer = Sealer(home, policies.audit.witness)
    chain = AuditLog(home.audit)
    recorder = Recorder(home, settings.tag, ledger, line, chain, version, policies.digest, sealer)
    recorder.begin(now(), terms, origin)
    door = doors.Places(Path(settings.doors)).launch
    memory = Memory(home, policies, ledger, settings.tag, _planned(settings, ledger))
    steering = Steering(recorder, emit)
    seats = policies.agent.proposers if settings.agent is not None else 1
    return [
        Loop(
            tag=settings.tag,
            stages=stages,
            recorder=recorder,
            emit=emit if len(settings.lanes) == 1 else partial(_from_lane, emit, lane.number),
            seed=Path(settings.seed).read_bytes() if origin is None else _best_of(origin, ledger, line),
            memory=memory,
            steering=steering,
            lanes=len(settings.lanes),
            seat=seat,
        )
        for lane in settings.lanes
        for stages in [Stages(home, policies, LaunchClient(door), statement, lane, kernels, cache, seats)]
        for seat in range(seats)
    ]


def _origin(settings: Settings, ledger: Ledger, *, new: bool) -> Origin | None:
    """Whose best the tag begins with; raises PolicyError if that is not what it was begun with."""
    begun, wanted = None if new else ledger.origin(settings.tag), settings.from_tag
    if wanted is None:
        return begun
    if not new:
        if begun is None or begun.begun_from != wanted:
            what = f"tag {settings.tag} was not begun with the best of {wanted}"
            raise PolicyError(what, where="--from-tag", fix="use a new --tag, or leave --from-tag out")
        return begun
    best = standing.best(ledger.experiments(wanted)) if wanted in ledger.tags() else None
    if best is None:
        known = ", ".join(ledger.tags()[:10]) or "none"
        raise PolicyError(f"nothing was kept in tag {wanted}", where="--from-tag", fix=f"name another; tags: {known}")
    return Origin(begun_from=wanted, experiment=best.id)


def _best_of(origin: Origin, ledger: Ledger, line: GitLine) -> bytes:
    row = next((row for row in ledger.experiments(origin.begun_from) if row.id == origin.experiment), None)
    if row is None:
        what = f"experiment {origin.experiment} of {origin.begun_from} is not there any more"
        raise GloveboxError(what, where="ledger", fix="restore it from a backup")
    return line.content(row.commit)


def _planned(settings: Settings, ledger: Ledger) -> int | None:
    """Experiments the tag is to have in all, None if nobody said."""
    if settings.until is not None:
        return settings.until + (settings.prune.runs if settings.prune is not None else 0)
    if settings.max_experiments is None:
        return None
    return len(ledger.experiments(settings.tag)) + settings.max_experiments


def _from_lane(emit: Emit, lane: int, event: str, data: dict[str, Any]) -> None:
    emit(event, {**data, "lane": lane})


def _cache(
    home: Home, policies: policy_files.Policies, kernels: str | None, recorded: dict[str, str] | None
) -> Cache | None:
    """The compile cache of a tag: the one it was begun with; for a new one the newest."""
    known = store.caches(home)
    chosen = next(iter(known), None)
    if recorded is not None:
        same = (one for one in (*known, None) if policy_files.terms(policies, kernels, one) == recorded["policy"])
        chosen = next(same, chosen)
    return None if chosen is None else compile_cache.admit(home, chosen)


def _same_terms(recorded: dict[str, str], artifact: str, terms: str, tag: str) -> None:
    """Scores of one tag are compared with each other, so they must be taken under the same terms."""
    for what, found in (("artifact", artifact), ("policy", terms)):  # policies and kernels
        if recorded[what] != found:
            raise PolicyError(
                f"tag {tag} was begun with {what} {recorded[what][:16]}, now it is {found[:16]}",
                where="ledger",
                fix=f"use a new --tag, or restore that {what}"
                + (", kernels and compile cache" if what == "policy" else ""),
            )


def _reruns(loop: Loop, order: Order, after: threading.Event) -> int:
    found = requested_reruns.carry_out(loop, order, after.is_set)
    loop.emit("answer", {"transfers": [one.model_dump(mode="json") for one in found], "stopped": after.is_set()})
    return 0


def _single(loop: Loop, settings: Settings) -> int:
    source = Path(settings.train_py or "")
    work = loop.home.run(new_run_id()) / "train.py"
    work.parent.mkdir(parents=True, mode=0o700)
    taken = snapshot.take(source, loop.home.snapshots, loop.policies.agent.train_py_bytes)
    data = taken.path.read_bytes()
    files.write(work, data)  # a copy: the person's file is not restored on discard
    begun = loop.begin(settings.description if data == loop.seed else BASELINE)
    feedback = begun if begun and data == loop.seed else loop.experiment(work, settings.description)
    row = loop.ledger.experiments(loop.tag)[-1]
    loop.emit("answer", {"feedback": feedback.model_dump(mode="json"), "row": row.model_dump(mode="json")})
    return 0
