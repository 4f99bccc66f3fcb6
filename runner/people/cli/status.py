"""`glovebox status`, and the table that a run ends with. TRUSTED, reads only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runner.core.airlock import leak_budget
from runner.core.artifacts import begun
from runner.core.base.benches import find
from runner.core.base.home import Home
from runner.core.base.values import Experiment
from runner.core.decision import standing
from runner.core.evidence import ledger, spending, texts
from runner.people.cli.common import Json, TagOption, emit, newest
from runner.people.cli.documents import record
from runner.people.pages import console, views

_GPU = ("GPU-", "MIG-")


def status(tag: TagOption = None, json_: Json = False) -> None:
    """Experiments of a run, with the baseline and the best."""
    show(find(), tag, json_)


def show(home: Home, tag: str | None, as_json: bool) -> None:
    """A run's experiments, baseline, best and cost."""
    book = ledger.Ledger(home.ledger, read_only=True)
    name = newest(home, book, tag)
    rows = book.experiments(name)
    cost, away = spending.spent(home.spent, name), spending.away(home.broker)
    told = leak_budget.told(begun.under_or_now(home, book.run_info(name)["policy"]), rows)
    document = record.Status(
        **facts(book, name),
        report=str(home.tag(name) / "report.html"),
        cost=None if cost is None else record.Cost(**cost),
        away_until=None if away is None else away.isoformat(),
        paused=texts.paused(home, texts.Texts(book), name),
        **views.leak(told, len(rows)),
    )
    if as_json:
        emit(document)
        return
    out = console.stdout()
    console.table(document.model_dump(mode="json"), out)
    if cost is not None:
        out.print(f"model: ${cost['dollars']:.4f}, {cost['requests']} calls, {cost['tokens']} tokens", markup=False)
    out.print(f"told the agent: {views.leak_line(document.model_dump())}", markup=False)
    if away is not None:
        out.print(f"model: away, asked again at {away.astimezone():%H:%M:%S}", markup=False)
    if document.paused:
        out.print(f"{name} is paused (glovebox resume)", markup=False)
    out.print(f"report: {document.report}", markup=False)


def facts(book: ledger.Ledger, tag: str, shown: Sequence[Experiment] | None = None) -> dict[str, Any]:
    """What `status` and `history` say of a tag alike; `shown`: some of its experiments, None: all."""
    rows = book.experiments(tag)
    baseline, best = standing.baseline(rows), standing.best(rows)
    return {
        **ledger.start(book, tag),
        "baseline": baseline and baseline.val_bpb,
        "best": best and best.val_bpb,
        "expected": standing.expected(rows),
        "running": book.open_numbers(tag),
        "reruns": len(book.reruns(tag)),
        "experiments": [_row(row) for row in (rows if shown is None else shown)],
    }


def _row(row: Experiment) -> record.Row:
    gpu = next((part for part in row.lane.split("/") if part.startswith(_GPU)), None)
    device = row.speed.name if row.speed is not None else gpu or ("cpu" if row.train_seconds else None)
    # Its values were checked when the row was read; again would be a quarter of the time at ten thousand rows.
    return record.Row.model_construct(**dict(row), expected=row.gain, device=device)
