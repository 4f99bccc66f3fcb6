"""A tag goes on under the rule it was begun with, whatever a new version ships."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from runner.core.base.home import SOURCE
from runner.core.policy.of_tag import known, of_tag
from runner.core.policy.policy_files import load, terms

SHIPPED = SOURCE / "policies"


def test_every_version_before_is_tried() -> None:
    assert {path.name for path in (SHIPPED / "past").glob("*/")} == {
        "2026-11",
        "2026-11-26",
        "2026-11-26.2",
        "2026-11-27",
    }


def test_a_tag_of_now_has_the_policies_in_force(tmp_path: Path) -> None:
    now = load(SHIPPED)
    assert (
        of_tag(known((tmp_path, SHIPPED)), terms(now, "kernels-1", "cache-2"), "kernels-1", ["cache-1", "cache-2"])
        == now
    )


@pytest.mark.parametrize(
    ("past", "rule"), [("2026-11", "paired"), ("2026-11-26", "odds"), ("2026-11-26.2", "odds"), ("2026-11-27", "odds")]
)
def test_a_tag_of_a_version_before_keeps_its_rule(tmp_path: Path, past: str, rule: str) -> None:
    begun = load(tmp_path, SHIPPED / "past" / past, SHIPPED)
    assert begun.decision.rule == rule
    assert begun.terms != load(SHIPPED).terms
    found = of_tag(known((tmp_path, SHIPPED)), terms(begun, None), None, [])
    assert found is not None
    assert (found.decision, found.digest) == (begun.decision, load(SHIPPED).digest)


def test_what_the_bench_itself_sets_is_nobodys_past(tmp_path: Path) -> None:
    text = (SHIPPED / "decision.yaml").read_text()
    (tmp_path / "decision.yaml").write_text(text.replace("alpha: 0.05 ", "alpha: 0.06 "))
    mine = load(tmp_path, SHIPPED)
    assert of_tag(known((tmp_path, SHIPPED)), terms(mine, None), None, []) == mine
    assert of_tag(known((tmp_path, SHIPPED)), terms(load(SHIPPED), None), None, []) is None  # it was begun under others


def test_other_terms_are_not_found(tmp_path: Path) -> None:
    other = tmp_path / "shipped"
    shutil.copytree(SHIPPED, other)
    assert of_tag(known((tmp_path, other)), "0" * 64, None, ["cache-1"]) is None
