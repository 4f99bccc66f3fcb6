"""Profiles are policy: what is shipped, what is refused with what to do, and which fits a card."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.core.artifacts import estimates, profiles
from runner.core.base.errors import PolicyError
from runner.core.base.mountable import SHIPPED

SHIPPED_ONLY = (SHIPPED / "policies",)
TEXT = (SHIPPED / "policies" / "profiles" / "small.yaml").read_text()


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, ...]:
    (tmp_path / "profiles").mkdir()
    return (tmp_path, *SHIPPED_ONLY)


def write(folders: tuple[Path, ...], name: str, *changes: tuple[str, str]) -> None:
    text = TEXT
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    (folders[0] / "profiles" / f"{name}.yaml").write_text(text)


def test_the_shipped_ones_are_whole_and_upstreams_are_upstreams_numbers() -> None:
    """karpathy/autoresearch, prepare.py: MAX_SEQ_LEN, TIME_BUDGET, VOCAB_SIZE, EVAL_TOKENS, one batch of 128 rows."""
    assert profiles.names(SHIPPED_ONLY) == ["cpu-hour", "demo", "medium", "small", "upstream"]
    for name in profiles.names(SHIPPED_ONLY):
        made = profiles.shipped(name)
        assert made.eval_rows % made.eval_batch == made.holdout_rows % made.eval_batch == 0
    up = profiles.shipped("upstream")
    assert (up.max_seq_len, up.time_budget_s, up.vocab_size, up.eval_tokens) == (2048, 300, 8192, 40 * 524_288)
    assert up.holdout_tokens == 0  # its training shards are all trained on


def test_a_benchs_own_takes_the_place_of_the_shipped_one(folders: tuple[Path, ...]) -> None:
    write(folders, "small", ("time_budget_s: 300", "time_budget_s: 60"))
    assert profiles.load(folders, "small").time_budget_s == 60
    assert profiles.load(SHIPPED_ONLY, "small").time_budget_s == 300


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("vocab_size: 4096", "vocab_size: 70000", "vocab_size"),  # two bytes a token
        ("vocab_size: 4096", "vocab_size: 256", "vocab_size"),  # no room for single bytes and the special tokens
        ("eval_batch: 16", "eval_batch: 17", "multiple of max_seq_len"),
        ("eval_tokens: 2097152", "eval_tokens: 2097153", "2097152 is near"),
        ("holdout_tokens: 2097152", "holdout_tokens: 1", "holdout_tokens must be a multiple"),
        ("validation_share: 0.02", "validation_share: 0.9", "validation_share"),
        ("gpu_gib: 8", "gpu_gib: 8\nrows: 3", "rows"),
        ("gpu_gib: 8\n", "", "gpu_gib"),
        ("time_budget_s: 300", "time_budget_s: 0", "time_budget_s"),
        ("max_seq_len: 512", "max_seq_len: 131072", "logits a pass"),
    ],
)
def test_what_cannot_be_trained_or_scored_is_refused_by_key(
    folders: tuple[Path, ...], old: str, new: str, told: str
) -> None:
    write(folders, "mine", (old, new))
    with pytest.raises(PolicyError, match=told):
        profiles.load(folders, "mine")


@pytest.mark.parametrize("name", ["kernels", "cache", "", "../small", "Small", "a" * 33, "-x", "small.yaml"])
def test_a_name_that_an_artifact_could_not_have_is_refused(folders: tuple[Path, ...], name: str) -> None:
    with pytest.raises(PolicyError, match="no name for a profile"):
        profiles.load(folders, name)


def test_one_that_is_not_there_names_those_that_are_and_an_empty_one_is_refused(folders: tuple[Path, ...]) -> None:
    with pytest.raises(PolicyError, match="no profile 'none'") as caught:
        profiles.load(folders, "none")
    assert "cpu-hour, demo" in str(caught.value.fix)
    (folders[0] / "profiles" / "empty.yaml").write_text("")
    with pytest.raises(PolicyError):
        profiles.load(folders, "empty")


@pytest.mark.parametrize(("gib", "name"), [(4, None), (8, "small"), (12, "small"), (16, "medium"), (80, "upstream")])
def test_the_largest_that_a_card_is_for_is_named(gib: int, name: str | None) -> None:
    assert profiles.fitting(SHIPPED_ONLY, gib) == name


def test_an_estimate_says_what_an_h200_showed() -> None:
    """docs/gpu.md: 8 rows of 2,048 tokens took 4.9 GiB, 32 took 15.4, 128 took 51; 50 M parameters with upstream's own."""
    found = estimates.estimate(profiles.shipped("upstream"), 0.01)
    assert found.rows[8] >= 8
    assert found.rows[24] >= 32
    assert found.rows[80] >= 128
    assert found.rows[8] < 32  # 15.4 GiB
    assert found.passes == 1280


def test_more_to_score_takes_more_text_and_more_work() -> None:
    small, medium = (estimates.estimate(profiles.shipped(name), 0.02) for name in ("small", "medium"))
    assert medium.text_bytes > small.text_bytes
    assert medium.evaluation_flops > small.evaluation_flops
    assert all(medium.rows[gib] <= small.rows[gib] for gib in estimates.CARDS)


def test_a_stray_file_and_a_broken_one_keep_no_other_from_being_used(folders: tuple[Path, ...]) -> None:
    (folders[0] / "profiles" / "small copy.yaml").write_text(TEXT)
    (folders[0] / "profiles" / "broken.yaml").write_text("gpu_gib: many\n")
    assert "small copy" not in profiles.names(folders)
    assert profiles.fitting(folders, 8) == "small"
    with pytest.raises(PolicyError, match="broken"):
        profiles.load(folders, "broken")
