"""`glovebox run`, `up` and `stop`: the commands that work a bench. TRUSTED."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from pydantic import TypeAdapter, ValidationError

from runner import console, ledger, locks, supervise
from runner.broker import key
from runner.cli_common import Gpu, Json, TagOption, interruptible, newest, notifying, say, show
from runner.cli_lanes import CoreSets, Gpus, lanes_of
from runner.desk import clean
from runner.errors import BusyError, EngineError, GloveboxError
from runner.home import Home, find
from runner.records import AgentKind, Lane, Tag

MAX_DESCRIPTION = 200
AGENTS = get_args(AgentKind)
MAX_FRUITLESS = 5  # starts in a row without a new experiment
MAX_ENGINE = 60  # the same while it is the engine that fails: about an hour
RESTART_SECONDS, LONGEST_PAUSE = 3.0, 60.0  # doubled with every fruitless start
_FINAL = (0, 2, 3, 4, 6, 7, 9, 130)  # exit codes that another start would only repeat
Seeds = Annotated[int, typer.Option(min=1, max=20, help="Runs of each of the two files.")]
KeyFile = Annotated[Path | None, typer.Option(help="File with the API key; default: secrets/ in the bench.")]


def run(
    tag: Annotated[str, typer.Option(help="Name of the run: lower case letters, digits, . _ -")],
    agent: Annotated[str, typer.Option(help=f"Who proposes: {', '.join(AGENTS)}.")] = "scripted",
    max_experiments: Annotated[int | None, typer.Option(min=1, help="Stop after this many.")] = None,
    train_py: Annotated[
        Path | None, typer.Option(help="Run this one file as one experiment, without an agent.")
    ] = None,
    description: Annotated[str | None, typer.Option(help="One line for the record, with --train-py.")] = None,
    artifact: Annotated[str | None, typer.Option(help="Artifact version; default: the newest.")] = None,
    gpu: Gpus = None,
    cores: CoreSets = None,
    key_file: KeyFile = None,
    json_: Json = False,
) -> None:
    """Run experiments: with an agent in its container, or one given train.py."""
    home = find()
    lanes = lanes_of(gpu, cores)
    settings = _settings(home, tag, agent, artifact, lanes) | {"max_experiments": max_experiments}
    if train_py is not None:
        if len(lanes) > 1:
            raise typer.BadParameter("one file runs on one --gpu or set of --cores")
        settings |= {
            "agent": None,
            "train_py": str(train_py.absolute()),
            "description": clean(description or train_py.name, MAX_DESCRIPTION),
        }
    answer, code = _follow(settings, home, _key(home, settings["agent"], key_file))
    if code == 0 and answer is not None and train_py is not None:
        print(json.dumps({"feedback": answer["feedback"], "row": answer["row"]}))
    elif code == 0:
        show(home, tag, json_)
    raise typer.Exit(code)


def rerun(
    experiment: Annotated[int, typer.Argument(help="Number of the experiment.")],
    tag: TagOption = None,
    budget: Annotated[int | None, typer.Option(min=1, help="Seconds of training; default: the artifact's.")] = None,
    seeds: Seeds = 3,
    depth: Annotated[int | None, typer.Option(min=1, help="Put in place of DEPTH in both files.")] = None,
    profile: Annotated[str | None, typer.Option(help="Newest artifact of this profile instead of the tag's.")] = None,
    gpu: Gpu = None,
    json_: Json = False,
) -> None:
    """Run an experiment and the keep before it again, on other seeds or terms: does its gain hold?"""
    order = {"experiments": (experiment,), "seeds": seeds, "budget": budget, "depth": depth, "profile": profile}
    _transfer(tag, order, gpu, json_)


def confirm(
    top: Annotated[int, typer.Option(min=1, help="So many keeps, by claimed gain.")] = 3,
    tag: TagOption = None,
    seeds: Seeds = 3,
    gpu: Gpu = None,
    json_: Json = False,
) -> None:
    """Measure the largest gains once more, on fresh seeds."""
    _transfer(tag, {"top": top, "seeds": seeds}, gpu, json_)


def _transfer(tag: str | None, order: dict[str, Any], gpu: str | None, as_json: bool) -> None:
    home = find()
    book = ledger.Ledger(home.ledger, read_only=True)
    name = newest(book, tag)
    version = book.run_info(name)["artifact"]
    settings = _settings(home, name, "scripted", version, (Lane(gpu=gpu),)) | {"agent": None, "order": order}
    answer, code = _follow(settings, home, None)
    if code == 0 and answer is not None:
        if as_json:
            print(json.dumps({"tag": name, "transfers": answer["transfers"]}))
        else:
            console.transfers(answer["transfers"], console.stdout())
    raise typer.Exit(code)


def up(
    tag: Annotated[str, typer.Option(help="Name of the run: lower case letters, digits, . _ -")],
    agent: Annotated[str, typer.Option(help=f"Who proposes: {', '.join(AGENTS)}.")] = "claude",
    experiments: Annotated[int | None, typer.Option(min=1, help="End when the tag has this many.")] = None,
    artifact: Annotated[str | None, typer.Option(help="Artifact version; default: the newest.")] = None,
    gpu: Gpus = None,
    cores: CoreSets = None,
    key_file: KeyFile = None,
    json_: Json = False,
) -> None:
    """Run unattended: runner, launcher and broker as host processes, started again should one of them die."""
    home = find()
    settings = _settings(home, tag, agent, artifact, lanes_of(gpu, cores)) | {"until": experiments}
    secret = _key(home, agent, key_file)
    try:
        with locks.hold(home.up_lock, f"up, tag {tag}"):
            code = _keep_up(home, settings, secret)
    except KeyboardInterrupt:
        code = 130
    if code == 0:
        show(home, tag, json_)
    raise typer.Exit(code)


def _keep_up(home: Home, settings: dict[str, Any], secret: Path | None) -> int:
    """Run sessions until one ends for good or nothing comes of them any more; returns the exit code.

    An engine that goes away in mid-run is waited for; one that never answered is an error at once.
    """
    interruptible()
    fruitless, worked = 0, False
    while True:
        before = _recorded(home, settings["tag"])
        try:
            _, code = _follow(settings, home, secret)
        except GloveboxError as error:  # launcher or broker did not even start
            console.stderr().print(f"glovebox: {error}", markup=False)
            code = error.exit_code
        more = _recorded(home, settings["tag"]) > before
        fruitless, worked = 0 if more else fruitless + 1, worked or more
        if code in _FINAL or fruitless >= _attempts(code, worked):
            return code
        pause = min(LONGEST_PAUSE, RESTART_SECONDS * 2 ** max(0, fruitless - 1))
        console.stderr().print(f"started again in {pause:.0f} s (attempt {fruitless + 1})", markup=False)
        time.sleep(pause)


def _attempts(code: int, worked: bool) -> int:
    """How many starts in a row may come to nothing."""
    if code == EngineError.exit_code:
        return MAX_ENGINE if worked else 1
    return MAX_FRUITLESS


def _recorded(home: Home, tag: str) -> int:
    return ledger.Ledger(home.ledger, read_only=True).last_number(tag) if home.ledger.exists() else 0


def _settings(home: Home, tag: str, agent: str, artifact: str | None, lanes: tuple[Lane, ...]) -> dict[str, Any]:
    """What `run` and `up` ask of a session alike; raises BadParameter."""
    try:
        TypeAdapter(Tag).validate_python(tag)
    except ValidationError:
        raise typer.BadParameter(
            f"{tag!r}: use lower case letters and digits, . _ - between them, at most 40"
        ) from None
    if agent not in AGENTS:
        raise typer.BadParameter(f"one of: {', '.join(AGENTS)}")
    return {"tag": tag, "seed": str(home.first()), "agent": agent, "artifact": artifact, "lanes": lanes}


def _key(home: Home, agent: str | None, given: Path | None) -> Path | None:
    """The file of the API key for an agent that needs one, read once here so that a mistake shows at once."""
    if agent in (None, "scripted"):
        return None
    path = given or home.key
    key.read(path)
    return path


def _follow(settings: dict[str, Any], home: Home, key_file: Path | None) -> tuple[dict[str, Any] | None, int]:
    """Show a session's events; returns its answer, if it gave one, and its exit code."""
    if locks.held(home.runner_lock):
        found = locks.holder(home.runner_lock)
        who = f"{found.name}, pid {found.pid}" if found else "by another process"
        raise BusyError(f"already running: {who}", where=str(home.runner_lock), fix="wait, or run: glovebox stop")
    answer, code, err = None, 1, console.stderr()
    told = notifying(home, settings["tag"])
    interruptible()
    try:
        for event in console.follow(supervise.run(settings, home, key_file), err):
            told(event)
            if event["event"] == "failed":
                err.print(f"glovebox: {event['error']}", markup=False)
            elif event["event"] == "answer":
                answer = event
            elif event["event"] == "exit":
                code = event["code"]
    except KeyboardInterrupt:
        err.print("stopped: the running experiment is recorded as interrupted", markup=False)
        code = 130
    finally:
        told(None)
    return answer, code


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
        say({"stopped": None}, json_, "nothing is running")
        return
    first = found[0]
    _signal(first, signal.SIGTERM, paths[0])
    deadline = time.monotonic() + 90
    while any(locks.held(path) for path in paths):
        if time.monotonic() > deadline:
            raise BusyError("it did not stop in 90 s", where=str(paths[0]), fix=f"kill -9 {first.pid}")
        time.sleep(0.1)
    tag = first.name.rsplit("tag ", 1)[-1]
    say({"stopped": tag}, json_, f"stopped {tag}")


def _stop_after(home: Home, as_json: bool) -> None:
    found = locks.holder(home.runner_lock) if locks.held(home.runner_lock) else None
    if found is None or not found.name.startswith("tag "):  # gc or backup end by themselves
        say({"stopping": None}, as_json, "nothing is running")
        return
    _signal(found, signal.SIGUSR1, home.runner_lock)
    tag = found.name.rsplit("tag ", 1)[-1]
    say({"stopping": tag}, as_json, f"{tag} ends after the experiment in progress")


def _signal(who: locks.Holder, number: signal.Signals, path: Path) -> None:
    if not who.visible:
        raise BusyError(f"{who.name} runs in a container", where=str(path), fix="docker compose stop")
    try:
        os.kill(who.pid, number)
    except OSError as error:
        fix = "run it as the user who started the run"
        raise BusyError(f"cannot signal process {who.pid}: {error.strerror}", where=str(path), fix=fix) from None
