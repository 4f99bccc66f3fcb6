"""`glovebox history`, `show` and `watch`: reading the ledger, of one tag, of one run, now. TRUSTED."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live

from runner.core.airlock import invisible
from runner.core.artifacts import begun
from runner.core.base.benches import find
from runner.core.base.values import OUTCOMES, Experiment
from runner.core.decision import standing
from runner.core.evidence import audit_chain, ledger
from runner.core.evidence.git_line import GitLine
from runner.people.cli import status as status_
from runner.people.cli.common import Json, TagOption, emit, newest, notifying, numbered
from runner.people.cli.documents import record
from runner.people.cli.records import files_of
from runner.people.pages import console, views
from runner.people.pages import watch as watching

MAX_DIFF_LINES = 400


def history(
    tag: TagOption = None,
    last: Annotated[int | None, typer.Option(min=1, help="Only the newest so many.")] = None,
    status: Annotated[str | None, typer.Option(help=f"Only experiments that ended so: {', '.join(OUTCOMES)}.")] = None,
    json_: Json = False,
) -> None:
    """All experiments of a run, with what they told the agent in bits."""
    if status not in (None, *OUTCOMES):
        raise typer.BadParameter(f"one of: {', '.join(OUTCOMES)}")
    home = find()
    book = ledger.Ledger(home.ledger, read_only=True)
    name = newest(home, book, tag)
    rows = book.experiments(name)
    glance = views.history(rows, begun.under_or_now(home, book.run_info(name)["policy"]))
    chosen = [row for row in rows if status in (None, row.outcome)][-(last or len(rows)) :]
    document = record.History(**status_.facts(book, name, chosen), **glance)
    if json_:
        emit(document)
        return
    out = console.stdout()
    console.table(document.model_dump(mode="json"), out)
    counts = ", ".join(f"{count} {outcome}" for outcome, count in glance["outcomes"].items() if count)
    out.print(
        f"{counts or 'nothing yet'}; {glance['since_keep']} since the last keep; {glance['hours']} h", markup=False
    )
    out.print(f"told the agent: {views.leak_line(glance)}", markup=False)


def watch(
    tag: TagOption = None,
    interval: Annotated[float, typer.Option(min=0.2, help="Seconds between two looks.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Print one picture and end.")] = False,
    notify: Annotated[
        bool, typer.Option("--notify", help="Tell the webhook of policies/notify.yaml, as glovebox up does.")
    ] = False,
    json_: Json = False,
) -> None:
    """Watch a run: the experiment in progress with its curve, the frontier, last results, cost. Ctrl-C ends."""
    home = find()
    book = ledger.Ledger(home.ledger, read_only=True)
    name = newest(home, book, tag)
    looks = watching.Look(home, begun.under_or_now(home, book.run_info(name)["policy"]), book, name)
    out = console.stdout()
    unicode = (out.encoding or "").lower().startswith("utf")
    seen = len(book.experiments(name))

    def look() -> watching.State:
        nonlocal seen
        state = looks.now()
        for row in state.rows[seen:]:
            told({"event": "finished", "row": row.model_dump(mode="json")})
        seen = len(state.rows)
        return state

    with notifying(home, name) if notify else nullcontext(lambda _: None) as told:
        if json_ or once or not out.is_terminal:
            _plainly(look, out, interval, once, json_)
            return
        with suppress(KeyboardInterrupt), Live(console=out, auto_refresh=False) as live:
            while True:
                live.update(watching.frame(look(), out.width, unicode=unicode), refresh=True)
                time.sleep(interval)


def _plainly(look: Callable[[], watching.State], out: Console, interval: float, once: bool, json_: bool) -> None:
    """Where nobody watches a terminal: a line or a document whenever an experiment begins or ends."""
    before = None
    with suppress(KeyboardInterrupt):
        while True:
            state = look()
            now = (state.count, [one.number for one in state.running])
            if now != before:
                if json_:
                    emit(_watched(state))
                else:
                    out.print(watching.frame(state, out.width, unicode=False))
            if once:
                return
            before = now
            time.sleep(interval)


def _watched(state: watching.State) -> record.Watched:
    return record.Watched(
        tag=state.tag,
        experiments=state.count,
        last=list(state.rows[-watching.SHOWN_ROWS :]),
        running=[record.Running(**one.__dict__) for one in state.running],
        cost=None if state.cost is None else record.Cost(**state.cost),
        away_until=state.away,
        gpus=state.gpus,
        hours=round(state.hours, 3),
        leak_bits=round(state.leak_bits),
        leak_limit=state.leak_limit,
        leak_experiments_left=state.leak_left,
        leak_ends_at=state.leak_ends_at,
        paused=state.paused,
        hints=state.hints,
    )


def show(
    experiment: Annotated[int, typer.Argument(help="Number of the experiment.")],
    tag: TagOption = None,
    json_: Json = False,
) -> None:
    """One experiment: its change, scores, loss curve, and what vouches for it."""
    home = find()
    book = ledger.Ledger(home.ledger, read_only=True)
    row = numbered(home, book, tag, experiment)
    name = row.tag
    before = standing.parent(book.experiments(name), row)
    diff = GitLine(home.line, make=False).diff(before.commit, row.commit) if before else ""
    reruns = [rerun for rerun in book.reruns(name) if rerun.experiment == row.id]
    receipt = audit_chain.by_name(audit_chain.read(home.audit), "finished").get((name, experiment))
    if json_:
        emit(
            record.Shown(
                experiment=row,
                compared_with=before.id if before else None,
                reruns=reruns,
                diff=diff,
                receipt=receipt,
                logs={room: str(path) for room, path in files_of(home, row).items()},
            )
        )
        return
    details = views.details(row, before, reruns) + [(f"{r} log", str(path)) for r, path in files_of(home, row).items()]
    _print(row, details, diff, receipt is not None)


def _print(row: Experiment, details: list[tuple[str, str]], diff: str, vouched: bool) -> None:
    out = console.stdout()
    out.print(f"{row.tag}, experiment {row.id}", markup=False, style="bold")
    for name, value in details:
        out.print(f"  {name:<18} {invisible.printable(value)}", markup=False, soft_wrap=True)
    out.print(f"  {'receipt':<18} {'in the audit chain' if vouched else 'MISSING'}", markup=False)
    unicode = (out.encoding or "").lower().startswith("utf")
    for line in views.chart(row.curve, max(20, out.width - 4), unicode=unicode):
        out.print(f"  {line}", markup=False)
    lines = diff.splitlines()
    for line in lines[:MAX_DIFF_LINES]:
        color = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")
        out.print(invisible.printable(line), markup=False, style=color, soft_wrap=True)
    if len(lines) > MAX_DIFF_LINES:
        out.print(f"... {len(lines) - MAX_DIFF_LINES} lines more: --json has them all", markup=False)
