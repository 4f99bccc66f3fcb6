"""report.html: self-contained, scriptless, everything escaped."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from runner.core.base.home import Home
from runner.core.base.values import Crash, Status
from runner.core.evidence.git_line import GitLine
from runner.core.evidence.ledger import Ledger
from runner.core.policy.policy_files import Policies
from runner.people.pages import plot, report
from tests.samples import experiment

EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)> $x^2$ \"'& </style>"


@pytest.fixture
def page(home: Home, policies: Policies) -> str:
    ledger = Ledger(home.ledger)
    ledger.begin_run("t", "2026-01-01T00:00:00+00:00", "demo-1", "f" * 64)
    line = GitLine(home.line)
    rows = [
        experiment(1, description="baseline"),
        experiment(2, description=EVIL),
        experiment(3, status=Status.CRASH, val_bpb=None, reason="exception", crash=Crash(error="KeyError", line=3)),
        experiment(4, status=Status.DISCARD),
    ]
    for row in rows:
        commit = line.commit("t", row.id, f"# {EVIL}\nx = {row.id}\n".encode(), "x")
        row = row.model_copy(update={"commit": commit})
        ledger.open_experiment("t", started="", description="", snapshot=row.snapshot, size=1, run=row.run)
        ledger.close_experiment(row)
    return report.write(home, ledger, policies, "t").read_text()


class Collector(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs


def test_no_script_no_event_handler_and_no_outside_resource(page: str) -> None:
    found = Collector()
    found.feed(page)
    assert not {"script", "iframe", "img", "object", "form"} & set(found.tags)
    assert "svg" in found.tags
    for name, value in found.attributes:
        assert not name.startswith("on")
        if name in ("src", "href", "xlink:href"):
            assert (value or "").startswith("#") or value == "data:,"  # an empty icon, or browsers ask for one


def test_hostile_descriptions_are_shown_as_text(page: str) -> None:
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_the_policy_forbids_everything_but_inline_style(page: str) -> None:
    assert "default-src 'none'" in page
    assert "script-src" not in page


def test_the_table_and_the_headline_are_there(page: str) -> None:
    for text in ("1.9900 → 1.9800", "KeyError, train.py line 3", "What was kept", "-x = 1", "+x = 2"):
        assert text in page


def test_the_plot_is_the_same_for_the_same_rows() -> None:
    rows = [experiment(i) for i in range(1, 5)]
    assert plot.frontier(rows) == plot.frontier(rows)
    assert plot.frontier([]) == ""
