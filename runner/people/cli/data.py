"""`glovebox data`: what an artifact's text is like, in figures, on a page. TRUSTED."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from runner.core.airlock import invisible
from runner.core.artifacts import store
from runner.core.base import files
from runner.core.base.benches import find
from runner.core.base.errors import UsageError
from runner.people.cli.common import Json, emit
from runner.people.cli.documents import bench
from runner.people.pages import console
from runner.people.pages.progress import ShownStages

_FIGURES = ("documents begun", "tokens", "bytes of text", "bytes a token", "vocabulary used")


def data(
    version: Annotated[str, typer.Argument(help="An artifact; without it, the newest.")] = "",
    page: Annotated[Path | None, typer.Option(help="Also write it as a page for a browser here.")] = None,
    json_: Json = False,
) -> None:
    """What an artifact's text is like: documents, tokens, lengths, what was signed of it. Its files are checked."""
    from runner.core.data import statistics
    from runner.people.pages import data_page

    home = find()
    if page is not None and (os.path.lexists(page) or not page.parent.is_dir()):
        what = "is there already" if os.path.lexists(page) else "its folder is not there"
        raise UsageError(what, where=str(page), fix="name a new file in a folder that is there")
    folder, statement = store.looked_at(home, version or store.newest_of_any_age(home))
    found = statistics.of(folder, statement, ShownStages(console.stderr()))
    if page is not None:
        files.write(page, data_page.render(found), replace=False)
    if json_:
        sides = [bench.Side(**asdict(side), bytes_per_token=side.bytes_per_token) for side in found.sides]
        told = {**asdict(found), "sides": sides}
        emit(bench.Data(**told, page=None if page is None else str(page)))
        return
    out = console.stdout()
    for name in ("source", "sources", "license", "origin"):
        out.print(f"{name:<9} {invisible.printable(found.provenance.get(name) or 'not said')}", markup=False)
    table = Table(title=f"{found.version}: {found.vocabulary:,} tokens of vocabulary", title_justify="left")
    for column in ("", *_FIGURES):
        table.add_column(column, justify="right" if column else "left")
    for side in found.sides:
        numbers = (side.begun, side.tokens, side.text_bytes)
        name = data_page.WORDS[side.name]
        table.add_row(name, *(f"{n:,}" for n in numbers), f"{side.bytes_per_token:.3f}", f"{side.used:,}")
    out.print(table)
    if page is not None:
        out.print(f"page: {page}", markup=False)
