"""The `glovebox` command. TRUSTED; every command prints data to stdout and progress to stderr."""

from __future__ import annotations

import errno
import sqlite3
import sys
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from runner.core.artifacts import begun
from runner.core.base import files
from runner.core.base.benches import find
from runner.core.base.errors import GloveboxError, UsageError
from runner.core.evidence import ledger
from runner.core.evidence import verify as verifier
from runner.people.cli import (
    artifacts,
    compare,
    data,
    early_stop,
    export,
    next_step,
    operations,
    policy,
    profiles,
    records,
    redteam,
    run,
    serve,
    setup,
    status,
    steering,
    tags,
    up,
    views,
    warm,
)
from runner.people.cli.common import Json, TagOption, before_a_command, emit, newest, say, there
from runner.people.cli.documents import bench, record
from runner.people.cli.documents.base import Failed, Mistake
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
    "init", "doctor", "profile", "prepare", "data", "run", "up", "stop", "status", "watch", "serve", "history", "show",
    "logs", "best", "explain", "report", "compare", "early-stop", "tags", "notes", "program", "hint", "pause", "resume",
    "veto", "rerun", "confirm", "prune", "export", "verify", "redteam", "policy", "keys", "warm", "gc", "backup",
    "restore", "help", "version",
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
app.add_typer(early_stop.early_stop_app)
for command in (
    setup.init,
    setup.doctor,
    run.run,
    up.up,
    export.export,
    run.rerun,
    run.confirm,
    run.prune,
    up.stop,
    artifacts.prepare,
    data.data,
    warm.warm,
    redteam.redteam,
    operations.gc,
    operations.backup,
    operations.restore,
    status.status,
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
    if before_a_command(context, json_):
        return
    found = next_step.here()
    width = max((len(command) for command, _ in found.commands), default=0)
    lines = [found.now, *(f"  {command:<{width}}  {what}" for command, what in found.commands)]
    document = bench.Next(now=found.now, next=[command for command, _ in found.commands])
    say(document, json_, "\n".join([*lines, "all commands: glovebox -h"]))


@app.command("version")
def version_(json_: Json = False) -> None:
    """Print the version."""
    say(bench.Version(version=version("glovebox")), json_, f"glovebox {version('glovebox')}")


@app.command("help")
def help_(
    context: typer.Context,
    command: Annotated[list[str] | None, typer.Argument(help="A command, as: tags rename.")] = None,
) -> None:
    """Say what a command does and takes; without one, which there are."""
    app([*(command or []), "--help"], standalone_mode=False, prog_name=context.find_root().info_name)


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
    say(record.Reported(report=str(path), png=None if png is None else str(png)), json_, str(path))


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
        emit(record.Verified(**document))
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
        told = Mistake(what=error.what, where=error.where, fix=error.fix, exit_code=error.exit_code)
        emit(Failed(error=told))
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
