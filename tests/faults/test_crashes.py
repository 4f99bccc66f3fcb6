"""SIGKILL at every step of an experiment: nothing is lost, nothing runs twice unnoticed, and all records agree."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count, environ
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.core.base import faults
from runner.core.base.home import Home
from runner.core.base.mountable import SOURCE
from runner.core.base.values import INTERRUPTED, Status
from runner.core.evidence.ledger import Ledger
from tests.faults import driver
from tests.faults.agreement import agree

pytestmark = pytest.mark.slow
COUNT = 7
RUNNERS = [point for point in faults.POINTS if not point.startswith(("launcher.", "broker."))]


def session(home: Home, fault: str = "", count: int = COUNT) -> int:
    """One runner process; returns its exit code, -9 if it was killed."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.driver", str(home.root), str(count)],
        env={**environ, "PYTHONPATH": str(SOURCE), faults.VARIABLE: fault},
        cwd=SOURCE,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


@pytest.fixture(scope="module")
def template(prepared: Home) -> Home:
    return prepared


def test_a_runner_killed_anywhere_goes_on_as_if_it_had_not_been(prepared: Home, tmp_path: Path) -> None:
    """Every point, on a bench of its own; as many at a time as there are processors."""

    def killed(point: str) -> str | None:
        home = Home(tmp_path / point / ".glovebox")
        shutil.copytree(prepared.root, home.root)
        try:
            assert session(home, f"{point}:2") == -signal.SIGKILL, "it was not reached twice"
            assert session(home) == 0
            agree(home)
            rows = Ledger(home.ledger, read_only=True).experiments(driver.TAG)
            assert sum(row.reason == INTERRUPTED for row in rows) == (point in OPEN)
        except AssertionError as error:
            return f"{point}: {error}"
        return None

    with ThreadPoolExecutor(cpu_count()) as pool:
        assert [told for told in pool.map(killed, RUNNERS) if told] == []


# Where the row is open when the process dies: that experiment is recorded as interrupted. Before, nothing had begun;
# after, it is complete.
OPEN = {
    "ledger.opened", "experiment.accepted", "experiment.trained", "experiment.evaluated", "row.committed",
    "rerun.opened", "rerun.evaluated", "rerun.recorded",
}  # fmt: skip


def test_a_night_without_crashes_agrees_too(home: Home) -> None:
    """The nearest case: and the checks above look at something."""
    assert session(home) == 0
    agree(home)
    rows = Ledger(home.ledger, read_only=True).experiments(driver.TAG)
    assert {row.status for row in rows} >= {Status.KEEP, Status.DISCARD, Status.CRASH}
    assert any(row.veto is not None for row in rows)
    assert len(Ledger(home.ledger, read_only=True).reruns(driver.TAG)) >= 2  # each of their points is reached twice


def test_the_checks_notice_what_a_crash_leaves_behind(home: Home) -> None:
    """The positive control: without the second session, most places leave records that disagree."""
    session(home, "row.recorded:2")
    with pytest.raises(AssertionError):
        agree(home)


@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(schedule=st.lists(st.tuples(st.sampled_from(RUNNERS), st.integers(1, 4)), min_size=2, max_size=4))
def test_any_schedule_of_crashes_ends_in_records_that_agree(template: Home, schedule: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder) / ".glovebox")
        shutil.copytree(template.root, home.root)
        for point, nth in schedule:
            session(home, f"{point}:{nth}")
        assert session(home) == 0
        agree(home)


def test_every_point_in_the_code_is_listed_and_every_listed_one_is_in_the_code() -> None:
    text = "\n".join(path.read_text() for path in (SOURCE / "runner").rglob("*.py") if path.name != "faults.py")
    assert set(re.findall(r'faults\.reach\("([a-z_.]+)"\)', text)) == set(faults.POINTS)


def test_without_the_variable_a_point_does_nothing_and_an_unlisted_one_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(faults.VARIABLE, raising=False)
    faults.reach("row.recorded")
    with pytest.raises(ValueError, match="not a fault point"):
        faults.reach("nowhere")


def test_a_lock_that_a_killed_git_left_does_not_stop_the_next_session(home: Home) -> None:
    assert session(home, "", 2) == 0
    lock = home.line / "refs" / "heads" / "autoresearch" / f"{driver.TAG}.lock"
    lock.touch()
    (home.line / "packed-refs.lock").touch()
    assert session(home) == 0
    agree(home)
