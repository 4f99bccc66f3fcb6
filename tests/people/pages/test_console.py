"""What people read on their own screen, narrow ones among them."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from runner.core.base.values import Status
from runner.people.pages import console
from tests.samples import experiment


def shown(width: int, *, odds: bool) -> tuple[str, list[str]]:
    beliefs: dict[str, Any] = (
        {"gain": -0.01231, "probability": 0.93} if odds else {"claimed": 0.0123, "confirmed": -0.4}
    )
    rows = [
        experiment(1001, val_bpb=1.234567, seconds=1234.5, description="wider, " * 20, **beliefs),
        experiment(1002, status=Status.NOT_EXPORTABLE, reason="data_dependent_control_flow", val_bpb=None),
    ]
    document = {
        "tag": "nov21",
        "experiments": [row.model_dump(mode="json") for row in rows],
        "baseline": 1.3,
        "best": 1.234567,
    }
    out = io.StringIO()
    console.table(document, Console(file=out, width=width, highlight=False))
    text = out.getvalue()
    return text, text.splitlines()


@pytest.mark.parametrize("odds", [True, False])
@pytest.mark.parametrize("width", [40, 54, 55, 60, 69, 70, 79, 80, 100, 140])
def test_a_narrow_screen_loses_columns_and_never_digits(width: int, odds: bool) -> None:
    text, lines = shown(width, odds=odds)
    assert all(len(line) <= width for line in lines)
    wanted = {"1001": 0, "1.234567": 0, ("0.93" if odds else "-0.4000"): 55, ("-0.0123" if odds else "+0.0123"): 70}
    for number, least in ({**wanted, "1234.5": 80}).items():
        assert (number in text) is (width >= least), number
    assert "…" not in text


def test_a_description_is_text_and_no_markup() -> None:
    out = io.StringIO()
    row = experiment(1, description="[red]not[/] [link=x]")
    document = {"tag": "t", "experiments": [row.model_dump(mode="json")], "baseline": 1.0, "best": None}
    console.table(document, Console(file=out, width=140))
    assert "[red]not[/] [link=x]" in out.getvalue()
