"""The runner process: owns one tag, serves one agent or runs one given train.py. TRUSTED.

    python -m runner.session SETTINGS_JSON

Has no container engine, no key for the model API and needs no network. Events go to stdout as JSON lines
for the supervisor; SIGTERM ends the running experiment and closes its row as interrupted.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runner import doors, owner, policy, report, snapshot
from runner.artifacts import store
from runner.audit import AuditLog
from runner.desk import Desk
from runner.errors import BusyError, GloveboxError, PolicyError
from runner.gitline import GitLine
from runner.home import Home
from runner.launching import LaunchClient
from runner.ledger import Ledger
from runner.loop import Loop, new_run_id
from runner.recording import Recorder, now
from runner.records import EndReason, EngineResult, Frozen, LaunchRequest, Tag

LONGEST_EXPERIMENT = 86_400.0  # seconds; each container has its own, much shorter limit
_AGENT_GRACE = 15.0  # seconds the agent gets to leave once it was told it is done


class Settings(Frozen):
    """What the supervisor asks of this process."""

    home: str
    tag: Tag
    launch_door: str
    bench_door: str
    seed: str  # train.py to begin a new tag with
    train_py: str | None = None  # run just this file, without an agent
    description: str = ""
    max_experiments: int | None = None
    artifact: str | None = None
    gpu: str | None = None


def emit(event: str, data: dict[str, Any]) -> None:
    """One event line for the supervisor; in one write, since several threads speak."""
    sys.stdout.write(json.dumps({"event": event, **data}) + "\n")
    sys.stdout.flush()


@contextmanager
def lock(home: Home, tag: str) -> Iterator[None]:
    """Hold the bench and the tag; raises BusyError if another runner does."""
    folder = home.tag(tag)
    folder.mkdir(parents=True, exist_ok=True)
    path = home.root / "runner.lock"
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read(200).strip()
            raise BusyError(f"already running: {holder}", where=str(path), fix="wait, or run: glovebox stop") from None
        file.truncate(0)
        file.write(f"tag {tag} pid {os.getpid()}\n")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def main(argv: list[str]) -> int:
    """Run the session; returns the exit code."""
    settings = Settings.model_validate_json(argv[1])
    home = Home(Path(settings.home))
    try:
        with lock(home, settings.tag):
            return _session(settings, home)
    except GloveboxError as error:
        emit("failed", {"code": error.exit_code, "error": str(error)})
        return error.exit_code


def _session(settings: Settings, home: Home) -> int:
    ledger = Ledger(home.ledger)
    loop = _loop(settings, home, ledger)
    stopping = threading.Event()

    def stop(*_: object) -> None:
        stopping.set()
        loop.launches.cancel_all()

    signal.signal(signal.SIGTERM, stop)
    try:
        loop.recorder.reconcile()
        if settings.train_py is not None:
            return _single(loop, settings)
        return _with_agent(loop, settings, stopping)
    except GloveboxError:
        if not stopping.is_set():
            raise
        emit("stopped", {})
        return 0
    finally:
        loop.launches.cancel_all()
        loop.recorder.close_interrupted()
        ledger.close()


def _loop(settings: Settings, home: Home, ledger: Ledger) -> Loop:
    """Everything an experiment needs, under the terms the tag was begun with; raises GloveboxError."""
    policies = policy.load(home.policies)
    recorded = ledger.recorded(settings.tag)
    statement = store.admit(home, settings.artifact or (recorded["artifact"] if recorded else store.latest(home)))
    version = statement.predicate.version
    if recorded is not None:
        _same_terms(recorded, version, policies.digest, settings.tag)
    ledger.begin_run(settings.tag, now(), version, policies.digest)
    line, audit_log = GitLine(home.line), AuditLog(home.audit)
    return Loop(
        home=home,
        tag=settings.tag,
        policies=policies,
        recorder=Recorder(home, settings.tag, ledger, line, audit_log, version, policies.digest),
        launches=LaunchClient(Path(settings.launch_door)),
        artifact=statement,
        emit=emit,
        after=lambda: report.write(home, ledger, settings.tag),
        gpu=settings.gpu,
    )


def _same_terms(recorded: dict[str, str], artifact: str, digest: str, tag: str) -> None:
    """Scores of one tag are compared with each other, so they must be taken under the same terms."""
    for what, found in (("artifact", artifact), ("policy", digest)):
        if recorded[what] != found:
            raise PolicyError(
                f"tag {tag} was begun with {what} {recorded[what][:16]}, now it is {found[:16]}",
                where="ledger",
                fix=f"use a new --tag, or restore that {what}",
            )


def _single(loop: Loop, settings: Settings) -> int:
    source = Path(settings.train_py or "")
    work = loop.home.run(new_run_id()) / "train.py"
    work.parent.mkdir(parents=True, mode=0o700)
    taken = snapshot.take(source, loop.home.snapshots, loop.policies.agent.train_py_bytes)
    work.write_bytes(taken.path.read_bytes())  # a copy: the person's file is not restored on discard
    feedback = loop.experiment(work, settings.description)
    row = loop.ledger.experiments(loop.tag)[-1]
    emit("answer", {"feedback": feedback.model_dump(mode="json"), "row": row.model_dump(mode="json")})
    return 0


def _with_agent(loop: Loop, settings: Settings, stopping: threading.Event) -> int:
    limits = loop.policies.sandbox.agent
    run, group = new_run_id(), owner.container_group(limits.uid)
    train_py = loop.home.run(run) / "train.py"
    train_py.parent.mkdir(parents=True, mode=0o700)
    head = loop.line.head(loop.tag)
    begin = loop.line.content(head) if head else Path(settings.seed).read_bytes()
    snapshot.provision(train_py, begin, group)
    desk = Desk(loop, train_py, settings.max_experiments)
    with doors.listening(Path(settings.bench_door), gid=group, mode=0o660) as sock:
        uids = frozenset({limits.uid})
        threading.Thread(target=doors.serve, args=(sock, uids, desk.handle), daemon=True).start()
        request = LaunchRequest(
            role="agent", run=run, policy=loop.policies.digest, seconds=loop.policies.agent.session_seconds
        )
        launch = loop.launches.start(request)
        emit("agent_started", {"experiments": settings.max_experiments})
        ended: list[Any] = []
        waiter = threading.Thread(target=lambda: ended.append(_end_of(launch)), daemon=True)
        waiter.start()
        _wait(waiter, desk, stopping)
        desk.settle(0 if stopping.is_set() else LONGEST_EXPERIMENT)  # one that runs may end, even if its agent left
        loop.launches.cancel_all()
        waiter.join(30)
        desk.settle(20)
    if desk.failure is not None and not stopping.is_set():
        raise desk.failure
    result = ended[0] if ended else None
    left_early = isinstance(result, EngineResult) and result.reason is EndReason.EXIT and result.exit_code != 0
    log = str(train_py.parent / "agent.log")
    emit("agent_ended", {"failed": left_early, "log": log})
    return 1 if left_early else 0


def _end_of(launch: Any) -> Any:
    try:
        return launch.ended()
    except GloveboxError as error:
        return error


def _wait(agent: threading.Thread, desk: Desk, stopping: threading.Event) -> None:
    """Until the agent left, the experiments are used up (plus a grace), or a stop was asked for."""
    while agent.is_alive() and not stopping.is_set() and not desk.finished.is_set():
        agent.join(0.2)
    leave = time.monotonic() + _AGENT_GRACE
    while agent.is_alive() and not stopping.is_set() and time.monotonic() < leave and desk.failure is None:
        agent.join(0.1)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
