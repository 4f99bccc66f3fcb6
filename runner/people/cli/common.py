"""What the commands share: options, output, the newest run. TRUSTED."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel, TypeAdapter, ValidationError

from runner.core.base import benches
from runner.core.base.errors import BusyError, GloveboxError, UsageError
from runner.core.base.home import Home
from runner.core.base.values import Experiment, Tag
from runner.core.evidence import ledger
from runner.core.policy import policy_files
from runner.people.host import tag_book
from runner.people.pages import console

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Gpu = Annotated[str | None, typer.Option(help="UUID of the GPU to use (nvidia-smi -L); default: CPU.")]
Tell = Callable[[dict[str, Any]], None]
Yes = Annotated[bool, typer.Option("--yes", help="Remove it; without this only say what would go.")]
TagOption = Annotated[str | None, typer.Option("--tag", help="Name of the run; default: the newest.")]


def interruptible() -> None:
    """SIGTERM and SIGHUP end us in order, as Ctrl-C does; a SIGHUP that nohup(1) had ignored stays so."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if number == signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def emit(document: BaseModel) -> None:
    """One document, on a line of its own."""
    print(json.dumps(document.model_dump(mode="json")), flush=True)


def say(document: BaseModel, as_json: bool, text: str) -> None:
    """One result, as a document or in words."""
    if as_json:
        emit(document)
    else:
        console.stdout().print(text, markup=False)


def before_a_command(context: typer.Context, as_json: bool) -> bool:
    """Whether a command follows; raises BadParameter for a --json before it, which would be passed over."""
    if context.invoked_subcommand is not None and as_json:
        raise typer.BadParameter(f"--json goes behind the command: {context.invoked_subcommand} --json")
    return context.invoked_subcommand is not None


def ended(code: int) -> dict[str, Any]:
    """The event of a run's end, as the webhook is told of it."""
    return {"event": "exit", "code": code}


@contextmanager
def notifying(home: Home, tag: str) -> Iterator[Tell]:
    """What to call with every event of a run: tells the webhook, if there is one.

    An error that ends the run is told, too.
    """
    from runner.people.host import notify

    err = console.stderr()
    found = notify.notifier(
        home, policy_files.load(*home.policies).notify, tag, lambda text: err.print(f"glovebox: {text}", markup=False)
    )
    if found is None:
        yield lambda _: None
        return
    try:
        if home.ledger.exists():
            book = ledger.Ledger(home.ledger, read_only=True)
            for row in book.experiments(tag):
                found.row(row.model_dump(mode="json"), old=True)
            book.close()
        yield found.event
    except BusyError:
        raise  # it is another's run, which goes on
    except GloveboxError as error:
        found.event(ended(error.exit_code))
        raise
    finally:
        found.close()


def tag_name(name: str) -> str:
    """A name that a tag may have; raises BadParameter."""
    try:
        return TypeAdapter(Tag).validate_python(name)
    except ValidationError:
        told = f"{name!r}: use lower case letters and digits, . _ - between them, at most 40"
        raise typer.BadParameter(told) from None


def newest(home: Home, book: ledger.Ledger, tag: str | None) -> str:
    """The tag asked for, by its own or a person's name, else the one at work, else the newest that is not archived.

    Raises UsageError if there is none, or not that one.
    """
    if not os.access(home.root, os.W_OK):
        console.stderr().print("note: this bench is read-only: it is shown as it lies", markup=False)
    names = tag_book.read(home)
    tags = [one for one in book.tags() if one not in names.archived] or book.tags()
    tag = tag and tag_book.tag_of(home, tag)
    if tag is None and not tags:
        raise UsageError("no experiment has been run yet", fix="run: glovebox run --tag NAME")
    if tag is not None:
        book.run_info(tag)
    at_work = benches.tag_at_work(home)  # its first experiment may not have ended yet
    return tag or next((one for one in tags if one == at_work or (at_work not in tags and book.begun(one))), tags[0])


def numbered(home: Home, book: ledger.Ledger, tag: str | None, number: int) -> Experiment:
    """An experiment of the tag asked for; raises UsageError if there is none of that number."""
    name = newest(home, book, tag)
    rows = book.experiments(name)
    row = next((row for row in rows if row.id == number), None)
    if row is None:
        known = f"1 to {max(row.id for row in rows)}" if rows else "none yet"
        raise UsageError(f"no experiment {number} in tag {name}", where="ledger", fix=f"experiments: {known}")
    return row


def there(path: Path, kind: str = "file", fix: str = "check the path: ls -l") -> Path:
    """A path that a person named; raises UsageError if nothing is there."""
    if not path.exists():
        raise UsageError(f"no such {kind}", where=str(path), fix=fix)
    return path
