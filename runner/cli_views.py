"""`glovebox history` and `glovebox show`: reading the ledger, one tag or one experiment. TRUSTED, reads only."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from runner import audit, console, ledger, policy, views
from runner.cli_common import Json, TagOption, newest
from runner.errors import GloveboxError
from runner.gitline import GitLine
from runner.home import find
from runner.records import Experiment, Status

MAX_DIFF_LINES = 400


def history(
    tag: TagOption = None,
    last: Annotated[int | None, typer.Option(min=1, help="Only the newest so many.")] = None,
    status: Annotated[Status | None, typer.Option(help="Only experiments that ended so.")] = None,
    json_: Json = False,
) -> None:
    """All experiments of a run, with what they told the agent in bits."""
    home = find()
    book = ledger.Ledger(home.ledger, read_only=True)
    name = newest(book, tag)
    rows = book.experiments(name)
    glance = views.history(rows, policy.load(*home.policies))
    chosen = [row for row in rows if status in (None, row.status)][-(last or len(rows)) :]
    document = {**ledger.summary(book, name), **glance}
    document["experiments"] = [row.model_dump(mode="json") for row in chosen]
    if json_:
        print(json.dumps(document))
        return
    out = console.stdout()
    console.table(document, out)
    counts = ", ".join(f"{count} {outcome}" for outcome, count in glance["outcomes"].items() if count)
    out.print(
        f"{counts or 'nothing yet'}; {glance['since_keep']} since the last keep; {glance['hours']} h", markup=False
    )
    out.print(f"told the agent: {glance['leak_bits']} of {glance['leak_limit']} bits", markup=False)


def show(
    experiment: Annotated[int, typer.Argument(help="Number of the experiment.")],
    tag: TagOption = None,
    json_: Json = False,
) -> None:
    """One experiment: its change, scores, loss curve, and what vouches for it."""
    home = find()
    book = ledger.Ledger(home.ledger, read_only=True)
    name = newest(book, tag)
    rows = book.experiments(name)
    row = next((row for row in rows if row.id == experiment), None)
    if row is None:
        known = f"1 to {rows[-1].id}" if rows else "none yet"
        raise GloveboxError(f"no experiment {experiment} in tag {name}", where="ledger", fix=f"experiments: {known}")
    before = views.parent(rows, row)
    diff = GitLine(home.line).diff(before.commit, row.commit) if before else ""
    receipt = audit.finished(audit.verify(home.audit)).get((name, experiment))
    if json_:
        document = {"experiment": row.model_dump(mode="json"), "compared_with": before.id if before else None}
        print(json.dumps({**document, "diff": diff, "receipt": receipt}))
        return
    _print(row, before, diff, receipt is not None)


def _print(row: Experiment, before: Experiment | None, diff: str, vouched: bool) -> None:
    out = console.stdout()
    out.print(f"{row.tag}, experiment {row.id}", markup=False, style="bold")
    for name, value in views.details(row, before):
        out.print(f"  {name:<18} {value}", markup=False, soft_wrap=True)
    out.print(f"  {'receipt':<18} {'in the audit chain' if vouched else 'MISSING'}", markup=False)
    unicode = (out.encoding or "").lower().startswith("utf")
    for line in views.chart(row.curve, max(20, out.width - 4), unicode=unicode):
        out.print(f"  {line}", markup=False)
    lines = diff.splitlines()
    for line in lines[:MAX_DIFF_LINES]:
        color = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")
        out.print(line, markup=False, style=color, soft_wrap=True)
    if len(lines) > MAX_DIFF_LINES:
        out.print(f"... {len(lines) - MAX_DIFF_LINES} lines more: --json has them all", markup=False)
