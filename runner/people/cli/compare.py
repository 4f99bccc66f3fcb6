"""`glovebox compare`: which directive, model or rule earned more, per hour and per dollar. TRUSTED."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, get_args

import typer
from rich.table import Table

from runner.core.artifacts import begun
from runner.core.base import files
from runner.core.base.benches import find
from runner.core.base.errors import UsageError
from runner.core.base.home import Home
from runner.core.base.values import INTERRUPTED
from runner.core.evidence import ledger, spending
from runner.core.findings import comparing
from runner.core.findings.comparing import By, Entry, Part
from runner.core.policy import of_tag
from runner.people.cli.common import Json, emit, newest
from runner.people.cli.documents import record
from runner.people.pages import console


def compare(
    tags: Annotated[list[str], typer.Argument(help="Tags to set side by side, or one to look into.")],
    by: Annotated[str, typer.Option(help=f"What tells their experiments apart: {', '.join(get_args(By))}.")] = "tag",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write a chart there (SVG).")] = None,
    json_: Json = False,
) -> None:
    """What tags, directives, models or rules earned: gain with its interval, per hour and per dollar."""
    kind = next((one for one in get_args(By) if one == by), None)
    if kind is None:
        raise typer.BadParameter(f"one of: {', '.join(get_args(By))}")
    home = find()
    book = ledger.Ledger(home.ledger, read_only=True)
    names = list(dict.fromkeys(newest(home, book, tag) for tag in tags))
    found = comparing.parts([entry for name in names for entry in entries(home, book, name)], kind)
    if not found:
        raise UsageError(f"no candidate was run in {', '.join(names)} yet", fix="glovebox status says what there is")
    if output is not None:
        _chart(found, output)
    if json_:
        emit(record.Compared(tags=names, by=kind, parts=found))
        return
    _print(found, by)
    if output is not None:
        console.stdout().print(f"chart: {output}", markup=False)


def entries(home: Home, book: ledger.Ledger, tag: str) -> list[Entry]:
    """A tag's experiments with what is known beside their rows; interrupted ones are left out."""
    policies = begun.under(home, book.run_info(tag)["policy"], list(of_tag.known(home.policies)))
    rule = "unknown" if policies is None else policies.decision.rule
    rows, costs = book.experiments(tag), spending.by_experiment(home.spent, tag)
    found = []
    for row, gain in zip(rows, comparing.earned(rows), strict=True):
        cost = costs.get(row.id)
        if row.reason != INTERRUPTED:
            found.append(Entry(row, gain, rule, cost.model if cost else None, cost.dollars if cost else None))
    return found


def _chart(found: list[Part], output: Path) -> None:
    from runner.people.pages import plot

    try:
        files.write(output, plot.bars(found), replace=False)
    except FileExistsError:
        raise UsageError("is there already", where=str(output), fix="name a file that is not") from None


def _print(found: list[Part], by: str) -> None:
    view = Table()
    for column in (by, "experiments", "kept", "gain", "95 %", "per hour", "per dollar"):
        view.add_column(column, justify="left" if column == by else "right")
    for one in found:
        view.add_row(
            one.name,
            str(one.experiments),
            str(one.kept),
            f"{one.gain:+.5f}",
            "" if one.interval is None else f"{one.interval[0]:+.5f} to {one.interval[1]:+.5f}",
            "" if one.per_hour is None else f"{one.per_hour:+.5f}",
            "" if one.per_dollar is None else f"{one.per_dollar:+.5f}",
        )
    out = console.stdout()
    out.print(view)
    out.print("hours: of a lane, training and scoring; the interval: the luck of which ideas came up", markup=False)
