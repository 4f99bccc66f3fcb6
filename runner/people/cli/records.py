"""`glovebox logs`, `best` and `explain`: finding one's way in what a bench has. TRUSTED.

Logs are what untrusted code printed. They are for people: escapes are taken out, and nothing here reads them.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from runner.core.airlock import invisible
from runner.core.base import files
from runner.core.base.benches import find
from runner.core.base.errors import UsageError, VerifyError
from runner.core.base.home import Home
from runner.core.base.values import Experiment
from runner.core.decision import standing
from runner.core.evidence import ledger
from runner.core.evidence.git_line import GitLine
from runner.people.cli.common import Json, TagOption, emit, newest, numbered, say
from runner.people.cli.documents import record
from runner.people.pages import console, reasons

ROOMS = ("trainer", "evaluator")  # the agent's log is its session's
_MOST = 8 << 20  # bytes that are looked at, from the end
_WIDTH = 2000  # characters of a line
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]{0,40}[ -/]{0,8}[@-~]|\][^\x07\x1b]{0,400}(?:\x07|\x1b\\)|[@-_])")
_ENDS = re.compile(r"\r\n|\r|\n")


def logs(
    experiment: Annotated[int, typer.Argument(help="Number of the experiment.")],
    room: Annotated[str, typer.Argument(help="trainer or evaluator; without it, which logs there are.")] = "",
    tag: TagOption = None,
    lines: Annotated[int, typer.Option(min=1, help="Only the last so many lines.")] = 200,
    json_: Json = False,
) -> None:
    """What containers of an experiment printed: words of untrusted code, for people only, without escapes."""
    home = find()
    row = numbered(home, ledger.Ledger(home.ledger, read_only=True), tag, experiment)
    there = files_of(home, row)
    if not room:
        paths = {name: str(path) for name, path in there.items()}
        say(record.Logs(experiment=row.id, logs=paths), json_, _listed(row, there))
        return
    if room not in ROOMS:
        raise UsageError(f"no room {room}", fix=f"one of: {', '.join(ROOMS)}")
    if room not in there:
        known = ", ".join(there) or "none (gc removes old ones, backups have none)"
        raise UsageError(f"experiment {row.id} has no log of the {room}", fix=f"logs there are: {known}")
    text = printable(there[room], lines)
    if json_:
        emit(record.Log(experiment=row.id, room=room, path=str(there[room]), lines=text))
        return
    console.stderr().print(f"words of untrusted code, {there[room]}:", markup=False, soft_wrap=True)
    for line in text:
        print(line)


def files_of(home: Home, row: Experiment) -> dict[str, Path]:
    """The quarantined logs of an experiment that are still there, by room."""
    paths = {room: home.run(row.run) / f"{room}.log" for room in ROOMS}
    return {room: path for room, path in paths.items() if path.is_file() and not path.is_symlink()}


def _listed(row: Experiment, there: dict[str, Path]) -> str:
    found = [f"{room:<10} {path.stat().st_size:>10} bytes  {path}" for room, path in there.items()]
    return (
        "\n".join(found)
        or f"no log of experiment {row.id} is here: glovebox gc removes old ones, and backups have none"
    )


def printable(path: Path, most: int) -> list[str]:
    """Last lines of a file that may hold anything, fit for a terminal: no escapes, nothing unseen, none without end."""
    with files.open_plain(path) as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - _MOST))
        text = file.read(_MOST).decode("utf-8", "replace")
    found = _ENDS.split(text)
    last = (found if found[-1] else found[:-1])[-most:]  # nothing else is looked at: a file may have millions
    return [_fit(line) for line in last]


def _fit(line: str) -> str:
    plain = invisible.printable(_ESCAPES.sub("", line[: 4 * _WIDTH]))
    return plain if len(plain) <= _WIDTH else f"{plain[:_WIDTH]} ..."


def best(
    tag: TagOption = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write it there, not to the screen.")] = None,
    json_: Json = False,
) -> None:
    """The best train.py of a run, as the ledger has it."""
    home = find()
    book = ledger.Ledger(home.ledger, read_only=True)
    name = newest(home, book, tag)
    row = standing.best(book.experiments(name))
    if row is None or row.val_bpb is None:
        raise UsageError(f"nothing was kept in tag {name}", fix="glovebox history says how its experiments ended")
    data = GitLine(home.line, make=False).content(row.commit)
    if hashlib.sha256(data).hexdigest() != row.snapshot:
        what = f"the commit of experiment {row.id} is not its train.py"
        raise VerifyError(what, where=str(home.line), fix="glovebox verify; restore it from a backup")
    told = f"experiment {row.id} of {name}, val_bpb {row.val_bpb:.6f}"
    if output is not None:
        try:
            files.write(output, data, replace=False)
        except FileExistsError:
            raise UsageError("is there already", where=str(output), fix="name a file that is not") from None
        written = record.BestWritten(experiment=row.id, tag=name, val_bpb=row.val_bpb, path=str(output))
        say(written, json_, f"{output}: {told}")
        return
    text = data.decode("utf-8", "replace")
    if json_:
        emit(record.Best(experiment=row.id, tag=name, val_bpb=row.val_bpb, train_py=text))
        return
    console.stderr().print(told, markup=False)
    if sys.stdout.isatty():  # a restored bench may be a stranger's
        text = "\n".join(map(invisible.printable, text.split("\n")))
    sys.stdout.write(text)


def explain(
    reason: Annotated[str, typer.Argument(help="A word of a row; without it, all of them.")] = "",
    json_: Json = False,
) -> None:
    """What an outcome or a reason means, and what to do."""
    found = {word: one for word, one in reasons.EVERY.items() if reason in ("", word)}
    if not found:
        near = difflib.get_close_matches(reason, reasons.EVERY, 3, 0.4)
        raise UsageError(
            f"no outcome or reason {reason}", fix=f"near: {', '.join(near)}" if near else "glovebox explain"
        )
    if json_:
        emit(record.Explained({word: record.Meaning(**one._asdict()) for word, one in found.items()}))
        return
    for word, one in found.items():
        then = f". What to do: {one.remedy}" if one.remedy else ""
        console.stdout().print(f"{word}: {one.means}{then}", markup=False, soft_wrap=True)
