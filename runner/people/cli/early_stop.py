"""`glovebox early-stop study`: would ending hopeless runs early pay? TRUSTED, reads only."""

from __future__ import annotations

from typing import Annotated

import typer

from runner.core.artifacts import begun
from runner.core.base.benches import find
from runner.core.evidence import ledger
from runner.core.findings import early_stopping
from runner.people.cli.common import Json, newest, say
from runner.people.cli.documents import record

early_stop_app = typer.Typer(
    name="early-stop", help="Ending hopeless runs early.", no_args_is_help=True, rich_markup_mode=None
)


@early_stop_app.callback()
def _group() -> None:
    """Ending hopeless runs early."""


@early_stop_app.command()
def study(
    tag: Annotated[str | None, typer.Argument(help="A run; default: the newest.")] = None, json_: Json = False
) -> None:
    """Say from a run's own experiments what ending hopeless ones early would have saved, and lost."""
    home = find()
    book = ledger.Ledger(home.ledger, read_only=True)
    name = newest(home, book, tag)
    decision = begun.under_or_now(home, book.run_info(name)["policy"]).decision
    with book.at_once():
        rows, reruns = book.experiments(name), book.reruns(name)
    found = early_stopping.study(decision, rows, reruns)
    document = record.EarlyStopStudied(
        tag=name, study=found, faster=round(found.faster, 3), lost=round(found.lost, 4), advice=found.advice
    )
    say(document, json_, "\n".join(_lines(name, found)))


def _lines(tag: str, found: early_stopping.Study) -> list[str]:
    at = ", ".join(f"{look:.0%}: {sum(one.look == look for one in found.ended)}" for look in found.together)
    lost = [one for one in found.ended if one.kept]
    named = f" ({', '.join(f'#{one.experiment}' for one in lost[:20])})" if lost else ""
    lines = [
        f"{tag}: {found.runs} scored runs told their loss, {len(found.ended)} of them would have been ended"
        + (f" (at {at} of the budget)" if at else ""),
        f"time of training saved: {found.saved:.1%}, {found.faster:.2f} times as many experiments in an hour",
        f"of {found.keeps} keeps {len(lost)} would have been lost{named}, {found.lost:.1%} of the gain",
    ]
    if found.together:
        told = ", ".join(f"{value:+.2f} at {look:.0%}" for look, value in found.together.items())
        lines.append(f"loss at a look and score go together: {told} (1: as one, 0: not at all)")
    if found.unknown:
        lines.append(f"{found.unknown} runs were ended early in fact: what they would have scored nobody knows")
    return [*lines, found.advice]
