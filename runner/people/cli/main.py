"""The `glovebox` command. TRUSTED; every command prints data to stdout and progress to stderr."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
import sys
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from runner.core.artifacts import begun, keys
from runner.core.base import files
from runner.core.base.benches import find, make
from runner.core.base.errors import GloveboxError, UsageError
from runner.core.base.home import place
from runner.core.evidence import ledger
from runner.core.evidence import verify as verifier
from runner.people.cli import (
    artifacts,
    compare,
    export,
    next_step,
    operations,
    policy,
    profiles,
    records,
    redteam,
    run,
    serve,
    steering,
    tags,
    up,
    views,
    warm,
)
from runner.people.cli.common import Gpu, Json, TagOption, interruptible, newest, say, show, there
from runner.people.host import importing
from runner.people.pages import console, report
from runner.people.pages.progress import ShownStages

_EPILOG = (
    "Exit codes: 0 success, 1 internal failure, 2 wrong usage, 3 policy or settings, 4 artifacts or keys, "
    "5 engine or images (doctor: any failed check), 6 busy, 7 train.py refused, 8 verification failed, "
    "9 the agent gave up, 10 an audit contradicted a proof, 11 the tag's bits are told, 130 interrupted."
)
_WRONG_USAGE: type[Any] = typer.BadParameter.__mro__[1]  # of typer's own click, which has no public name for it
_FIXES = {
    errno.EROFS: "copy the bench to where you may write",
    errno.ENOSPC: "free disk space",
    errno.EACCES: "look whose it is: ls -l",
}
# As people meet them: a bench, a run, looking at it, looking after it.
_ORDER = (
    "init", "doctor", "profile", "prepare", "run", "up", "stop", "status", "watch", "serve", "history", "show", "logs",
    "best", "explain", "report", "compare", "tags", "notes", "program", "hint", "pause", "resume", "veto", "rerun",
    "confirm", "export", "verify", "redteam", "policy", "keys", "warm", "gc", "backup", "restore", "help", "version",
)  # fmt: skip


class _Commands(TyperGroup):
    """Lists commands in that order."""

    def list_commands(self, ctx: Any) -> list[str]:
        """All of them; a test holds that none is missing."""
        return sorted(super().list_commands(ctx), key=_ORDER.index)


app = typer.Typer(
    name="glovebox",
    cls=_Commands,
    epilog=_EPILOG,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(profiles.app)
app.add_typer(artifacts.keys_app)
app.add_typer(policy.policy_app)
app.add_typer(tags.tags_app)
app.add_typer(steering.program_app)
for command in (
    run.run,
    up.up,
    export.export,
    run.rerun,
    run.confirm,
    up.stop,
    artifacts.prepare,
    warm.warm,
    redteam.redteam,
    operations.gc,
    operations.backup,
    operations.restore,
    views.history,
    views.show,
    views.watch,
    serve.serve,
    records.logs,
    records.best,
    records.explain,
    steering.hint,
    steering.notes,
    steering.pause,
    steering.resume,
    steering.veto,
    compare.compare,
):
    app.command()(command)


def _version(asked: bool) -> None:
    if asked:
        print(f"glovebox {version('glovebox')}")
        raise typer.Exit


@app.callback()
def _top(
    context: typer.Context,
    _: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_version)] = False,
    json_: Json = False,
) -> None:
    """A sealed bench for unattended ML research. Alone it says what to do next here."""
    if context.invoked_subcommand is not None:
        if json_:  # it would be passed over, and a table printed
            raise typer.BadParameter(f"--json goes behind the command: glovebox {context.invoked_subcommand} --json")
        return
    found = next_step.here()
    width = max((len(command) for command, _ in found.commands), default=0)
    lines = [found.now, *(f"  {command:<{width}}  {what}" for command, what in found.commands)]
    say(
        {"now": found.now, "next": [c for c, _ in found.commands]},
        json_,
        "\n".join([*lines, "all commands: glovebox -h"]),
    )


@app.command("version")
def version_(json_: Json = False) -> None:
    """Print the version."""
    say({"version": version("glovebox")}, json_, f"glovebox {version('glovebox')}")


@app.command("help")
def help_(
    context: typer.Context,
    command: Annotated[list[str] | None, typer.Argument(help="A command, as: tags rename.")] = None,
) -> None:
    """Say what a command does and takes; without one, which there are."""
    app([*(command or []), "--help"], standalone_mode=False, prog_name=context.find_root().info_name)


@app.command()
def init(
    env_file: Annotated[
        Path | None, typer.Option(help="Settings for docker compose; default: .env, if compose.yaml is here.")
    ] = None,
    from_: Annotated[
        Path | None, typer.Option("--from", help="Folder of glovebox export: new tags begin with its best train.py.")
    ] = None,
    key: Annotated[str | None, typer.Option(help="Public key the export must be signed by, 64 digits.")] = None,
    json_: Json = False,
) -> None:
    """Create a bench here: .glovebox with a signing key and a trust root, and .env for compose. Safe to repeat."""
    if from_ is not None:
        there(from_, "folder", "name one that glovebox export made")
    home, named = place(), env_file is not None
    found = export.check(home, from_, key) if from_ is not None else None  # before a bench is made of it
    make(home)
    fresh = not home.trust.exists()
    if fresh:
        keys.create(home)
        if not os.environ.get("GLOVEBOX_KEY_PASSPHRASE_FILE"):
            note = "the signing key is not encrypted (for a passphrase set GLOVEBOX_KEY_PASSPHRASE_FILE before init)"
            console.stderr().print(note, markup=False)
    directive = steering.provide(home)
    document: dict[str, Any] = {"home": str(home.root), "created": fresh, "program": str(home.program)}
    text = f"bench {'created' if fresh else 'exists'}: {home.root}"
    text += f"\nwhat you want of agents, for you to edit: {home.program}" if directive else ""
    if found is not None:
        document["imported"] = importing.begin(home, found)
        text += f"\nnew tags begin with experiment {found.best.id} of {found.rows.tag}, {found.best.val_bpb:.6f} there"
    if env_file is None and Path("compose.yaml").exists():
        env_file = Path.cwd() / ".env"
    if env_file is not None:
        from runner.people.host import compose_env

        compose_env.write(env_file, home, named=named)
        document["env"] = str(env_file)
        text += f"\nsettings for docker compose: {document['env']}"
    say(document, json_, text)


@app.command("doctor")
def doctor_(
    clock: Annotated[
        bool, typer.Option("--clock", help="Print the newest run's time limit and what it leaves open.")
    ] = False,
    kernels: Annotated[
        bool, typer.Option("--kernels", help="Test whether this machine's kernels keep elements apart.")
    ] = False,
    seconds: Annotated[float, typer.Option(min=5, max=3600, help="How long, with --kernels.")] = 60,
    gpu: Gpu = None,
    json_: Json = False,
) -> None:
    """Check everything a run needs; every failed line says how to fix it."""
    from runner.people.host import doctor

    if clock:
        _clock(json_)
        return
    interruptible()
    if kernels:
        with console.stderr().status(f"kernels: {seconds:.0f} s in the evaluator's container"):
            one, document = doctor.kernels(seconds, gpu)
        say({**one.__dict__, **document}, json_, f"{'ok  ' if one.ok else 'FAIL'}  {one.name}: {one.detail}")
        raise typer.Exit(0 if one.ok else 5)
    found = list(doctor.checks() if gpu is None else doctor.of_gpu(gpu))
    if json_:
        print(json.dumps({"ok": all(c.ok for c in found), "checks": [c.__dict__ for c in found]}))
    else:
        out = console.stdout()
        for check in found:
            fix = "" if check.ok else f"\n      fix: {check.fix}"
            out.print(f"{'ok  ' if check.ok else 'FAIL'}  {check.name}: {check.detail}{fix}", markup=False)
    raise typer.Exit(0 if all(c.ok for c in found) else 5)


def _clock(as_json: bool) -> None:
    from runner.people.host import doctor

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
    say(document, as_json, text)


@app.command()
def status(tag: TagOption = None, json_: Json = False) -> None:
    """Experiments of a run, with the baseline and the best."""
    home = find()
    show(home, tag, json_)


@app.command("report")
def report_(
    tag: TagOption = None,
    png: Annotated[Path | None, typer.Option(help="Also write the frontier as a picture here.")] = None,
    json_: Json = False,
) -> None:
    """Write the run's report.html again and print its path."""
    home = find()
    book = ledger.Ledger(home.ledger, read_only=True)
    name = newest(home, book, tag)
    policies = begun.under_or_now(home, book.run_info(name)["policy"])
    path = report.write(home, book, policies, name)
    if png is not None:
        files.write(png, report.picture(book, policies, name))
    say({"report": str(path), "png": png and str(png)}, json_, str(path))


