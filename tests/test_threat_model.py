"""docs/threat-model.md says what is true: every row's evidence exists, and every probe stands in its row."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from runner.core.airlock import leak_budget
from runner.core.base.mountable import SOURCE
from runner.core.policy.policy_files import Policies
from runner.people.redteam.campaign import SCENARIOS
from runner.people.redteam.probes import PROBES

DOCUMENT = SOURCE / "docs" / "threat-model.md"
ROW = re.compile(r"^\| (T\d\d) \| (.+?) \| (.+?) \| (.+?) \| (.*?) \|$", re.MULTILINE)
ROWS = {match[1]: match for match in ROW.finditer(DOCUMENT.read_text())}


def evidence(row: re.Match[str]) -> list[str]:
    return re.findall(r"`([^`]+)`", row[5])


def test_every_probe_stands_in_the_row_it_is_about_and_nowhere_else() -> None:
    listed = {name: {e for e in evidence(row) if not e.startswith("tests/")} for name, row in ROWS.items()}
    known: defaultdict[str, set[str]] = defaultdict(set)
    for probe in (*PROBES, *SCENARIOS):
        known[probe.threat].add(probe.id)
    assert listed == {name: known[name] for name in ROWS}
    assert set(known) <= set(ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_a_row_has_evidence_and_its_tests_exist(name: str) -> None:
    found = evidence(ROWS[name])
    assert found, f"{name} has no evidence"
    for test in (e for e in found if e.startswith("tests/")):
        assert exists(test), test


def exists(test: str) -> bool:
    """Whether FILE::FUNCTION is a test, or FILE holds some."""
    path, named, function = test.partition("::")
    source = SOURCE / Path(path)
    wanted = rf"{re.escape(function)}\(" if named else "test_"
    return source.is_file() and re.search(rf"^def {wanted}", source.read_text(), re.MULTILINE) is not None


def test_a_beginning_of_a_name_and_an_empty_one_are_no_evidence() -> None:
    here = "tests/test_threat_model.py"
    assert exists(here)
    assert exists(f"{here}::test_rows_are_numbered_without_gaps")
    for wrong in (f"{here}::test_rows_are", f"{here}::", "tests/test_nothing.py", "tests/conftest.py"):
        assert not exists(wrong), wrong


def test_rows_are_numbered_without_gaps() -> None:
    assert list(ROWS) == [f"T{number:02}" for number in range(1, len(ROWS) + 1)]


def test_the_residual_leak_it_states_is_the_one_that_is_computed(policies: Policies) -> None:
    text = DOCUMENT.read_text()
    assert f"{leak_budget.most(policies):,.0f} bits an experiment" in text
    assert f"{policies.metrics.leak.night_bits:,} bits" in text
    channels = leak_budget.channels(policies)
    assert f"loss curve {channels['loss curve']:.0f}" in text
    assert f"summary {channels['summary']:.0f}" in text
    assert f"{channels['crash message']:.0f}," in text


def test_what_very_long_tags_may_tell_is_computed(policies: Policies) -> None:
    told = leak_budget.told(policies, [])
    text = " ".join((SOURCE / "docs" / "operations.md").read_text().split())
    assert f"An outcome alone is {told.bare:.0f} bits, so there is room for {told.left:,} of them" in text
    assert f"{10_000 * told.bare / 8192:.0f} KiB" in text
    assert f"{10_000 * told.bare / 8192:.0f} KiB" in (SOURCE / "SECURITY.md").read_text()


def test_what_security_md_promises_has_rows_and_code_that_exist(policies: Policies) -> None:
    text = (SOURCE / "SECURITY.md").read_text()
    table = text[text.index("| promise |") : text.index("## What you must not assume")].splitlines()[2:]
    rows = [line.strip("| ").split(" | ") for line in table if line.startswith("|")]
    assert len(rows) > 20
    for row in rows:
        named = set(re.findall(r"\bT\d\d\b", row[2]))
        assert named, row[0]
        assert named <= set(ROWS), row[0]
    for path in re.findall(r"`((?:runner|policies|trainer)/[\w./-]+)`", text):
        assert (SOURCE / path).exists(), path
    assert f"{leak_budget.most(policies):,.0f} bits an experiment" in text


def test_the_picture_of_the_rooms_is_what_its_script_draws() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/diagram.py", "--check"], cwd=SOURCE, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
