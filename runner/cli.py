"""The `glovebox` command. TRUSTED; every command prints data to stdout and progress to stderr."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from pydantic import TypeAdapter, ValidationError

from runner import compose_env, console, doctor, keys, ledger, locks, report, supervise
from runner import verify as verifier
from runner.artifacts import prepare as preparation
from runner.artifacts.profiles import PROFILES
from runner.broker import budget, key
from runner.desk import clean
from runner.errors import BusyError, GloveboxError
from runner.home import NAME, SOURCE, Home, find
from runner.records import AgentKind, Tag

MAX_DESCRIPTION = 200
AGENTS = get_args(AgentKind)
MAX_FRUITLESS = 5  # restarts in a row without a new experiment
RESTART_SECONDS = 3.0
_FINAL = (0, 2, 3, 4, 6, 7, 130)  # exit codes that another start would only repeat
_EPILOG = (
    "Exit codes: 0 success, 1 internal failure, 2 wrong usage, 3 policy or settings, 4 artifacts or keys, "
    "5 engine or images (doctor: any failed check), 6 busy, 7 train.py refused, 8 verification failed, 130 interrupted."
)
app = typer.Typer(
    name="glovebox",
    help="A sealed bench for unattended ML research.",
    epilog=_EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Gpu = Annotated[str | None, typer.Option(help="UUID of the GPU to use (nvidia-smi -L); default: CPU.")]
KeyFile = Annotated[Path | None, typer.Option(help="File with the API key; default: secrets/ in the bench.")]
TagOption = Annotated[str | None, typer.Option("--tag", help="Name of the run; default: the newest.")]


@app.command()
def init(
    env_file: Annotated[
        Path | None, typer.Option(help="Settings for docker compose; default: .env, if compose.yaml is here.")
    ] = None,
    json_: Json = False,
) -> None:
    """Create a bench here: .glovebox with a signing key and a trust root, and .env for compose. Safe to repeat."""
    home = Home(Path(os.environ.get("GLOVEBOX_HOME") or Path.cwd() / NAME).resolve())
    home.root.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = not home.trust.exists()
    if fresh:
        keys.create(home)
    document = {"home": str(home.root), "created": fresh}
    text = f"bench {'created' if fresh else 'exists'}: {home.root}"
    if env_file is None and Path("compose.yaml").exists():
        env_file = Path.cwd() / ".env"
    if env_file is not None:
        compose_env.write(env_file, home)
        document["env"] = str(env_file)
        text += f"\nsettings for docker compose: {document['env']}"
    _say(document, json_, text)


@app.command()
def prepare(
    profile: Annotated[str, typer.Option(help="demo (no network, seconds) or upstream.")] = "upstream",
    shards: Annotated[Path | None, typer.Option(help="Folder of parquet shards with a text column.")] = None,
    if_missing: Annotated[bool, typer.Option("--if-missing", help="Do nothing if this profile is prepared.")] = False,
    json_: Json = False,
) -> None:
    """Train the tokenizer, tokenize, pack and sign an artifact."""
    if profile not in PROFILES:
        raise typer.BadParameter(f"one of: {', '.join(PROFILES)}")
    home = find()
    there = preparation.newest(home, profile)
    if if_missing and there is not None:
        version = there
    else:
        say = console.stderr()
        version = preparation.prepare(home, profile, shards, lambda text: say.print(text, markup=False))
    _say({"version": version}, json_, f"artifact {version} ready")


@app.command("doctor")
def doctor_(
    clock: Annotated[
        bool, typer.Option("--clock", help="Print the newest run's time limit and what it leaves open.")
    ] = False,
    json_: Json = False,
) -> None:
    """Check everything a run needs; every failed line says how to fix it."""
    if clock:
        _clock(json_)
        return
    found = list(doctor.checks())
    if json_:
        print(json.dumps({"ok": all(c.ok for c in found), "checks": [c.__dict__ for c in found]}))
    else:
        out = console.stdout()
        for check in found:
            fix = "" if check.ok else f"\n      fix: {check.fix}"
            out.print(f"{'ok  ' if check.ok else 'FAIL'}  {check.name}: {check.detail}{fix}", markup=False)
    raise typer.Exit(0 if all(c.ok for c in found) else 5)


def _clock(as_json: bool) -> None:
    tag, found = doctor.clock_of(find())
    document = {**found._asdict(), "tag": tag, "limit": found.limit, "advantage": found.advantage}
    share = 100 * found.advantage / found.budget
    basis = "calibrated by the baseline" if found.baseline_overhead is not None else "from policy, no baseline yet"
    text = (
        f"training budget        {found.budget:8.1f} s\n"
        f"allowance              {found.allowance:8.1f} s  ({basis})\n"
        f"container limit        {found.limit:8.1f} s  (host clock, start to end of hand-over)\n"
        f"remaining advantage    {found.advantage:8.1f} s  ({share:.0f}% of the budget, for a script that starts and\n"
        "                                   hands over as fast as the baseline and trains through the rest)"
    )
    _say(document, as_json, text)


@app.command()
def run(
    tag: Annotated[str, typer.Option(help="Name of the run: lower case letters, digits, . _ -")],
    agent: Annotated[str, typer.Option(help=f"Who proposes: {', '.join(AGENTS)}.")] = "scripted",
    max_experiments: Annotated[int | None, typer.Option(min=1, help="Stop after this many.")] = None,
    train_py: Annotated[
        Path | None, typer.Option(help="Run this one file as one experiment, without an agent.")
    ] = None,
    description: Annotated[str | None, typer.Option(help="One line for the record, with --train-py.")] = None,
    artifact: Annotated[str | None, typer.Option(help="Artifact version; default: the newest.")] = None,
    gpu: Gpu = None,
    key_file: KeyFile = None,
    json_: Json = False,
) -> None:
    """Run experiments: with an agent in its container, or one given train.py."""
    home = find()
    settings = _settings(tag, agent, artifact, gpu) | {"max_experiments": max_experiments}
    if train_py is not None:
        settings |= {
            "agent": None,
            "train_py": str(train_py.absolute()),
            "description": clean(description or train_py.name, MAX_DESCRIPTION),
        }
    answer, code = _follow(settings, home, _key(home, settings["agent"], key_file))
    if code == 0 and answer is not None:
        print(json.dumps({"feedback": answer["feedback"], "row": answer["row"]}))
    elif code == 0:
        _show(home, tag, json_)
    raise typer.Exit(code)


@app.command()
def up(
    tag: Annotated[str, typer.Option(help="Name of the run: lower case letters, digits, . _ -")],
    agent: Annotated[str, typer.Option(help=f"Who proposes: {', '.join(AGENTS)}.")] = "claude",
    experiments: Annotated[int | None, typer.Option(min=1, help="End when the tag has this many.")] = None,
    artifact: Annotated[str | None, typer.Option(help="Artifact version; default: the newest.")] = None,
    gpu: Gpu = None,
    key_file: KeyFile = None,
    json_: Json = False,
) -> None:
    """Run unattended: runner, launcher and broker as host processes, started again should one of them die."""
    home = find()
    settings = _settings(tag, agent, artifact, gpu) | {"until": experiments}
    secret, fruitless = _key(home, agent, key_file), 0
    while True:
        before = _recorded(home, tag)
        _, code = _follow(settings, home, secret)
        fruitless = 0 if _recorded(home, tag) > before else fruitless + 1
        if code in _FINAL or fruitless == MAX_FRUITLESS:
            break
        console.stderr().print(f"started again in {RESTART_SECONDS:.0f} s (attempt {fruitless})", markup=False)
        time.sleep(RESTART_SECONDS)
    if code == 0:
        _show(home, tag, json_)
    raise typer.Exit(code)


def _recorded(home: Home, tag: str) -> int:
    return ledger.Ledger(home.ledger, read_only=True).last_number(tag) if home.ledger.exists() else 0


def _settings(tag: str, agent: str, artifact: str | None, gpu: str | None) -> dict[str, Any]:
    """What `run` and `up` ask of a session alike; raises BadParameter."""
    try:
        TypeAdapter(Tag).validate_python(tag)
    except ValidationError:
        raise typer.BadParameter(
            f"{tag!r}: use lower case letters and digits, . _ - between them, at most 40"
        ) from None
    if agent not in AGENTS:
        raise typer.BadParameter(f"one of: {', '.join(AGENTS)}")
    seed = str(SOURCE / "trainer" / "train.py")
    return {"tag": tag, "seed": seed, "agent": agent, "artifact": artifact, "gpu": gpu}


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
    answer, code, say = None, 1, console.stderr()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        for event in console.follow(supervise.run(settings, home, key_file), say):
            if event["event"] == "failed":
                say.print(f"glovebox: {event['error']}", markup=False)
            elif event["event"] == "answer":
                answer = event
            elif event["event"] == "exit":
                code = event["code"]
    except KeyboardInterrupt:
        say.print("stopped: the running experiment is recorded as interrupted", markup=False)
        code = 130
    return answer, code


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@app.command()
def status(tag: TagOption = None, json_: Json = False) -> None:
    """Experiments of a run, with the baseline and the best."""
    home = find()
    _show(home, tag, json_)


def _show(home: Home, tag: str | None, as_json: bool) -> None:
    book = ledger.Ledger(home.ledger, read_only=True)
    document = ledger.summary(book, _newest(book, tag))
    page = home.tag(str(document["tag"])) / "report.html"
    cost = budget.spent(home.spent, str(document["tag"]))
    if as_json:
        print(json.dumps(document | {"report": str(page), "cost": cost}))
        return
    out = console.stdout()
    console.table(document, out)
    if cost is not None:
        out.print(f"model: ${cost['dollars']:.4f}, {cost['requests']} calls, {cost['tokens']} tokens", markup=False)
    out.print(f"report: {page}", markup=False)


def _newest(book: ledger.Ledger, tag: str | None) -> str:
    tags = book.tags()
    if tag is None and not tags:
        raise GloveboxError("no experiment has been run yet", fix="run: glovebox run --tag NAME")
    return tag or tags[0]


@app.command()
def stop(json_: Json = False) -> None:
    """Stop the run in progress: its experiment is ended and recorded as interrupted."""
    home = find()
    path = home.runner_lock
    found = locks.holder(path) if locks.held(path) else None
    if found is None:
        _say({"stopped": None}, json_, "nothing is running")
        return
    if not found.visible:
        raise BusyError(f"{found.name} runs in a container", where=str(path), fix="docker compose stop")
    try:
        os.kill(found.pid, signal.SIGTERM)
    except OSError as error:
        fix = "run it as the user who started the run"
        raise BusyError(f"cannot signal process {found.pid}: {error.strerror}", where=str(path), fix=fix) from None
    deadline = time.monotonic() + 90
    while locks.held(path):
        if time.monotonic() > deadline:
            raise BusyError("the runner did not stop in 90 s", where=str(path), fix=f"kill -9 {found.pid}")
        time.sleep(0.1)
    _say({"stopped": found.name}, json_, f"stopped {found.name}")


@app.command("report")
def report_(tag: TagOption = None, json_: Json = False) -> None:
    """Write the run's report.html again and print its path."""
    home = find()
    book = ledger.Ledger(home.ledger, read_only=True)
    path = report.write(home, book, _newest(book, tag))
    _say({"report": str(path)}, json_, str(path))


@app.command("verify")
def verify_(json_: Json = False) -> None:
    """Check audit chain, ledger, snapshots, git line, results.tsv and artifacts against each other."""
    document = verifier.verify(find()).document()
    if json_:
        print(json.dumps(document))
    else:
        out = console.stdout()
        for what, count in document["checked"].items():
            out.print(f"checked  {what}: {count}", markup=False)
        for label, lines in (("FAIL    ", document["failures"]), ("unknown ", document["not_verified"])):
            for line in lines:
                out.print(f"{label} {line}", markup=False)
        out.print("ok" if document["ok"] else "NOT ok", markup=False)
    raise typer.Exit(0 if document["ok"] else 8)


def _say(document: dict[str, Any], as_json: bool, text: str) -> None:
    if as_json:
        print(json.dumps(document))
    else:
        console.stdout().print(text, markup=False)


def main() -> None:
    """Entry point: one line per error, its exit code documented in errors.py."""
    try:
        app()
    except GloveboxError as error:
        console.stderr().print(f"glovebox: {error}", markup=False)
        sys.exit(error.exit_code)