@app.command("verify")
def verify_(
    witness: Annotated[Path | None, typer.Option(help="The witness file of policies/audit.yaml, or a copy.")] = None,
    since: Annotated[
        str | None, typer.Option(help="A checkpoint verify printed before: what it covers is not looked at again.")
    ] = None,
    json_: Json = False,
) -> None:
    """Check audit chain, ledger, snapshots, git line, results.tsv and artifacts against each other."""
    if witness is not None:
        there(witness, fix="name the file of policies/audit.yaml, or mount it")
    shown = ShownStages(console.stderr()) if console.stderr().is_terminal else None
    document = verifier.verify(find(), witness, since=since, shown=shown).document()
    if json_:
        print(json.dumps(document))
    else:
        out = console.stdout()
        for what, count in document["checked"].items():
            out.print(f"checked  {what}: {count}", markup=False)
        for label, lines in (("FAIL    ", document["failures"]), ("unknown ", document["not_verified"])):
            for line in lines:
                out.print(f"{label} {line}", markup=False)
        if document["checkpoint"] is not None:
            out.print(f"checkpoint {document['checkpoint']} (next time: --since)", markup=False)
        out.print("ok" if document["ok"] else "NOT ok", markup=False)
    raise typer.Exit(0 if document["ok"] else 8)


