"""`glovebox tags`: which there are, what they are called, and putting them away. TRUSTED."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from runner.core.airlock import invisible
from runner.core.base.benches import find
from runner.core.base.errors import UsageError
from runner.core.evidence import ledger
from runner.people.cli.common import Json, Yes, before_a_command, emit, say, tag_name
from runner.people.cli.documents import record
from runner.people.host import tag_book
from runner.people.pages import console

tags_app = typer.Typer(
    name="tags", help="All tags of this bench, newest first.", invoke_without_command=True, rich_markup_mode=None
)
TagName = Annotated[str, typer.Argument(help="Name of the tag.")]
_COLUMNS = ("tag", "begun", "experiments", "kept", "baseline", "best", "begun from")
_FIGURES = ("experiments", "kept", "baseline", "best")


@tags_app.callback()
def list_(
    context: typer.Context,
    every: Annotated[bool, typer.Option("--all", help="Archived ones too.")] = False,
    json_: Json = False,
) -> None:
    """All tags of this bench, newest first."""
    if before_a_command(context, json_):
        return
    home = find()
    book, names = ledger.Ledger(home.ledger, read_only=True), tag_book.read(home)
    found = [_tag(book, names, tag) for tag in book.tags() if every or tag not in names.archived]
    if json_:
        emit(record.Tags(tags=found))
        return
    if not found:
        if names.archived:
            raise UsageError("all tags are archived", fix="glovebox tags --all")
        raise UsageError("no experiment has been run yet", fix="run: glovebox run --tag NAME")
    view = Table()
    for name in _COLUMNS:
        view.add_column(name, justify="right" if name in _FIGURES else "left")
    for one in found:
        view.add_row(*_cells(one))
    console.stdout().print(view)


def _cells(one: record.TagLine) -> list[str]:
    called = f"{one.name} ({one.tag})" if one.name else one.tag
    return [
        f"{called}, archived" if one.archived else called,
        escape(invisible.printable(one.started[:16].replace("T", " "))),
        f"{one.experiments} and one running" if one.running else str(one.experiments),
        str(one.kept),
        *("" if value is None else f"{value:.6f}" for value in (one.baseline, one.best)),
        one.begun_from or "",
    ]


def _tag(book: ledger.Ledger, names: tag_book.TagBook, tag: str) -> record.TagLine:
    origin, info = book.origin(tag), book.run_info(tag)
    return record.TagLine(
        tag=tag,
        name=names.names.get(tag),
        archived=tag in names.archived,
        started=info["started"],
        artifact=info["artifact"],
        running=bool(book.open_numbers(tag)),
        begun_from=origin.begun_from if origin else None,
        **book.glance(tag).model_dump(),
    )


@tags_app.command("rename")
def rename(
    tag: TagName,
    name: Annotated[str, typer.Argument(help="What it is called from now on; the record keeps its own name.")],
    json_: Json = False,
) -> None:
    """Call a tag otherwise; its own name takes the name away again."""
    home = find()
    own = tag_book.tag_of(home, tag)
    tag_book.call(home, ledger.Ledger(home.ledger, read_only=True), own, tag_name(name))
    say(record.Renamed(tag=own, name=name), json_, f"{own} is called {name}")


@tags_app.command("archive")
def archive(tag: TagName, json_: Json = False) -> None:
    """Put a tag away: in no list, and never the newest. Its record stays."""
    _put(tag, json_, away=True)


@tags_app.command("unarchive")
def unarchive(tag: TagName, json_: Json = False) -> None:
    """Take an archived tag out again."""
    _put(tag, json_, away=False)


def _put(tag: str, as_json: bool, *, away: bool) -> None:
    home = find()
    own = tag_book.tag_of(home, tag)
    tag_book.archive(home, ledger.Ledger(home.ledger, read_only=True), own, away=away)
    say(record.Archived(tag=own, archived=away), as_json, f"{own} is {'archived' if away else 'back'}")


@tags_app.command("delete")
def delete(tag: TagName, yes: Yes = False, json_: Json = False) -> None:
    """Remove a tag's logs, hand-overs and pages and archive it; what is signed (rows, commits, chain) stays."""
    home = find()
    if not home.ledger.exists():
        raise UsageError("no experiment has been run yet", fix="run: glovebox run --tag NAME")
    own = tag_book.tag_of(home, tag)
    count, size = tag_book.delete(home, own, remove=yes)
    verb = "removed" if yes else "would be removed (--yes does it)"
    document = record.Deleted(tag=own, removed=yes, files=count, bytes=size)
    say(document, json_, f"{own}: {count} files, {size / 1e6:.1f} MB {verb}; its record stays")
