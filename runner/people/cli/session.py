"""What `run`, `up`, `rerun` and `confirm` share: a session's settings, its key, and following it. TRUSTED."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_args

import typer

from runner.core.base import locks, secret_file
from runner.core.base.errors import BusyError
from runner.core.base.home import Home
from runner.core.base.launching import AgentKind, Lane
from runner.core.policy import policy_files
from runner.people.cli.common import Tell, emit, ended, interruptible, notifying, tag_name
from runner.people.cli.documents.base import Failed, Mistake
from runner.people.host import processes, tag_book
from runner.people.host.page_writer import writing
from runner.people.pages import console

AGENTS = get_args(AgentKind)
KeyFile = Annotated[Path | None, typer.Option(help="File with the API key; default: secrets/ in the bench.")]
Experiments = Annotated[int | None, typer.Option(min=1, help="End when the tag has this many, and measure its gain.")]
FromTag = Annotated[str | None, typer.Option(help="A new tag begins with the best train.py of this one.")]
PruneRuns = Annotated[
    int | None,
    typer.Option(
        "--prune",
        min=1,
        max=1000,
        help="Then take keeps whose effect is in doubt out of the best, in so many runs at most.",
    ),
]
_INTERRUPTED = 130
_WORK = ("agent_started", "serving", "started")  # events of a session that got to work


class Followed(NamedTuple):
    """How a session ended: its answer, if it gave one, its exit code, and whether it got to work at all."""

    answer: dict[str, Any] | None
    code: int
    worked: bool
    error: str = ""  # what it said of its failure


def settings_of(
    home: Home, tag: str, agent: str, artifact: str | None, lanes: tuple[Lane, ...], from_tag: str | None = None
) -> dict[str, Any]:
    """What `run` and `up` ask of a session alike; raises BadParameter."""
    for name in (tag, tag if from_tag is None else from_tag):
        tag_name(name)
    if agent not in AGENTS:
        raise typer.BadParameter(f"one of: {', '.join(AGENTS)}")
    tag, from_tag = tag_book.tag_of(home, tag), from_tag and tag_book.tag_of(home, from_tag)
    asked = {"tag": tag, "from_tag": from_tag, "agent": agent, "artifact": artifact, "lanes": lanes}
    return asked | {"seed": str(home.first())}


def pruned_after(runs: int | None, experiments: int | None) -> dict[str, Any]:
    """What `--prune` adds to the settings; raises BadParameter without an end to prune at."""
    if runs is None:
        return {}
    if experiments is None:
        raise typer.BadParameter("--prune needs --experiments: it begins when the tag has them all")
    return {"prune": {"runs": runs}}


def secret_of(home: Home, agent: str | None, given: Path | None) -> Path | None:
    """The file of the API key for an agent that needs one, read once here so that a mistake shows at once.

    A command of the person's own may need no model: without a key it has none.
    """
    if agent in (None, "scripted"):
        return None
    path = given or home.key
    if policy_files.load(*home.policies).broker.auth == "none":
        return path  # which nobody reads
    if agent == "command" and given is None and not path.exists():
        return None
    secret_file.read(path)
    return path


def follow(settings: dict[str, Any], home: Home, key_file: Path | None, told: Tell) -> Followed:
    """Show a session's events to its end, and tell them on; raises what kept it from starting."""
    if locks.held(home.runner_lock):
        found = locks.holder(home.runner_lock)
        who = f"{found.name}, pid {found.pid}" if found else "by another process"
        raise BusyError(f"already running: {who}", where=str(home.runner_lock), fix="wait, or run: glovebox stop")
    answer, code, worked, stopped, err, error = None, 1, False, False, console.stderr(), ""
    interruptible()
    with writing(home, settings["tag"]) as page:
        try:
            for event in console.follow(processes.run(settings, home, key_file), err):
                worked = worked or event["event"] in _WORK
                stopped = stopped or event["event"] == "stopped"
                page.event(event)
                if event["event"] == "failed":
                    error = str(event["error"])
                    err.print(f"glovebox: {error}", markup=False)
                elif event["event"] == "answer":
                    answer = event
                elif event["event"] == "exit":
                    code = event["code"]
                    continue  # of a session; whether the run ends with it is the caller's to say
                told(event)
        except KeyboardInterrupt:
            err.print("stopped: the running experiment is recorded as interrupted", markup=False)
            code = 130
    return Followed(answer, 130 if stopped and code == 0 else code, worked, error)


def waited(settings: dict[str, Any], home: Home, key_file: Path | None, as_json: bool) -> Followed:
    """A session that a person waits for, to its end; whoever is told of runs is told of it."""
    with notifying(home, settings["tag"]) as told:
        found = follow(settings, home, key_file, told)
        told(ended(found.code))
    failed(found.code, found.error, as_json)
    return found


def failed(code: int, error: str, as_json: bool) -> None:
    """What `--json` prints of a session that did not end well, besides its lines on stderr."""
    if as_json and code != 0:
        what = error or ("stopped" if code == _INTERRUPTED else f"the session ended with exit code {code}")
        emit(Failed(error=Mistake(what=what, where="session", fix="see the lines on stderr", exit_code=code)))
