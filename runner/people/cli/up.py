"""`glovebox up` and `stop`: an unattended run, started again should something fail, and its end. TRUSTED."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from runner.core.base import locks
from runner.core.base.benches import find
from runner.core.base.errors import BusyError, GloveboxError
from runner.core.base.home import Home
from runner.core.evidence import ledger
from runner.people.cli.common import Json, Tell, ended, interruptible, notifying, say
from runner.people.cli.documents import record
from runner.people.cli.lanes import CoreSets, Gpus, lanes_of
from runner.people.cli.session import (
    AGENTS,
    Experiments,
    FromTag,
    KeyFile,
    PruneRuns,
    failed,
    follow,
    pruned_after,
    secret_of,
    settings_of,
)
from runner.people.cli.status import show
from runner.people.host.restarts import Restarts
from runner.people.pages import console

_BEGINS = 15.0  # seconds in which a session that is being started holds its lock


def up(
    tag: Annotated[str, typer.Option(help="Name of the run: lower case letters, digits, . _ -")],
    agent: Annotated[str, typer.Option(help=f"Who proposes: {', '.join(AGENTS)}.")] = "claude",
    experiments: Experiments = None,
    prune: PruneRuns = None,
    artifact: Annotated[str | None, typer.Option(help="Artifact version; default: the newest.")] = None,
    from_tag: FromTag = None,
    gpu: Gpus = None,
    cores: CoreSets = None,
    key_file: KeyFile = None,
    json_: Json = False,
) -> None:
    """Run unattended: runner, launcher and broker as host processes, started again should one of them die."""
    home = find()
    settings = settings_of(home, tag, agent, artifact, lanes_of(gpu, cores), from_tag)
    settings |= {"until": experiments} | pruned_after(prune, experiments)
    tag = settings["tag"]  # a person's name for it, perhaps
    secret = secret_of(home, agent, key_file)
    after = threading.Event()
    signal.signal(signal.SIGUSR1, lambda *_: after.set())  # before the lock names us: a stop is never lost
    with locks.hold(home.up_lock, f"up, tag {tag}"), notifying(home, tag) as told:
        try:
            code = _keep_up(home, settings, secret, told, after)
        except KeyboardInterrupt:  # between two sessions
            code = 130
        told(ended(code))
    failed(code, "", json_)
    if code == 0:
        show(home, tag, json_)
    raise typer.Exit(code)


def _keep_up(home: Home, settings: dict[str, Any], secret: Path | None, told: Tell, after: threading.Event) -> int:
    """Run sessions until one ends for good or nothing comes of them any more; returns the exit code."""
    interruptible()
    restarts, tag, err = Restarts(), str(settings["tag"]), console.stderr()
    while True:
        before = _recorded(home, tag)
        try:
            _, code, worked, _ = follow(settings, home, secret, told)
            pause = restarts.session(code, worked=worked, recorded=_recorded(home, tag) > before)
        except (GloveboxError, OSError) as error:
            problem = error if isinstance(error, GloveboxError) else GloveboxError(f"could not be started: {error}")
            err.print(f"glovebox: {problem}", markup=False)
            code = problem.exit_code
            pause = restarts.not_started(code)
        if after.is_set():
            return 130 if code == 130 else 0  # as asked for, however the last experiment ended
        if pause is None:
            return code
        err.print(f"started again in {pause:.0f} s", markup=False)
        if after.wait(pause):
            return 0


def _recorded(home: Home, tag: str) -> int:
    """Experiments that came to an end of their own."""
    if not home.ledger.exists():
        return 0
    book = ledger.Ledger(home.ledger, read_only=True)
    try:
        return sum(row.counts for row in book.experiments(tag))
    finally:
        book.close()


def stop(
    after: Annotated[
        bool, typer.Option("--after", help="Let the experiment in progress end first; returns at once.")
    ] = False,
    json_: Json = False,
) -> None:
    """Stop the run in progress: its experiment is ended and recorded as interrupted."""
    home = find()
    if after:
        _stop_after(home, json_)
        return
    # `up` would start a session that was stopped again, so it is told first.
    paths = [path for path in (home.up_lock, home.runner_lock) if locks.held(path)]
    found = [holder for path in paths if (holder := locks.holder(path))]
    if not found:
        say(record.Stopped(stopped=None), json_, "nothing is running")
        return
    first = found[0]
    _signal(first, signal.SIGTERM, paths[0])
    deadline = time.monotonic() + 90
    while any(locks.held(path) for path in paths):
        if time.monotonic() > deadline:
            raise BusyError("it did not stop in 90 s", where=str(paths[0]), fix=f"kill -9 {first.pid}")
        time.sleep(0.1)
    tag = first.name.rsplit("tag ", 1)[-1]
    say(record.Stopped(stopped=tag), json_, f"stopped {tag}")


def _stop_after(home: Home, as_json: bool) -> None:
    # `up` is told, too: it must not begin another session, should this one end badly or none be on just now.
    keeper, runner = _at_work(home.up_lock), _at_work(home.runner_lock)
    if keeper is not None:
        _signal(keeper, signal.SIGUSR1, home.up_lock)
        deadline = time.monotonic() + _BEGINS
        while runner is None and _at_work(home.up_lock) and time.monotonic() < deadline:
            time.sleep(0.1)
            runner = _at_work(home.runner_lock)
    if runner is not None:
        _signal(runner, signal.SIGUSR1, home.runner_lock)
    found = runner or keeper
    if found is None:
        say(record.Stopping(stopping=None), as_json, "nothing is running")
        return
    tag = found.name.rsplit("tag ", 1)[-1]
    say(record.Stopping(stopping=tag), as_json, f"{tag} ends after the experiment in progress")


def _at_work(path: Path) -> locks.Holder | None:
    """Who holds this lock for a tag; gc and backup end by themselves."""
    found = locks.holder(path) if locks.held(path) else None
    return found if found is not None and "tag " in found.name else None


def _signal(who: locks.Holder, number: signal.Signals, path: Path) -> None:
    if not who.visible:
        raise BusyError(f"{who.name} runs in a container", where=str(path), fix="docker compose stop")
    try:
        os.kill(who.pid, number)
    except OSError as error:
        fix = "run it as the user who started the run"
        raise BusyError(f"cannot signal process {who.pid}: {error.strerror}", where=str(path), fix=fix) from None
