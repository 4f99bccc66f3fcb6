"""A run's page is written by a process of its own: nobody waits for it, and nothing it stumbles over ends a night."""

from __future__ import annotations

import subprocess

import pytest

from runner.core.base.home import Home
from runner.core.base.values import Status
from runner.core.evidence.ledger import Ledger
from runner.people.host import page_writer, processes
from runner.people.host.page_writer import PageWriter, writing
from tests.samples import experiment

FINISHED = {"event": "finished"}


@pytest.fixture
def begun(home: Home) -> Home:
    ledger = Ledger(home.ledger)
    ledger.begin_run("t", "2026-01-01T00:00:00+00:00", "demo-1", "0" * 64)
    ledger.close()
    return home


def record(home: Home, number: int) -> None:
    ledger = Ledger(home.ledger)
    status = Status.KEEP if number == 1 else Status.DISCARD
    row = experiment(number, status=status, description=f"proposal {number}")
    ledger.open_experiment("t", started="", description="", snapshot=row.snapshot, size=1, run=row.run)
    ledger.close_experiment(row)
    ledger.close()


def page(home: Home) -> str:
    return (home.tag("t") / "report.html").read_text()


def test_what_ended_while_a_page_was_written_is_on_the_next(begun: Home) -> None:
    with writing(begun, "t") as writer:
        for number in (1, 2, 3):
            record(begun, number)
            writer.event(FINISHED)
    assert all(f"proposal {number}" in page(begun) for number in (1, 2, 3))


def test_other_events_start_no_process(begun: Home) -> None:
    with writing(begun, "t") as writer:
        writer.event({"event": "started"})
        assert writer._process is None


def test_one_process_writes_all_pages_and_ends_with_the_run(begun: Home) -> None:
    with writing(begun, "t") as writer:
        record(begun, 1)
        writer.event(FINISHED)
        first = writer._process
        record(begun, 2)
        writer.event(FINISHED)
        assert writer._process is first
    assert first is not None
    assert first.poll() == 0
    assert "proposal 2" in page(begun)


def test_one_that_was_killed_is_started_again(begun: Home) -> None:
    with writing(begun, "t") as writer:
        record(begun, 1)
        writer.event(FINISHED)
        assert writer._process is not None
        writer._process.kill()
        writer._process.wait()
        record(begun, 2)
        writer.event(FINISHED)
    assert "proposal 2" in page(begun)


def test_a_page_that_takes_long_holds_up_nobody(begun: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads nothing and does not end: neither a thousand events nor the end of the run wait for it."""
    started: list[subprocess.Popen[str]] = []

    def start(*_: str, stdin: int, **__: int) -> subprocess.Popen[str]:
        started.append(subprocess.Popen(["sleep", "60"], stdin=stdin, text=True))
        return started[-1]

    monkeypatch.setattr(processes, "start", start)
    monkeypatch.setattr(page_writer, "_LAST_SECONDS", 0.1)
    writer = PageWriter(begun, "t")
    for _ in range(100_000):  # more than a pipe holds
        writer.event(FINISHED)
    writer.close()
    try:
        assert [process.poll() for process in started] == [None]
    finally:
        for process in started:
            process.kill()
            process.wait()


def test_a_page_that_fails_is_a_line_for_people_and_no_error(begun: Home, capfd: pytest.CaptureFixture[str]) -> None:
    writer = PageWriter(begun, "nosuch")
    writer.event(FINISHED)
    writer.close()
    assert "the report was not written: UsageError" in capfd.readouterr().err