def main() -> None:
    """Entry point: one line per error, or one JSON object with --json; its exit code documented in errors.py."""
    try:
        sys.exit(app(standalone_mode=False))
    except typer.Abort:
        sys.exit(130)
    except _WRONG_USAGE as error:
        if "--json" not in sys.argv:
            error.show()
            sys.exit(error.exit_code)
        _say_error(UsageError(error.format_message()))
    except GloveboxError as error:
        _say_error(error)
    except sqlite3.Error as error:
        fix = "restore it from a backup: glovebox restore"
        _say_error(GloveboxError(f"not a usable ledger: {error}", where="ledger", fix=fix))
    except OSError as error:
        _system_error(error)


def _say_error(error: GloveboxError) -> NoReturn:
    if "--json" in sys.argv:
        told = {"what": error.what, "where": error.where, "fix": error.fix, "exit_code": error.exit_code}
        print(json.dumps({"error": told}))
    else:
        console.stderr().print(f"glovebox: {error}", markup=False)
    sys.exit(error.exit_code)


def _system_error(error: OSError) -> NoReturn:
    """What the system refused, in one line; of an output that nobody reads any more there is nothing to say."""
    told = GloveboxError(
        error.strerror or str(error), where=str(error.filename or "output"), fix=_FIXES.get(error.errno or 0, "")
    )
    if error.filename is not None:
        _say_error(told)
    with suppress(OSError, ValueError):
        sys.stdout.close()  # else Python tries once more to write what could not be written
    if not isinstance(error, BrokenPipeError):
        console.stderr().print(f"glovebox: {told}", markup=False)
    sys.exit(1)
