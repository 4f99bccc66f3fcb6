"""`glovebox hint`, `pause`, `resume`, `veto` and `program`: a person's hand on a tag that runs. TRUSTED.

Nothing here writes the record: a request is left in the bench, and the tag's session makes a signed entry of it before
it acts (core/base/steering.py).
"""

from __future__ import annotations

import difflib
import re
import sys
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.table import Table

from runner.core.airlock import invisible
from runner.core.airlock.description import clean
from runner.core.airlock.notebook import Notebook
from runner.core.base import files, locks, steering
from runner.core.base.benches import find
from runner.core.base.errors import UsageError
from runner.core.base.home import Home
from runner.core.base.mountable import SHIPPED
from runner.core.base.steering import Verb
from runner.core.base.values import Experiment
from runner.core.decision import standing
from runner.core.evidence import ledger, texts
from runner.core.evidence.texts import Texts
from runner.core.findings import comparing
from runner.people.cli.common import Json, TagOption, before_a_command, emit, newest, numbered, say
from runner.people.cli.compare import entries
from runner.people.cli.documents import asked
from runner.people.pages import console

program_app = typer.Typer(
    name="program", help="What a person wants of agents.", invoke_without_command=True, rich_markup_mode=None
)
_SHIPPED = {"standard": "program.md", "small": "policies/program-small.md"}
_SHORT = 12  # digits of a digest that are shown, and the fewest that name one
Version = Annotated[str, typer.Argument(help="First digits of a version (program log), or now.")]


def provide(home: Home) -> bool:
    """Put the directive that Glovebox comes with into a bench that has none; whether it had none."""
    if home.program.exists():
        return False
    files.write(home.program, (SHIPPED / "program.md").read_bytes(), mode=0o600)
    return True


def hint(
    text: Annotated[str, typer.Argument(help="Words for the agent; without them, which stand.")] = "",
    tag: TagOption = None,
    clear: Annotated[bool, typer.Option("--clear", help="Take all of them back.")] = False,
    json_: Json = False,
) -> None:
    """Tell the agents of a run something: every experiment from the next on begins with it, until --clear."""
    home = find()
    book = ledger.Ledger(home.ledger, read_only=True)
    name = newest(home, book, tag)
    if text and clear:
        raise typer.BadParameter("words, or --clear: not both")
    if text and not text.strip():
        raise typer.BadParameter("no words")
    if text and len(text) > steering.HINT_CHARS:
        raise typer.BadParameter(f"at most {steering.HINT_CHARS} characters: what is longer belongs into program.md")
    if text:
        _ask(home, name, "hint", json_, text=clean(text, steering.HINT_CHARS))
    elif clear:
        _ask(home, name, "clear", json_)
    else:
        _hints(home, book, name, json_)


def _hints(home: Home, book: ledger.Ledger, tag: str, as_json: bool) -> None:
    stand = steering.hints(Texts(book).steers(tag))
    coming = [one for _, one in steering.waiting(home, tag) if one is not None and one.verb == "hint"]
    document = asked.Hints(
        tag=tag,
        hints=[asked.Hint(after=one.after, text=one.text) for one in stand],
        waiting=[one.text for one in coming],
    )
    lines = [f"since experiment {one.after}: {one.text}" for one in stand]
    lines += [f"not taken in yet: {one.text}" for one in coming]
    say(document, as_json, "\n".join(map(invisible.printable, lines)) or f"no hint stands in tag {tag}")


def notes(
    at: Annotated[int | None, typer.Option(help="As experiment N began with them; default: as they are now.")] = None,
    tag: TagOption = None,
    json_: Json = False,
) -> None:
    """What the agents of a run wrote down for each other: notes, and the ideas that are open."""
    home = find()
    book = ledger.Ledger(home.ledger, read_only=True)
    known = Texts(book)
    if at is None:
        found = known.notebook(newest(home, book, tag))
    else:
        digest = numbered(home, book, tag, at).notebook
        found = known.read_notebook(digest) if digest else Notebook()
    if json_:
        emit(found)
        return
    lines = [invisible.printable(one) for one in found.notes.split("\n")] if found.notes else ["(no notes)"]
    lines += [f"idea {idea.id}: {invisible.printable(idea.text)}" for idea in found.ideas]
    print("\n".join([*lines, f"ideas: {len(found.ideas)} open, {found.done} done, {found.dropped} dropped"]))


def pause(tag: TagOption = None, json_: Json = False) -> None:
    """Let no experiment of a run begin and call no model; the one in progress goes on to its end."""
    home = find()
    _ask(home, newest(home, ledger.Ledger(home.ledger, read_only=True), tag), "pause", json_)


def resume(tag: TagOption = None, json_: Json = False) -> None:
    """Let a paused run go on."""
    home = find()
    book = ledger.Ledger(home.ledger, read_only=True)
    name = newest(home, book, tag)
    if not texts.paused(home, Texts(book), name):
        raise UsageError(f"tag {name} is not paused", fix="glovebox status says what it does")
    _ask(home, name, "resume", json_)


