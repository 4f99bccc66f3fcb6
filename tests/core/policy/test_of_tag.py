"""A tag goes on under the rule it was begun with, whatever a new version ships."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from runner.core.base.mountable import SOURCE
from runner.core.policy.of_tag import known, of_tag
from runner.core.policy.policy_files import _TERMS, load, terms

SHIPPED = SOURCE / "policies"


# What the tags of each version were begun under: rule, and digest of the six files that bear on a score. A folder of
# policies/past is complete, since a file that is missing there would be taken from what is shipped now.
BEGUN = {
    "2026-11-26": ("paired", "848cb43e34e79ee8ae6576400225e3d03b1e717760866d101a2f9470641e59d5"),
    "2026-11-26.2": ("paired", "2a040444d516b00c364548956ca9b215930251b5511018a3f67e1b657eb5c8cd"),
    "2026-11-26.3": ("odds", "4fab503edab453081fe36b1c833821b0dfa5941e11e356183601c741cfa4bd05"),
    "2026-11-26.4": ("odds", "6398be54b1406d355b453ac71d3684c90b100d72e39988b84726806a96933076"),
    "2026-11-26.5": ("odds", "c23a5e51089fc42be1d10c43c0c846a4f5501113c516e5a059cc016f20fe67b8"),
    "2026-11-28": ("odds", "2b9441741e5f9f1a1748076fe126ad918f13eea783ad4acb36deb0275ed6bee3"),
}
NOW = "8113305eea8f05713a0c3b90fd0b457ef1188876d678c6407f0952e14bd79320"


def test_what_is_shipped_changes_only_with_a_copy_of_what_was() -> None:
    """Even by a comment: terms are of bytes. Copy the six files as they were to policies/past/DATE, and pin both."""
    assert load(SHIPPED).terms == NOW
    assert {path.name for path in (SHIPPED / "past").glob("*/")} == set(BEGUN)


def test_a_tag_of_now_has_the_policies_in_force(tmp_path: Path) -> None:
    now = load(SHIPPED)
    assert (
        of_tag(known((tmp_path, SHIPPED)), terms(now, "kernels-1", "cache-2"), "kernels-1", ["cache-1", "cache-2"])
        == now
    )


@pytest.mark.parametrize("past", BEGUN)
def test_a_tag_of_a_version_before_keeps_its_rule(tmp_path: Path, past: str) -> None:
    """The digest is that of the day; the files of today would hide that one was forgotten."""
    rule, digest = BEGUN[past]
    assert sorted(path.stem for path in (SHIPPED / "past" / past).iterdir()) == sorted(_TERMS)
    begun = load(tmp_path, SHIPPED / "past" / past, SHIPPED)
    assert (begun.decision.rule, begun.terms) == (rule, digest)
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