def veto(
    experiment: Annotated[int, typer.Argument(help="Number of the keep.")],
    tag: TagOption = None,
    json_: Json = False,
) -> None:
    """Take a keep out of a run's line, and what was built on it: the best before runs once more and goes on."""
    home = find()
    book = ledger.Ledger(home.ledger, read_only=True)
    row = numbered(home, book, tag, experiment)
    rows = book.experiments(row.tag)
    before = standing.taken_back(rows, row.id)
    if before is None:
        line = ", ".join(str(one.id) for one in standing.line(rows)[1:]) or "none"
        raise UsageError(
            f"experiment {row.id} is no keep to take back", where=row.tag, fix=f"those of the line: {line}"
        )
    gone = [one.id for one in standing.line(rows) if one.id >= row.id]
    also = f" (with it: {', '.join(map(str, gone[1:]))})" if gone[1:] else ""
    _ask(home, row.tag, "veto", json_, experiment=row.id, then=f"; experiment {before.id} goes on{also}")


def _ask(
    home: Home, tag: str, verb: Verb, as_json: bool, *, text: str = "", experiment: int = 0, then: str = ""
) -> None:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    made = steering.ask(home, tag, verb, now, text=text, experiment=experiment)
    at_work = locks.held(home.runner_lock)
    who = "the session at work takes it in with its agent's next request" if at_work else "the next session takes it in"
    document = asked.Asked(tag=tag, asked=made, at_work=at_work)
    say(document, as_json, f"{tag}: {verb} asked{then}; {who}")


@program_app.callback()
def program(context: typer.Context, json_: Json = False) -> None:
    """What a person wants of agents: where it is, for you to edit. Every experiment is made under it as it is then."""
    if before_a_command(context, json_):
        return
    path = steering.directive(find())
    say(asked.Directive(program=str(path)), json_, str(path))


@program_app.command("use")
def use(
    name: Annotated[str, typer.Argument(help=f"One that Glovebox comes with: {', '.join(_SHIPPED)}.")],
    json_: Json = False,
) -> None:
    """Begin again with a directive that Glovebox comes with; what was there is kept beside it."""
    if name not in _SHIPPED:
        raise typer.BadParameter(f"one of: {', '.join(_SHIPPED)}")
    home = find()
    before = home.program.with_suffix(".before.md")
    if home.program.exists():
        files.write(before, home.program.read_bytes(), mode=0o600)
    files.write(home.program, (SHIPPED / _SHIPPED[name]).read_bytes(), mode=0o600)
    document = asked.DirectiveUsed(program=str(home.program), before=str(before))
    say(document, json_, f"{home.program}: {name}; before it: {before}")


@program_app.command("log")
def log(tag: TagOption = None, json_: Json = False) -> None:
    """The versions that experiments of a run were made under, and what came of them."""
    home = find()
    book = ledger.Ledger(home.ledger, read_only=True)
    name = newest(home, book, tag)
    found = comparing.parts(entries(home, book, name), "program")
    rows: dict[str, list[Experiment]] = {one.name: [] for one in found}
    for row in book.experiments(name):
        rows.setdefault((row.program or "")[:_SHORT], []).append(row)
    if json_:
        spans = {name: (some[0].id, some[-1].id) if some else None for name, some in rows.items()}
        versions = [asked.DirectiveVersion(**dict(one), span=spans[one.name]) for one in found]
        emit(asked.DirectiveVersions(tag=name, versions=versions))
        return
    view = Table()
    for column in ("version", "experiments", "kept", "gain", "per hour"):
        view.add_column(column, justify="left" if column == "version" else "right")
    for one in found:
        some = rows[one.name]
        span = f" ({some[0].id} to {some[-1].id})" if some else ""
        rate = "" if one.per_hour is None else f"{one.per_hour:+.5f}"
        view.add_row(one.name, f"{one.experiments}{span}", str(one.kept), f"{one.gain:+.5f}", rate)
    console.stdout().print(view)


@program_app.command("show")
def show(version: Version = "now", json_: Json = False) -> None:
    """Print a version."""
    text = _text(find(), version)
    if json_:
        emit(asked.DirectiveText(version=version, text=text))
    else:
        sys.stdout.write("\n".join(map(invisible.printable, text.split("\n"))))


@program_app.command("diff")
def diff(old: Version, new: Version = "now", json_: Json = False) -> None:
    """What changed from one version to another."""
    home = find()
    lines = list(
        difflib.unified_diff(_text(home, old).splitlines(), _text(home, new).splitlines(), old, new, lineterm="")
    )
    document = asked.DirectiveDiff(old=old, new=new, diff="\n".join(lines))
    say(document, json_, "\n".join(map(invisible.printable, lines)) or "no difference")


def _text(home: Home, version: str) -> str:
    if version == "now":
        return steering.directive(home).read_text(encoding="utf-8", errors="replace")
    if not re.fullmatch(r"[0-9a-f]{6,64}", version):
        raise UsageError(f"not a version: {version[:70]}", fix="glovebox program log lists them")
    book = ledger.Ledger(home.ledger, read_only=True)
    named = {row.program for tag in book.tags() for row in book.experiments(tag) if row.program}
    found = [one for one in named if one.startswith(version)]
    text = Texts(book).text(found[0]) if len(found) == 1 else None
    if text is None:
        what = f"no version {version}" if not found else f"{len(found)} versions begin with {version}"
        raise UsageError(what, fix="glovebox program log lists them")
    return text
